import jax
import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.engine import loop
from pnoc_jax.parallel import arrays, hosts
from tests.engine import quadratic
from tests.parallel import two_processes


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp('two')
  return two_processes.run('tests.parallel.worker:everything', str(folder), devices=2)


def test_processes_meet_and_agree(results):
  for i, result in enumerate(results):
    found = result['hosts']
    assert found == {'index': i, 'count': 2, 'read': 'written', 'any': [True, False, True]}


def test_arrays_are_global_over_processes(results):
  for result in results:
    found = result['arrays']
    assert found['global'] == list(range(8))
    np.testing.assert_allclose(found['scaled'], np.arange(8) / 7, rtol=1e-6)
    np.testing.assert_array_equal(found['noise'], jax.random.normal(jax.random.key(3), (8,)))
    assert found['traces'] == 1


def test_two_processes_train_and_resume_as_one(results, mesh):
  state = arrays.replicate(quadratic.init(), mesh)
  state = loop.fit(
    quadratic.make_update(mesh),
    state,
    quadratic.batches(mesh),
    loop.Hooks(save=lambda *_: None, log=lambda *_: None),
    total_steps=10,
    every=loop.Every(),
  )
  for result in results:
    assert result['training']['logged'] == [5, 10]
    np.testing.assert_allclose(result['training']['w'], state.params['w'], rtol=1e-5)


def test_a_damaged_checkpoint_is_set_aside_by_both_processes(results):
  assert results[0]['damaged'] == results[1]['damaged'] == [1, [1, 2]]


def test_a_signal_to_one_process_stops_both_at_one_step(results):
  assert results[0]['signal'] == results[1]['signal'] == [4, [4]]


def test_initialize_by_hand_needs_all_three():
  with pytest.raises(errors.UserError, match='all of coordinator'):
    hosts.initialize(coordinator='localhost:1234')


def test_initialize_alone_does_nothing(monkeypatch):
  monkeypatch.delenv('SLURM_STEP_NUM_TASKS', raising=False)
  monkeypatch.delenv('TPU_WORKER_HOSTNAMES', raising=False)
  assert not hosts.initialize()


def test_a_slurm_step_of_several_tasks_is_joined(monkeypatch):
  called = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *given: called.append(given))
  monkeypatch.setattr(jax.config, 'update', lambda *_: None)
  monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '4')
  assert hosts.initialize()
  assert called == [()]
  # Whatever the cluster is: JAX asks it, or nobody.
  assert not hosts.initialize(hosts.Distributed.OFF)
  monkeypatch.delenv('SLURM_STEP_NUM_TASKS')
  assert hosts.initialize(hosts.Distributed.ON)
  assert called == [(), ()]
