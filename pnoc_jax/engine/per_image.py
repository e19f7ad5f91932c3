"""Makes one file an image, in any number of calls: what is there is kept, the rest is made."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pnoc_jax.data import info
from pnoc_jax.engine import log, loop
from pnoc_jax.engine.runtime import Runtime
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

  Args:
    job: what is made.
    runtime: tells when to stop.

  Returns:
    How many this process made in this call.

  Raises:
    Interrupted: a signal asked a process to stop; what was made is kept.
  """
  among = [int(i) for i in job.among]
  todo = [i for i in among if not job.exists(job.path(i))]
  mine = todo[hosts.process_index() :: hosts.process_count()]
  (job.directory / job.source.split).mkdir(parents=True, exist_ok=True)
  made, stopped = 0, False
  with log.Progress(len(among), job.what, done=len(among) - len(mine)) as progress:
    for index, write in job.results(mine) if mine else ():
      write(job.path(index))
      made += 1
      progress.advance()
      if runtime.should_stop():
        stopped = True
        break
  # Those that have made their share wait here for the others, and stop with them.
  if hosts.any_host(stopped):
    raise loop.Interrupted(made, f'{job.what}: every image so far is kept')
  return made
