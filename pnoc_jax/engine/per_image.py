"""Makes one file an image, in any number of calls: what is there is kept, the rest is made.

Files are packed and written by threads, while the devices make what comes next.
"""

import collections
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from pnoc_jax.data import info
from pnoc_jax.engine import log, loop
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic
from pnoc_jax.parallel import hosts

_WRITERS = 4
"""Threads that write: packing and syncing release the interpreter's lock."""
_HELD = 2 * _WRITERS
"""Products that are held at once, those that are written included."""

# An image's index, and what writes its product to the path that it is given.
Result = tuple[int, Callable[[Path], Any]]


def image_path(directory: Path, split: str, name: str, suffix: str = '.png') -> Path:
  """Where the product of the image `name` lies in a stage's directory."""
  return directory / split / f'{name}{suffix}'


@dataclasses.dataclass(frozen=True)
class Job:
  """The products of one split.

  Attributes:
    what: they are, for the progress bar: `priors of train`.
    source: the images.
    among: indices of the images that shall have a product.
    directory: that holds `<split>/<id><suffix>`.
    results: makes products: `indices -> (index, write)`, in any order; `write(path)` must leave the
      whole product or nothing, in any thread.
    exists: whether there is a whole product at a path.
    suffix: of the files.
  """

  what: str
  source: info.Source
  among: Iterable[int]
  directory: Path
  results: Callable[[list[int]], Iterator[Result]]
  exists: Callable[[Path], bool]
  suffix: str = '.png'

  def path(self, index: int) -> Path:
    """Where an image's product lies."""
    return image_path(self.directory, self.source.split, self.source.ids[index], self.suffix)


def share(among: Iterable[int]) -> list[int]:
  """Those of some images that this process makes."""
  return [int(i) for i in among][hosts.process_index() :: hosts.process_count()]


def make_all(jobs: Iterable[Job], runtime: Runtime) -> dict[str, float]:
  """Makes the products of several splits, one after another.

  Returns:
    Facts for the stage's record: this process's share of this call, `images` and, if there were
    any, `images_per_second`; and `seconds_for_disk`, how long the devices were given nothing to do
    because too many products waited to be written.
  """
  start, made, waited = time.monotonic(), 0, 0.0
  for job in jobs:
    count, seconds = _make(job, runtime)
    made, waited = made + count, waited + seconds
  seconds = time.monotonic() - start
  speed = {'images_per_second': made / seconds} if made else {}
  return {'images': made, **speed, 'seconds_for_disk': round(waited, 3)}


def make(job: Job, runtime: Runtime) -> int:
  """Makes the products that are not there yet, each process its share of them.

  The shares are fixed before anything is looked up: what one process finds does not depend on what
  another one has written meanwhile.

  Args:
    job: what is made.
    runtime: tells when to stop.

  Returns:
    How many this process made in this call.

  Raises:
    Interrupted: a signal asked a process to stop; what was made is kept.
    UserError: products are missing at the end.
  """
  return _make(job, runtime)[0]


def _make(job: Job, runtime: Runtime) -> tuple[int, float]:
  """What `make` does; returns also for how many seconds all was held up by the disk."""
  among = [int(i) for i in job.among]
  mine = share(among)
  todo = [i for i in mine if not job.exists(job.path(i))]
  folder = job.directory / job.source.split
  folder.mkdir(parents=True, exist_ok=True)
  made, stopped = 0, False
  progress = log.Progress(len(mine), job.what, done=len(mine) - len(todo))
  with progress, _Writers() as writers:
    for index, write in job.results(todo) if todo else ():
      made += 1
      writers.write(write, job.path(index))
      progress.advance()
      if runtime.should_stop():
        stopped = True
        break
  # Those that have made their share wait here for the others, and stop with them.
  if hosts.any_host(stopped):
    raise loop.Interrupted(made, f'{job.what}: every image so far is kept')
  # Before the stage is called done; a power cut then takes none of them.
  atomic.sync_folders([folder, *(job.path(i) for i in todo)])
  _count(job, among, mine)
  return made, writers.waited


class _Writers:
  """Threads that write products; those that were given are written when the block is left.

  Attributes:
    waited: seconds in which one more product had to wait until another one was written.
  """

  def __init__(self):
    self._pool = futures.ThreadPoolExecutor(_WRITERS, 'write')
    self._held: collections.deque[futures.Future] = collections.deque()
    self.waited = 0.0

  def write(self, write: Callable[[Path], Any], path: Path) -> None:
    """Has a product written; raises what an earlier one has met."""
    while self._held and (self._held[0].done() or len(self._held) == _HELD):
      begun = time.monotonic()
      self._held.popleft().result()
      self.waited += time.monotonic() - begun
    self._held.append(self._pool.submit(write, path))

  def __enter__(self) -> '_Writers':
    return self

  def __exit__(self, *exception: Any) -> None:
    # Also after an error: what was made is kept.
    self._pool.shutdown()
    while self._held:
      error = self._held.popleft().exception()
      if error is not None and exception[0] is None:
        raise error


def _count(job: Job, among: Sequence[int], mine: Sequence[int]) -> None:
  """Raises UserError, in all processes, if one of a process's share is not there."""
  names: dict[Path, set[str]] = {}
  missing = []
  for index in mine:
    path = job.path(index)
    if path.parent not in names:
      names[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
    if path.name not in names[path.parent]:
      missing.append(path)
  if hosts.any_host(bool(missing)):
    what = f'{len(missing)} of {len(mine)}' if missing else 'Some'
    first = f', the first is {missing[0]}' if missing else ' at another process'
    raise UserError(
      f'{job.what}: {what} products that were made are not there{first}. Was anything removed, or '
      f'is the disk not shared by all processes? The same command makes what is missing of the '
      f'{len(among)}'
    )
