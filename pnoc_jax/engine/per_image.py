"""Makes one file an image, in any number of calls: what is there is kept, the rest is made."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pnoc_jax.data import info
from pnoc_jax.engine import log, loop
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic
from pnoc_jax.parallel import hosts

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
      whole product or nothing.
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


def make_all(jobs: Iterable[Job], runtime: Runtime) -> dict[str, float]:
  """Makes the products of several splits, one after another.

  Returns:
    Facts for the stage's record: this process's share of this call, `images` and
    `images_per_second`.
  """
  start, made = time.monotonic(), 0
  for job in jobs:
    made += make(job, runtime)
  return {'images': made, 'images_per_second': made / (time.monotonic() - start)}


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
  among = [int(i) for i in job.among]
  mine = among[hosts.process_index() :: hosts.process_count()]
  todo = [i for i in mine if not job.exists(job.path(i))]
  folder = job.directory / job.source.split
  folder.mkdir(parents=True, exist_ok=True)
  made, stopped = 0, False
  with log.Progress(len(mine), job.what, done=len(mine) - len(todo)) as progress:
    for index, write in job.results(todo) if todo else ():
      write(job.path(index))
      made += 1
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
  return made


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
