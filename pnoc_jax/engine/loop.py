"""The training loop: save / next / step / log / evaluate, in this order, for every training."""

import collections
import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.engine import clock as clock_lib
from pnoc_jax.parallel import arrays, hosts

Metrics = Mapping[str, Any]
WATCHED = 'loss/'


@dataclasses.dataclass(slots=True)
class Every:
  """How often things happen, in steps; 0 means only at the end (for `save` and `evaluate`).

  Attributes:
    log: the metrics' mean over this many steps is logged.
    save: a checkpoint is written.
    evaluate: the evaluation runs.
    agree: with several processes, they ask each other whether one was told to stop.
  """

  log: int = 10
  save: int = 0
  evaluate: int = 0
  agree: int = 10


class TrainingDiverged(errors.UserError):
  """A loss was not finite.

  Attributes:
    step: the update at fault, counted from 1, as in the log.
    loss: the name of the loss.
    examples: the names of the examples in the batch.
  """

  def __init__(self, message: str, *, step: int, loss: str, examples: list[str]):
    super().__init__(message)
    self.step = step
    self.loss = loss
    self.examples = examples


class Interrupted(Exception):
  """The training was told to stop, and saved its state first: not an error.

  Attributes:
    step: the step that was saved.
    signal: the signal that asked for it; SIGTERM where another process received it.
  """

  def __init__(self, step: int, what: str | None = None):
    super().__init__(f'{what or f"saved at step {step}"}; the same command resumes.')
    self.step, self.signal = step, signal.SIGTERM


@dataclasses.dataclass(frozen=True)
class Hooks:
  """What the loop calls.

  Attributes:
    save: `(step, state)`; may be asynchronous if it has copied the state when it returns.
    log: `(step, metrics)`: means over the steps since the last log, as floats.
    evaluate: `(step, state)` -> metrics to log, or None.
    should_stop: asked at every step; see `stop_on_signals`.
    ids: names the examples of `batch['index']`, for the message about a divergence.
  """

  save: Callable[[int, Any], None]
  log: Callable[[int, Metrics], None]
  evaluate: Callable[[int, Any], Metrics | None] | None = None
  should_stop: Callable[[], bool] = lambda: False
  ids: Callable[[np.ndarray], list[str]] | None = None


def fit(
  update: Callable[[Any, Any, int], tuple[Any, Metrics]],
  state: Any,
  batches: Iterator[Any],
  hooks: Hooks,
  *,
  total_steps: int,
  start_step: int = 0,
  every: Every,
  clock: clock_lib.Clock | None = None,
) -> Any:
  """Trains from `start_step` to `total_steps`.

  A step is saved at the beginning of the next one, after its lines were logged: a checkpoint of
  step n implies that the log is complete up to n. Steps are counted by finished updates; `update`
  receives the number of updates before it, from 0.

  The host does not wait for the device at each step: metrics stay there until they are logged. Only
  the losses of a few steps ago are looked at, so a NaN is found soon, and always before a save.

  Args:
    update: `(state, batch, step) -> (state, metrics)`, compiled; metrics are scalars.
    state: the state after `start_step` updates.
    batches: the batches from `start_step` on.
    hooks: what is called on the way.
    total_steps: how many updates the state has at the end.
    start_step: how many it has now.
    every: how often to log, save and evaluate; all three also happen at the end.
    clock: measures the throughput, which is then logged.

  Returns:
    The state after `total_steps` updates. It is saved.

  Raises:
    TrainingDiverged: a metric whose name begins with `loss/` is NaN or infinite.
    Interrupted: `hooks.should_stop()`; the state is saved.
    UserError: the batches end too early.
  """
  clock = clock or clock_lib.Clock(total_steps=total_steps)
  watch = _Watch(total_steps, hooks.ids)
  means = _Means()
  for step in range(start_step, total_steps):
    stop = _agree(hooks.should_stop, step - start_step, every)
    if stop or (step > start_step and _due(step, every.save)):
      with clock.pause():
        watch.check_all()
        if stop and means:
          hooks.log(step, means.pop())
        hooks.save(step, state)
      if stop:
        raise Interrupted(step)

    batch = _next(batches, step, total_steps)
    state, metrics = update(state, batch, step)
    done = step + 1
    last = done == total_steps
    watch.add(done, batch, metrics)
    means.add(metrics)

    if step == start_step:
      watch.check_all()  # Waits for the compilation and the first step, which are not timed.
      clock.start(done)
    if last or _due(done, every.log):
      watch.check_all()
      hooks.log(done, means.pop() | clock.read(done))
    if hooks.evaluate is not None and (last or _due(done, every.evaluate)):
      with clock.pause():
        watch.check_all()
        result = hooks.evaluate(done, state)
        if result is not None:
          hooks.log(done, result)
  watch.check_all()
  hooks.save(max(start_step, total_steps), state)
  return state


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _agree(should_stop: Callable[[], bool], steps: int, every: Every) -> bool:
  # All processes must stop at the same step, or those that go on wait for the others forever.
  if hosts.process_count() == 1:
    return should_stop()
  return steps % max(1, every.agree) == 0 and hosts.any_host(should_stop())


def _next(batches: Iterator[Any], step: int, total_steps: int) -> Any:
  try:
    return next(batches)
  except StopIteration:
    raise errors.UserError(
      f'the batches ended after step {step} of {total_steps}: the data must repeat.'
    ) from None


class _Watch:
  """Looks at the losses of each step, a few steps late.

  The lag is a fixed number of steps and not "whatever has arrived", so that all processes find a
  divergence at the same point; and it bounds how far the host runs ahead of the device.
  """

  def __init__(self, total_steps: int, ids: Callable[[np.ndarray], list[str]] | None, lag: int = 8):
    self._total_steps = total_steps
    self._ids = ids
    self._lag = lag
    self._pending = collections.deque()

  def add(self, step: int, batch: Any, metrics: Metrics) -> None:
    losses = {name: x for name, x in metrics.items() if name.startswith(WATCHED)}
    for x in losses.values():
      if hasattr(x, 'copy_to_host_async'):
        x.copy_to_host_async()
    index = batch.get('index') if isinstance(batch, Mapping) else None
    self._pending.append((step, index, losses))
    while len(self._pending) > self._lag:
      self._check(*self._pending.popleft())

  def check_all(self) -> None:
    while self._pending:
      self._check(*self._pending.popleft())

  def _check(self, step: int, index: Any, losses: Metrics) -> None:
    for name, x in losses.items():
      value = np.asarray(x)
      if not np.all(np.isfinite(value)):
        raise self._diverged(step, index, name, value)

  def _diverged(self, step: int, index: Any, name: str, value: np.ndarray) -> TrainingDiverged:
    examples = []
    if index is not None:
      index = arrays.to_host(index).reshape(-1)
      examples = list(self._ids(index)) if self._ids else [str(i) for i in index]
    message = (
      f'{name} is {float(value.mean())} at step {step} of {self._total_steps}. '
      f'Examples in the batch: {", ".join(examples) or "unknown"}. '
      'The state was not saved: the last checkpoint is from before. Look at these examples; if '
      'they are sound, lower the learning rate or clip the gradients, and run again.'
    )
    return TrainingDiverged(message, step=step, loss=name, examples=examples)


class _Means:
  """Collects metrics on the device; one that some steps do not have is averaged over the others."""

  def __init__(self):
    self._values = collections.defaultdict(list)

  def __bool__(self) -> bool:
    return bool(self._values)

  def add(self, metrics: Metrics) -> None:
    for name, x in metrics.items():
      self._values[name].append(x)

  def pop(self) -> dict[str, float]:
    means = {
      name: float(np.mean([np.asarray(x, np.float64) for x in values]))
      for name, values in self._values.items()
    }
    self._values.clear()
    return means


@contextlib.contextmanager
def stop_on_signals(
  signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT),
) -> Iterator[Callable[[], bool]]:
  """Turns the first SIGTERM or SIGINT into a flag; a second one acts as it did before.

  Outside the main thread, where Python has no signal handlers, the flag is never set. An
  `Interrupted` that passes is told which signal came.

  Yields:
    A function that tells whether a signal has come: `fit`'s `should_stop`.
  """
  flag = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield flag.is_set
    return
  before, came = {}, []

  def restore() -> None:
    for number, handler in before.items():
      # None: a handler that was not set from Python, which cannot be put back.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)

  def handle(number: int, frame: Any) -> None:
    del frame
    came.append(signal.Signals(number))
    flag.set()
    restore()

  for number in signals:
    before[number] = signal.signal(number, handle)
  try:
    yield flag.is_set
  except Interrupted as stop:
    stop.signal = came[0] if came else stop.signal
    raise
  finally:
    restore()
