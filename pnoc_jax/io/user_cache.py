"""The user's cache directory: holds what can be made again, and a run can do without it."""

import os
import pathlib
import warnings


def directory(kind: str) -> pathlib.Path | None:
  """`<cache>/pnoc_jax/<kind>`; None for a user without a home who names no XDG_CACHE_HOME."""
  base = os.environ.get('XDG_CACHE_HOME')
  if base:
    return pathlib.Path(base) / 'pnoc_jax' / kind
  try:
    return pathlib.Path.home() / '.cache' / 'pnoc_jax' / kind
  except RuntimeError:  # Python's, for a uid without an account where HOME is not set.
    return None


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
