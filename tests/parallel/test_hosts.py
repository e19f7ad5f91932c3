import os
import socket
import threading
import time

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


@pytest.fixture
def joined(monkeypatch):
  """A free address, and the calls with which JAX would have joined processes."""
  called = []
  for name in [x for x in os.environ if '_proxy' in x.lower()]:
    monkeypatch.delenv(name)
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *given: called.append(given))
  monkeypatch.setattr(jax.config, 'update', lambda *_: None)
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return f'localhost:{free.getsockname()[1]}', called


def _join(address, process):
  return hosts.initialize(coordinator=address, num_processes=2, process_id=process)


def test_a_coordinator_that_never_answers_is_an_error_in_words(monkeypatch, joined):
  address, called = joined
  monkeypatch.setattr(hosts, '_JOINING', 0.3)
  with pytest.raises(
    errors.UserError, match=f'nothing has answered at {address} .* is coordinator'
  ):
    _join(address, 1)
  assert not called  # JAX would abort with a trace.
  assert _join(address, 0) and called == [(address, 2, 0)]  # It is the one that answers.


def test_a_coordinator_may_come_later(joined):
  address, called = joined
  came = []

  def come():
    time.sleep(0.5)
    with socket.create_server(('localhost', int(address.partition(':')[2]))) as server:
      came.append(time.monotonic())
      server.accept()[0].close()

  thread = threading.Thread(target=come)
  thread.start()
  assert _join(address, 1) and time.monotonic() > came[0]
  thread.join()
  assert called == [(address, 2, 1)]
