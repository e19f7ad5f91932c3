"""The clock of a training: images a second and the time that is left, without compilation."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
  """Measures between two readings; the caller makes sure that the steps are finished then."""

  def __init__(
    self,
    *,
    total_steps: int,
    batch_size: int | None = None,
    now: Callable[[], float] = time.monotonic,
  ):
    """Makes a stopped clock.

    Args:
      total_steps: the step at which the training ends.
      batch_size: examples a step over all processes; without it no images a second are told.
      now: seconds from any origin.
    """
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._now = now
    self._begin = None
    self._paused = 0.0

  def start(self, step: int) -> None:
    """Starts at the end of the first step, which has compiled."""
    self._begin = self._last = (self._now(), step)
    self._paused = 0.0

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves the time of a save or an evaluation out of the throughput; not out of the ETA."""
    begin = self._now()
    try:
      yield
    finally:
      self._paused += self._now() - begin

  def read(self, step: int) -> dict[str, float]:
    """Reads the clock at a finished step.

    Args:
      step: how many steps are finished.

    Returns:
      `time/step` in seconds and `time/images_per_second` since the last reading, `time/eta` in
      seconds; empty where there is nothing to measure yet.
    """
    if self._begin is None or step <= self._last[1]:
      return {}
    now = self._now()
    steps = step - self._last[1]
    seconds = max(now - self._last[0] - self._paused, 1e-9)
    a_step = (now - self._begin[0]) / (step - self._begin[1])
    self._last = (now, step)
    self._paused = 0.0
    result = {
      'time/step': seconds / steps,
      'time/eta': a_step * max(0, self._total_steps - step),
    }
    if self._batch_size:
      result['time/images_per_second'] = self._batch_size * steps / seconds
    return result


def duration(seconds: float) -> str:
  """Writes a duration for people: `42 s`, `3 min 20 s`, `5 h 10 min`."""
  seconds = round(seconds)
  minutes, seconds = divmod(seconds, 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes} min'
  return f'{minutes} min {seconds} s' if minutes else f'{seconds} s'
