"""What is slow to find out about a data set, kept as arrays in the user's cache directory."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from pnoc_jax import errors
from pnoc_jax.io import user_cache

Seen = dict[pathlib.Path, tuple[int, int]]
"""Sizes and times of files, so that one start of a run asks for each of them once."""
_FULL = '{} takes no more files, so facts about data are not kept'


class Arrays:
  """Arrays by name; those in a directory are mapped when they are asked for, and not pickled."""

  def __init__(self, directory: pathlib.Path | None, opened: Mapping[str, np.ndarray]):
    """Keeps a directory of `<name>.npy`, if there is one, and the arrays that are open already."""
    self._directory, self._opened = directory, dict(opened)

  def __getstate__(self) -> dict[str, object]:
    opened = {} if self._directory else self._opened
    return {'_directory': self._directory, '_opened': opened}

  def __getitem__(self, name: str) -> np.ndarray:
    if name not in self._opened and self._directory:
      path = self._directory / f'{name}.npy'
      try:
        self._opened[name] = np.load(path, mmap_mode='r', allow_pickle=False)
      # numpy has ValueError, EOFError, SyntaxError and more for broken files.
      except Exception as error:
        raise errors.UserError(
          f'{path} is damaged ({type(error).__name__}: {error}). It holds what was found out about '
          f'data: remove {self._directory}, and it is made anew.'
        ) from error
    return self._opened[name]


def arrays(
  kind: str,
  files: Iterable[pathlib.Path],
  what: object,
  make: Callable[[], dict[str, np.ndarray]],
) -> Arrays:
  """Arrays from the cache, made anew if the files or what is asked of them have changed.

  Where the directory cannot be written, a warning says so, and each call makes them.

  Args:
    kind: of the arrays; names a directory.
    files: the files that they are made from, known by name, size and time of change.
    what: what else they depend on; its `repr` counts.
    make: makes them.

  Raises:
    UserError: a file is not there.
  """
  sha = hashlib.sha256(repr(what).encode())
  for path in files:
    sha.update(state(path))
  base = user_cache.directory('data')
  if base is None:
    user_cache.warn(user_cache.fault(base) or '')
    return Arrays(None, make())
  place = base / kind / sha.hexdigest()[:24]
  if not place.is_dir():
    made = make()
    try:
      _write(place, made)
    except OSError:
      user_cache.warn(user_cache.fault(base) or _FULL.format(base))
      return Arrays(None, made)
  with contextlib.suppress(OSError):
    os.utime(place)  # What is used stays longest.
  return Arrays(place, {})


def state(path: pathlib.Path, seen: Seen | None = None) -> bytes:
  """What changes when a file does: its name, size and time of change.

  Args:
    path: of the file.
    seen: as of `size_and_time`.

  Raises:
    UserError: there is no such file, e.g. at the end of a link.
  """
  return repr((str(path.absolute()), *size_and_time(path, seen))).encode()


def size_and_time(path: pathlib.Path, seen: Seen | None = None) -> tuple[int, int]:
  """A file's size, and its time of change in ns.

  Args:
    path: of the file.
    seen: what is known of files already; what is found is kept there.

  Raises:
    UserError: there is no such file, e.g. at the end of a link.
  """
  if seen is not None and path in seen:
    return seen[path]
  try:
    stat = path.stat()
  except OSError as error:
    raise errors.UserError(f'{path}: there is no such file ({error.strerror}).') from error
  found = stat.st_size, stat.st_mtime_ns
  if seen is not None:
    seen[path] = found
  return found


def _write(place: pathlib.Path, made: Mapping[str, np.ndarray]) -> None:
  place.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(dir=place.parent, prefix=f'.{place.name}.'))
  try:
    for name, array in made.items():
      np.save(temporary / f'{name}.npy', array, allow_pickle=False)
    os.chmod(temporary, 0o755)
    os.rename(temporary, place)
  except OSError:
    # Another process may have been quicker: then its arrays are there.
    if not place.is_dir():
      raise
  finally:
    with contextlib.suppress(OSError):
      shutil.rmtree(temporary)
