"""Makes one file an image, in any number of calls: what is there is kept, the rest is made."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pnoc_jax.data import info
from pnoc_jax.engine import log, loop
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.parallel import hosts

Result = tuple[int, Callable[[], None]]


def image_path(directory: Path, split: str, name: str, suffix: str = '.png') -> Path:
  """Where the product of the image `name` lies in a stage's directory."""
  return directory / split / f'{name}{suffix}'


def make(
  runtime: Runtime,
  source: info.Source,
  *,
  what: str,
  among: Iterable[int],
  exists: Callable[[str], bool],
  results: Callable[[list[int]], Iterator[Result]],
) -> int:
  """Makes the products that are not there yet, each process its share of them.

  Args:
    runtime: tells when to stop.
    source: the images.
    what: for the progress bar.
    among: indices of the images that shall have a product.
    exists: whether the image of this id has its product, whole.
    results: makes products: `indices -> (index, write)`, in any order; `write()` must leave the
      whole product or nothing.

  Returns:
    How many this process made in this call.

  Raises:
    Interrupted: a signal asked a process to stop; what was made is kept.
  """
  among = [int(i) for i in among]
  todo = [i for i in among if not exists(source.ids[i])]
  mine = todo[hosts.process_index() :: hosts.process_count()]
  made, stopped = 0, False
  with log.Progress(len(among), what, done=len(among) - len(mine)) as progress:
    for _, write in results(mine) if mine else ():
      write()
      made += 1
      progress.advance()
      if runtime.should_stop():
        stopped = True
        break
  # Those that have made their share wait here for the others, and stop with them.
  if hosts.any_host(stopped):
    raise loop.Interrupted(made, f'{what}: every image so far is kept')
  return made
