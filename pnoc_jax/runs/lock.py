"""Keeps a second run out of a run's directory."""

import contextlib
import fcntl
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic

_FILE = '.lock'


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
  """Locks the directory; the lock goes with the process, even when killed.

  Where the file system knows no locks, a warning says so and the run goes on.

  Raises:
    UserError: another run is at work there, the directory cannot be written, or its lock is a link.
  """
  try:
    number = atomic.open_own(workdir / _FILE, os.O_WRONLY | os.O_CREAT)
  except OSError as error:
    raise UserError(f'{workdir} cannot be written: {error.strerror}') from error
  try:
    try:
      fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(f'another run is at work in {workdir}') from error
    except OSError as error:
      warnings.warn(_unknown(workdir, error), stacklevel=1)
    yield
  finally:
    os.close(number)


def trouble(workdir: Path) -> str | None:
  """What speaks against a run in a directory that is there, in words; changes nothing."""
  if (workdir / _FILE).is_symlink():
    return f'{workdir / _FILE} is a link, and a run writes through none: remove it'
  place = workdir / _FILE if (workdir / _FILE).is_file() else workdir
  number = os.open(place, os.O_RDONLY)
  try:
    fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return f'another run is at work in {workdir}'
  except OSError as error:
    return _unknown(workdir, error)
  finally:
    os.close(number)
  return None


def _unknown(workdir: Path, error: OSError) -> str:
  return (
    f'the file system of {workdir} knows no locks ({error.strerror}): see to it that no second run '
    'works in this directory'
  )
