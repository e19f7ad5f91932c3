"""The generator's program on one device, on two and on eight: the same numbers."""

from unittest import mock

import jax
import numpy as np
import pytest

from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import mesh as mesh_lib
from tests.parallel import two_processes
from tests.updates import full_step


@pytest.fixture(scope='module')
def compiled():
  """All functions that the programs of this file compile, as they come."""
  made, original = [], compiler.jit

  def spy(*arguments, **options):
    made.append(original(*arguments, **options))
    return made[-1]

  with mock.patch.object(compiler, 'jit', spy):
    yield made


@pytest.fixture(scope='module')
def program(mesh, compiled):
  """The compiled step on all eight devices."""
  return full_step.make_program(mesh, full_step.config())


@pytest.fixture(scope='module')
def eight(mesh, program):
  """All steps on eight devices."""
  return full_step.take_steps(mesh, program)


@pytest.fixture(scope='module')
def one(one_device):
  """All steps on one device."""
  return full_step.take_steps(one_device, full_step.make_program(one_device, full_step.config()))


def _close(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_eight_devices_step_as_one(eight, one):
  _close(eight, one)


def test_two_devices_step_as_one(one):
  two = mesh_lib.make_mesh(jax.devices()[:2])
  _close(full_step.take_steps(two, full_step.make_program(two, full_step.config())), one)


def test_two_processes_step_as_one(one, tmp_path):
  function = 'tests.updates.full_step:in_two_processes'
  assert two_processes.run(function, str(tmp_path)) == [True, True]
  for process in range(2):
    with np.load(tmp_path / f'{process}.npz') as found:
      _close(dict(found), one)


def test_the_same_steps_again_are_the_same_to_the_last_bit(mesh, program, eight):
  again = full_step.take_steps(mesh, program)
  assert again.keys() == eight.keys()
  assert [name for name, x in eight.items() if not np.array_equal(again[name], x)] == []


def test_a_step_moves_what_it_should(eight, program):
  before = {
    name: np.asarray(x)
    for name, x in full_step.trees.flatten_names({'state': program.init()}).items()
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


def test_many_steps_trace_once(mesh, program, compiled, eight):
  del eight
  state = program.init()
  for step in range(3):
    state, _ = program.step(state, arrays.to_global(full_step.batch(step), mesh), step)
  # Both updates, the sum of leaks and its clearing, the state of step 0 each time it was made.
  assert len(compiled) >= 5
  assert {function.traces for function in compiled} == {1}
