"""Tells a disk that is full from other errors, and which one it is."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pnoc_jax.runs import estimates

SHARED = Path('/dev/shm')
"""Where the processes that load data hand over their batches."""
_NUMBERS = errno.ENOSPC, errno.EDQUOT
# Libraries in other languages pass on the words alone. -7: SIGBUS, which a worker receives where
# the shared memory ends.
_WORDS = 'No space left on device', 'Disk quota exceeded', 'exit code -7', 'exitcode -7'


def full(error: BaseException, workdir: Path) -> str | None:
  """What to tell about an error that a full disk caused; None for any other error.

  Args:
    error: what ended the run.
    workdir: the run's directory.
  """
  cause = next((x for x in _chain(error) if _is_full(x)), None)
  if cause is None:
    return None
  places = dict.fromkeys((workdir, Path(tempfile.gettempdir()), SHARED))
  free = ', '.join(
    f'{place} {estimates.readable(shutil.disk_usage(place).free)}'
    for place in places
    if place.exists()
  )
  return (
    f'there is no room for a file ({" ".join(str(cause).split())[:200]}). Free are now: {free}. '
    'What is finished is kept: make room and give the same command again; where '
    f'{SHARED} is full, enlarge it (docker run --shm-size=8g) or lower config.runtime.workers.'
  )


def _is_full(error: BaseException) -> bool:
  known = isinstance(error, OSError) and error.errno in _NUMBERS
  return known or any(words in str(error) for words in _WORDS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__
