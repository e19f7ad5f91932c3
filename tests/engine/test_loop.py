import os
import signal

import jax
import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.engine import log, loop
from pnoc_jax.io import checkpoints, records
from pnoc_jax.parallel import arrays
from tests.engine import quadratic

NOTHING = loop.Hooks(save=lambda *_: None, log=lambda *_: None)
EVERY = loop.Every(log=3, save=6)


def test_order_is_save_next_step_log_evaluate():
  calls = []

  def update(state, batch, step):
    calls.append(f'step {step} batch {batch}')
    return state + 1, {'loss/total': np.float32(step)}

  def next_batches():
    for i in range(100):
      calls.append(f'next {i}')
      yield i

  def evaluate(step, state):
    calls.append(f'evaluate {step}')
    return {'eval/miou': 0.5}

  state = loop.fit(
    update,
    0,
    next_batches(),
    loop.Hooks(
      save=lambda step, state: calls.append(f'save {step} state {state}'),
      evaluate=evaluate,
      log=lambda step, m: calls.append(
        f'log {step} ' + ' '.join(f'{k}={v}' for k, v in m.items() if not k.startswith('time/'))
      ),
    ),
    total_steps=5,
    every=loop.Every(log=2, save=2, evaluate=2),
  )
  assert state == 5
  assert calls == [
    *('next 0', 'step 0 batch 0'),
    *('next 1', 'step 1 batch 1', 'log 2 loss/total=0.5', 'evaluate 2', 'log 2 eval/miou=0.5'),
    *('save 2 state 2', 'next 2', 'step 2 batch 2'),
    *('next 3', 'step 3 batch 3', 'log 4 loss/total=2.5', 'evaluate 4', 'log 4 eval/miou=0.5'),
    *('save 4 state 4', 'next 4', 'step 4 batch 4'),
    *('log 5 loss/total=4.0', 'evaluate 5', 'log 5 eval/miou=0.5', 'save 5 state 5'),
  ]


def train(mesh, directory, total_steps, *, every=EVERY, poison_at=None, **hooks):
  """Trains the quadratic with checkpoints and a log, from the newest checkpoint on."""
  update = quadratic.make_update(mesh)
  state, step = arrays.replicate(quadratic.init(), mesh), 0
  with checkpoints.Checkpoints(directory / 'checkpoints') as saved:
    restored = saved.restore_latest(state)
    if restored is not None:
      step, state, _ = restored
    with log.MetricWriter(
      directory, total_steps=total_steps, start_step=step, tensorboard=False, console=None
    ) as writer:
      state = loop.fit(
        update,
        state,
        quadratic.batches(mesh, step, poison_at=poison_at),
        loop.Hooks(save=saved.save, log=writer.write, **hooks),
        total_steps=total_steps,
        start_step=step,
        every=every,
      )
  assert update.traces == 1
  return arrays.to_host(state)


def losses(directory):
  lines = records.read_jsonl(directory / log.METRICS)
  return [(line['step'], line['loss/total']) for line in lines]


def test_a_killed_run_resumes_as_if_it_had_not_been_killed(mesh, tmp_path):
  whole = train(mesh, tmp_path / 'whole', 20)

  def die_at_10():
    if len(calls) == 10:
      raise KeyboardInterrupt
    calls.append(0)
    return False

  calls = []
  with pytest.raises(KeyboardInterrupt):
    train(mesh, tmp_path / 'cut', 20, should_stop=die_at_10)
  assert losses(tmp_path / 'cut')[-1][0] == 9  # Logged after the last checkpoint, of step 6.
  resumed = train(mesh, tmp_path / 'cut', 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  assert losses(tmp_path / 'cut') == losses(tmp_path / 'whole')


def test_device_count_changes_nothing_but_rounding(mesh, one_device, tmp_path):
  eight = train(mesh, tmp_path / 'eight', 5)
  one = train(one_device, tmp_path / 'one', 5)
  np.testing.assert_allclose(eight.params['w'], one.params['w'], rtol=1e-6)


def test_divergence_names_the_step_and_the_examples_and_saves_nothing_after_it(mesh, tmp_path):
  with pytest.raises(loop.TrainingDiverged) as caught:
    train(
      mesh,
      tmp_path,
      20,
      poison_at=7,
      every=loop.Every(log=100, save=4),
      ids=lambda index: [f'image_{i}' for i in index],
    )
  assert isinstance(caught.value, errors.UserError)
  assert (caught.value.step, caught.value.loss) == (8, 'loss/total')
  assert caught.value.examples == [f'image_{i}' for i in range(56, 64)]
  assert 'step 8 of 20' in str(caught.value)
  assert 'image_56, image_57' in str(caught.value)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert saved.steps() == [4]


def test_divergence_is_found_within_a_few_steps_where_nothing_is_logged_or_saved():
  steps = []

  def update(state, batch, step):
    steps.append(step)
    return state, {'loss/cls': np.float32(np.inf if step == 5 else 1)}

  with pytest.raises(loop.TrainingDiverged, match='loss/cls is inf at step 6'):
    loop.fit(
      update,
      0,
      iter(dict, 0),
      NOTHING,
      total_steps=1000,
      every=loop.Every(log=1000),
    )
  assert len(steps) < 20


def test_sigterm_saves_at_the_next_step_and_the_same_command_resumes(mesh, tmp_path):
  whole = train(mesh, tmp_path / 'whole', 20)
  asked = []

  with loop.stop_on_signals() as flag:

    def should_stop():
      asked.append(0)
      if len(asked) == 8:
        os.kill(os.getpid(), signal.SIGTERM)
      return flag()

    with pytest.raises(loop.Interrupted, match='saved at step 7; the same command resumes'):
      train(mesh, tmp_path / 'cut', 20, should_stop=should_stop)
  resumed = train(mesh, tmp_path / 'cut', 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  assert [step for step, _ in losses(tmp_path / 'cut')] == [3, 6, 7, 9, 12, 15, 18, 20]


def test_a_second_signal_acts_as_before_and_handlers_are_put_back():
  # A process that a shell started in the background ignores SIGINT: take Python's own handler.
  inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    _raise_twice()
  finally:
    signal.signal(signal.SIGINT, inherited)


def _raise_twice():
  before = signal.getsignal(signal.SIGINT)
  with loop.stop_on_signals() as flag:
    assert not flag()
    signal.raise_signal(signal.SIGINT)
    assert flag()
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is before


def test_batches_that_end_are_an_error():
  with pytest.raises(errors.UserError, match='ended after step 2 of 3'):
    loop.fit(
      lambda state, batch, step: (state, {}),
      0,
      iter([1, 2]),
      NOTHING,
      total_steps=3,
      every=loop.Every(),
    )


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_tells_the_signal_that_came(number):
  with pytest.raises(loop.Interrupted) as caught, loop.stop_on_signals():
    signal.raise_signal(number)
    raise loop.Interrupted(3)
  assert caught.value.signal is number
