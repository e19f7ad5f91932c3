"""The user's cache directory: holds what can be made again, and a run can do without it."""

import contextlib
import os
import pathlib
import shutil
import time
import warnings
from typing import NamedTuple

KEPT = {'xla': 'compiled programs', 'data': 'facts about data'}
"""What runs keep, by the name of its directory; weights that a person put there are not of it."""
LIMIT = 8 << 30
"""Bytes of each kind; what was used longest ago goes first."""
_FRESH = 24 * 3600  # Seconds: another run may work with what was used since then.


class Entry(NamedTuple):
  """One thing that is kept.

  Attributes:
    path: a compiled program's file, or a directory of arrays.
    size: in bytes.
    used: when it was last written or read, as far as the file system tells; seconds.
  """

  path: pathlib.Path
  size: int
  used: float


def directory(kind: str) -> pathlib.Path | None:
  """`<cache>/pnoc_jax/<kind>`; None for a user without a home who names no XDG_CACHE_HOME."""
  base = os.environ.get('XDG_CACHE_HOME')
  if base:
    return pathlib.Path(base) / 'pnoc_jax' / kind
  try:
    return pathlib.Path.home() / '.cache' / 'pnoc_jax' / kind
  except RuntimeError:  # Python's, for a uid without an account where HOME is not set.
    return None


def entries(kind: str) -> list[Entry]:
  """What is kept of a kind, that which was used longest ago first.

  Args:
    kind: a key of `KEPT`.
  """
  base = directory(kind)
  if base is None or not base.is_dir():
    return []
  # Facts about data lie in a directory each, by the kind of data.
  found = []
  for path in base.glob('*/*' if kind == 'data' else '*'):
    with contextlib.suppress(OSError):  # Another process may have removed it.
      inner = [path, *(path.rglob('*') if path.is_dir() and not path.is_symlink() else ())]
      stats = [x.lstat() for x in inner]
      used = max(max(x.st_mtime, x.st_atime * (len(stats) == 1)) for x in stats)
      found.append(Entry(path, sum(x.st_size for x in stats), used))
  return sorted(found, key=lambda x: x.used)


def trim(kind: str, *, limit: int = LIMIT, fresh: float = _FRESH) -> int:
  """Removes what was used longest ago until no more than the limit is kept.

  Args:
    kind: a key of `KEPT`.
    limit: in bytes.
    fresh: what was used in so many last seconds stays in any case.

  Returns:
    The bytes that were removed.
  """
  kept = entries(kind)
  size, removed, now = sum(x.size for x in kept), 0, time.time()
  for entry in kept:
    if size - removed <= limit or entry.used > now - fresh:
      break
    _remove(entry.path)
    removed += entry.size
  return removed


def empty(kind: str) -> int:
  """Removes all that is kept of a kind; returns the bytes."""
  return trim(kind, limit=-1, fresh=-1.0)


def _remove(path: pathlib.Path) -> None:
  """Removes a file or a directory; of a link the link alone."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      path.unlink()


def fault(path: pathlib.Path | None) -> str | None:
  """Why nothing can be kept in a directory, in words; makes nothing.

  Args:
    path: the directory, which may not be there yet; None for a user without a home.
  """
  if path is None:
    return 'this user has no home directory, so compiled programs and facts about data are not kept'
  there = next(x for x in (path, *path.absolute().parents) if x.exists())
  if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
    return None
  return f'{path.parent} cannot be written, so compiled programs and facts about data are not kept'


def warn(said: str) -> None:
  """Warns that a run goes on without the cache; the same words are said once."""
  warnings.warn(
    f'{said}, and are made again in each run; set XDG_CACHE_HOME to a directory that can be '
    'written',
    stacklevel=1,
  )
