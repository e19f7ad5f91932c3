"""What a run takes of the disk, asked before any work; and what to tell where a disk fails."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info
from pnoc_jax.errors import UserError
from pnoc_jax.runs import estimates, graph
from pnoc_jax.stages.common import stage

SHARED = Path('/dev/shm')
"""Where the processes that load data hand over their batches."""
_SURE = 0.5
"""Of an estimate: less room than this share of it is too little, whatever the estimate is worth."""
_FULL = errno.ENOSPC, errno.EDQUOT
_DENIED = errno.EACCES, errno.EPERM
_MISPLACED = (
  *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP),
  errno.ENAMETOOLONG,
)
_BROKEN = errno.EIO, errno.ESTALE, errno.EROFS, errno.EFBIG
# Libraries in other languages pass on the words alone. -7: SIGBUS, which a worker receives where
# the shared memory ends.
_WORDS = 'No space left on device', 'Disk quota exceeded', 'exit code -7', 'exitcode -7'
_BROKEN_WORDS = tuple(os.strerror(number) for number in _BROKEN)


class Images(NamedTuple):
  """The images of a split.

  Attributes:
    labels: f32[N, K].
    sizes: i64[N, 2] (H, W).
  """

  labels: np.ndarray
  sizes: np.ndarray


def products(
  config: PipelineConfig, plan: list[graph.Planned], images: Mapping[str, Images]
) -> dict[str, int]:
  """Estimates, in bytes, what the stages that run will write of each image.

  Args:
    config: the run's.
    plan: its stages.
    images: of the splits that could be opened.

  Returns:
    {stage: bytes}; of a stage that is half done, what is left of it.
  """
  found = {}
  for item in plan:
    if item.runs:
      found[item.stage.name] = sum(
        int(product_bytes(item.stage, images[split]) * (1 - _share(item, split, images[split])))
        for split in item.stage.splits(config)
        if split in images
      )
  return found


def product_bytes(entry: stage.Stage, images: Images) -> int:
  """Estimates the files that a stage makes of a split; 0 for one that makes no file an image."""
  if entry.disk is None:
    return 0
  pixels = images.sizes.prod(1)
  return int(entry.disk(float(pixels.sum()), float((pixels * images.labels.sum(1)).sum())))


def _share(item: graph.Planned, split: str, images: Images) -> float:
  """How much of a split's products is there."""
  folder = item.directory / split
  if item.status is not graph.Status.RESUME or not folder.is_dir():
    return 0.0
  return min(len(os.listdir(folder)) / max(len(images.sizes), 1), 1.0)


def describe(wanted: Mapping[str, float], workdir: Path, *, what: str = 'products') -> str:
  """What a run will take, by stage, and what is free.

  Args:
    wanted: {stage: bytes}.
    workdir: the run's directory; may not exist yet.
    what: is taken.
  """
  parts = ', '.join(f'{k} {estimates.readable(x)}' for k, x in wanted.items() if x)
  text = f'about {estimates.readable(sum(wanted.values()))} for {what}'
  return f'{text}{f" ({parts})" * bool(parts)}; free are {estimates.readable(free(workdir))}'


def free(path: Path) -> int:
  """Bytes that are free where a path is or will be."""
  return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
  """The nearest directory above a path that is there."""
  return path if path.is_dir() or path == path.parent else existing(path.parent)


def ask(
  config: PipelineConfig,
  plan: list[graph.Planned],
  sources: Mapping[str, info.Source],
  workdir: Path,
) -> tuple[str, str]:
  """Compares what the products of a run will take with what is free, before work begins.

  Args:
    config: the run's.
    plan: its stages.
    sources: the splits.
    workdir: the run's directory.

  Returns:
    What to say of it in the plan, and what to warn of; each may be empty.

  Raises:
    UserError: not even half of what is estimated has room.
  """
  made = {x for item in plan if item.runs and item.stage.disk for x in item.stage.splits(config)}
  images = {
    split: Images(source.labels, np.array([source.size(i) for i in range(len(source))]))
    for split, source in sources.items()
    if split in made
  }
  wanted = products(config, plan, images)
  total, room = sum(wanted.values()), free(workdir)
  said = describe(wanted, workdir) if total else ''
  if total <= estimates.FULL * room:
    return said, ''
  text = f'{workdir}: the disk has too little room, {said}'
  old = sorted(path for path in workdir.glob('*.old*') if path.is_dir())
  named = ', '.join(f'{path.name} ({estimates.readable(_size(path))})' for path in old)
  text += f'; {named} of earlier reruns could be removed' if old else ''
  if _SURE * total > room:
    raise UserError(f'{text}. Make room, or name another --workdir; nothing was begun')
  return said, text


def _size(directory: Path) -> int:
  """Bytes of all files below a directory."""
  below = (os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names)
  return sum(os.lstat(path).st_size for path in below)


def failed(error: BaseException, workdir: Path) -> str | None:
  """What to tell about an error that a full or broken disk caused; None for any other error.

  Args:
    error: what ended the run.
    workdir: the run's directory.
  """
  for cause in _chain(error):
    said = ' '.join(str(cause).split())[:200]
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _FULL or any(words in str(cause) for words in _WORDS):
      return (
        f'there is no room for a file ({said}). Free are now: {_rooms(workdir)}. '
        'What is finished is kept: make room and give the same command again; where '
        f'{SHARED} is full, enlarge it (docker run --shm-size=8g) or lower config.runtime.workers.'
      )
    if number in _BROKEN or any(words in str(cause) for words in _BROKEN_WORDS):
      return (
        f'a disk fails ({said}). What is finished is kept: give the same command again once the '
        'disk, or the connection to it, works; of a file that is too large, see `ulimit -f`.'
      )
    if number in _DENIED and isinstance(cause, OSError) and cause.filename is not None:
      return (
        f'a file may not be written or read by this user ({said}). What is finished is kept: give '
        'yourself the permission (chmod u+rwX) and give the same command again.'
      )
    if number in _MISPLACED and isinstance(cause, OSError) and cause.filename is not None:
      return (
        f'a path is not what it should be ({said}). What is finished is kept: name another one, '
        'or move away what is there.'
      )
  return None


def explain(error: Exception, output: Path) -> str:
  """What a command tells of an error that the user can mend; raises any other error.

  Args:
    error: what ended the command.
    output: where it writes.
  """
  said = str(error) if isinstance(error, UserError) else failed(error, output)
  if said is None:
    raise error
  return said


def _rooms(workdir: Path) -> str:
  places = dict.fromkeys((workdir, Path(tempfile.gettempdir()), SHARED))
  return ', '.join(f'{x} {estimates.readable(free(x))}' for x in places if x.exists())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__
