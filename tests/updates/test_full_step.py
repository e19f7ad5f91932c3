import numpy as np
import pytest

from pnoc_jax.parallel import arrays
from tests.parallel import two_processes
from tests.updates import full_step


@pytest.fixture(scope='module')
def trainer(mesh):
  """The compiled step on all eight devices."""
  return full_step.make_trainer(mesh, full_step.config())


@pytest.fixture(scope='module')
def eight(mesh, trainer):
  """Two steps on eight devices."""
  return full_step.take_steps(mesh, trainer)


@pytest.fixture(scope='module')
def one(one_device):
  """Two steps on one device."""
  trainer = full_step.make_trainer(one_device, full_step.config())
  return full_step.take_steps(one_device, trainer)


def _close(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_eight_devices_step_as_one(eight, one):
  _close(eight, one)


def test_two_processes_step_as_one(one, tmp_path):
  results = two_processes.run('tests.updates.full_step:in_two_processes', str(tmp_path), devices=1)
  assert results == [{'devices': 2}] * 2
  for number in (0, 1):
    with np.load(tmp_path / f'{number}.npz') as found:
      _close(dict(found), one)


def test_a_step_moves_what_it_should(eight, mesh, trainer):
  before = {
    name: np.asarray(x)
    for name, x in full_step.trees.flatten_names({'state': trainer.init()}).items()
  }
  moved = {name for name, x in before.items() if not np.array_equal(x, eight[name])}
  params = {name for name in before if '/params/' in name}
  frozen = {x for x in params if '/noc/' in x and ('/bn' in x or '_bn/' in x)}
  assert len(frozen) >= 10
  assert params - moved <= frozen
  assert not moved & frozen
  statistics = {name for name in before if '/batch_stats/' in name}
  assert statistics & moved == {name for name in statistics if '/generator/' in name}
  assert eight['state/generator/step'] == eight['state/noc/step'] == full_step.STEPS


def test_many_steps_trace_once(mesh, trainer, eight):
  del eight
  state = trainer.init()
  for step in range(3):
    state, _ = trainer.update(state, arrays.to_global(full_step.batch(step), mesh), step)
  assert trainer.generator_step.traces == 1
  assert trainer.noc_step.traces == 1
