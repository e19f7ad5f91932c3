"""What a person sees of a run: metrics in a file, in TensorBoard and on a line; progress."""

import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO, TypeVar

import tqdm

from pnoc_jax.engine import clock
from pnoc_jax.errors import UserError
from pnoc_jax.io import records
from pnoc_jax.parallel import hosts

T = TypeVar('T')
METRICS = 'metrics.jsonl'
# What the console shows of a log line; the files have all of it.
SHOWN = ('loss/', 'eval/', 'lr')


class MetricWriter:
  """Writes scalars to `metrics.jsonl`, to TensorBoard and to the console, on the main process."""

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    total_steps: int,
    start_step: int = 0,
    steps_per_epoch: int | None = None,
    tensorboard: bool = True,
    console: Callable[[str], None] | None = print,
  ):
    """Opens the files, and drops what a run that was cut had logged after `start_step`.

    Args:
      directory: of the stage; the files are `metrics.jsonl` and `tensorboard/`.
      total_steps: for the console.
      start_step: the step that was restored; lines of later steps are dropped, because the
        training will write them again.
      steps_per_epoch: for the field `epoch`.
      tensorboard: whether to write TensorBoard's files.
      console: receives one line a record.
    """
    self._total_steps = total_steps
    self._steps_per_epoch = steps_per_epoch
    self._console = console
    self._lines = self._board = None
    if not hosts.is_main():
      return
    directory = pathlib.Path(directory)
    path = directory / METRICS
    records.keep_lines(path, lambda line: _step(line, path) <= start_step)
    self._lines = records.JsonLines(path)
    if tensorboard:
      self._board = _Board(directory / 'tensorboard', start_step)

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics of a step: `fit`'s `log`.

    Args:
      step: how many updates were done.
      metrics: scalars; other values (lists, strings) go to the file alone.
    """
    if self._lines is None:
      return
    record: dict[str, Any] = {'step': step}
    if self._steps_per_epoch:
      record['epoch'] = round(step / self._steps_per_epoch, 4)
    if taken := record.keys() & metrics.keys():
      raise ValueError(f'metrics cannot be named {sorted(taken)}: the log uses these names.')
    record.update(records.plain(metrics))
    self._lines.write(record)
    if self._board is not None:
      self._board.write(step, record)
    if self._console is not None:
      self._console(_line(record, self._total_steps))

  def sync(self) -> None:
    """Waits until all lines are on the disk: a checkpoint relies on those before it."""
    if self._lines is not None:
      self._lines.sync()

  def close(self) -> None:
    """Closes the files."""
    if self._lines is not None:
      self._lines.close()
    if self._board is not None:
      self._board.close()

  def __enter__(self) -> 'MetricWriter':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


class _Board:
  """TensorBoard's file, which is written at once.

  `tensorboardX.SummaryWriter` has a thread for it. On a full disk the thread ends, and the training
  waits for it forever.
  """

  def __init__(self, directory: pathlib.Path, start_step: int):
    """Opens a new file; what other files have after `start_step` is no longer shown."""
    # The package loads PyTorch wherever that is installed: not before a training writes.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    directory.mkdir(parents=True, exist_ok=True)
    self._file = event_file_writer.EventsWriter(os.fspath(directory / 'events'))
    # The class is made as its module is imported, where type checkers do not see it.
    self._event: Any = getattr(event_pb2, 'Event')  # noqa: B009
    self._scalar = summary.scalar
    if start_step:
      start = {'status': 'START'}
      self._add(step=start_step + 1, session_log=start)

  def _add(self, **fields: Any) -> None:
    self._file.write_event(self._event(wall_time=time.time(), **fields))

  def write(self, step: int, record: Mapping[str, Any]) -> None:
    for name, value in record.items():
      if name != 'step' and isinstance(value, int | float):
        self._add(step=step, summary=self._scalar(name, value))
    self._file.flush()

  def close(self) -> None:
    self._file.close()


def _step(line: Mapping[str, Any], path: pathlib.Path) -> int:
  step = line.get('step')
  if type(step) is not int:
    raise UserError(f'{path} is not the log of a training: a line has the step {step!r:.40}')
  return step


def _line(record: Mapping[str, Any], total_steps: int) -> str:
  parts = [f'step {record["step"]}/{total_steps}']
  if 'epoch' in record:
    parts.append(f'epoch {record["epoch"]:.2f}')
  for name, value in record.items():
    if name.startswith(SHOWN) and isinstance(value, int | float):
      parts.append(f'{name} {value:.4g}')
  if 'time/images_per_second' in record:
    parts.append(f'{record["time/images_per_second"]:.1f} images/s')
  if 'time/eta' in record:
    parts.append(f'{clock.duration(record["time/eta"])} left')
  return '  '.join(parts)


class Progress:
  """Shows how far long work is: a bar on a terminal, else a plain line every ten seconds."""

  def __init__(
    self,
    total: int,
    what: str,
    *,
    done: int = 0,
    seconds: float = 10.0,
    file: TextIO | None = None,
    now: Callable[[], float] = time.monotonic,
  ):
    """Starts.

    Args:
      total: how many items there are.
      what: what is being done: `priors of train`.
      done: how many were there before.
      seconds: between two plain lines.
      file: where to write; standard error by default.
      now: seconds from any origin.
    """
    self._total, self._what, self._done = total, what, done
    self._file = file or sys.stderr
    self._seconds, self._now = seconds, now
    self._begin = self._last = now()
    # The first items come after their programs were compiled, which says nothing of the others.
    self._first: tuple[float, int] | None = None
    self._shown = hosts.is_main()
    self._bar = None
    if self._shown and self._file.isatty():
      self._bar = tqdm.tqdm(
        total=total, initial=done, desc=what, file=self._file, dynamic_ncols=True
      )

  def advance(self, items: int = 1) -> None:
    """Tells that so many more are done."""
    self._done += items
    first, self._first = self._first, self._first or (self._now(), self._done)
    if self._bar is not None:
      if first is None:
        self._bar.initial = self._done
        self._bar.unpause()
      self._bar.update(items)
    elif self._shown and self._now() - self._last >= self._seconds:
      self._print()

  def _print(self) -> None:
    self._last = self._now()
    elapsed = self._last - self._begin
    line = f'{self._what}: {self._done}/{self._total}, {clock.duration(elapsed)}'
    begin, before = self._first or (self._last, self._done)
    if before < self._done < self._total:
      seconds = (self._last - begin) / (self._done - before)
      line += f', {clock.duration(seconds * (self._total - self._done))} left'
    print(line, file=self._file, flush=True)

  def close(self) -> None:
    """Ends the bar, or prints the last line."""
    if self._bar is not None:
      self._bar.close()
    elif self._shown:
      self._print()
    self._shown, self._bar = False, None

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def track(items: Iterable[T], what: str, *, total: int) -> Iterator[T]:
  """Yields the items and shows the progress.

  Args:
    items: the work.
    what: what is being done.
    total: how many there are.
  """
  with Progress(total, what) as progress:
    for item in items:
      yield item
      progress.advance()
