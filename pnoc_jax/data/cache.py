"""What is slow to find out about a data set, kept as arrays in the user's cache directory."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable

import numpy as np

from pnoc_jax import errors


def arrays(
  kind: str,
  files: Iterable[pathlib.Path],
  what: object,
  make: Callable[[], dict[str, np.ndarray]],
) -> pathlib.Path:
  """A directory of `<name>.npy`, made anew if the files or what is asked of them have changed.

  Args:
    kind: of the arrays; names a directory.
    files: that they are made from: known by name, size and time of change.
    what: else they depend on; its `repr` counts.
    make: makes them.

  Raises:
    UserError: a file is not there, or the directory cannot be written.
  """
  sha = hashlib.sha256(repr(what).encode())
  for path in files:
    sha.update(state(path))
  place = _directory() / kind / sha.hexdigest()[:24]
  if not place.is_dir():
    made = make()
    try:
      _write(place, made)
    except OSError as error:
      raise errors.UserError(
        f'What was found out about the data set cannot be kept in {place.parent} '
        f'({error.strerror}): set XDG_CACHE_HOME to a directory that can be written.'
      ) from error
  return place


def state(path: pathlib.Path) -> bytes:
  """What changes when a file does: its name, size and time of change.

  Raises:
    UserError: there is no such file, e.g. at the end of a link.
  """
  try:
    stat = path.stat()
  except OSError as error:
    raise errors.UserError(f'{path}: there is no such file ({error.strerror}).') from error
  return repr((str(path.absolute()), stat.st_size, stat.st_mtime_ns)).encode()


def _directory():
  base = os.environ.get('XDG_CACHE_HOME') or str(pathlib.Path.home() / '.cache')
  return pathlib.Path(base) / 'pnoc_jax' / 'data'


def _write(place, made):
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
