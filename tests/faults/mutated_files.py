"""Changes files at random and reads them: each is read, or refused by name; nothing else happens.

    python tests/faults/mutated_files.py --count=1000 --seed=0

Prints what was found. Each read has 20 seconds, and memory for what its file can hold.
"""

import argparse
import collections
import contextlib
import io
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from faults import mutants  # noqa: E402

SECONDS = 20
MEMORY = 400  # MiB that one read may take: 33 million pixels, which no file is asked about.


def check(root: pathlib.Path, count: int, seed: int) -> tuple[collections.Counter, list[str]]:
  """Reads `count` changed files of all kinds in turn.

  Args:
    root: an empty directory to work in; what is kept of data goes to XDG_CACHE_HOME.
    count: of files.
    seed: of the changes.

  Returns:
    How many were read and refused by kind, and what else happened, in words.
  """
  counts, faults = collections.Counter(), []
  kinds = mutants.kinds(root)
  for kind in kinds:
    kind.read()
  for number in range(count):
    kind = kinds[number % len(kinds)]
    sound = kind.path.read_bytes()
    changed = mutants.mutate(sound, kind, random.Random(f'{seed} {number}'))
    kind.path.write_bytes(changed)
    try:
      counts[kind.name, _read(kind)] += 1
    except _Fault as error:
      counts[kind.name, 'FAULT'] += 1
      faults.append(f'{kind.name}, seed {seed}, number {number}: {error}')
    finally:
      kind.path.write_bytes(sound)
  return counts, faults


class _Fault(Exception):
  """Something else than reading a file or refusing it."""


def _read(kind: mutants.Kind) -> str:
  """`read` or `refused`."""
  before, start = _reset_peak(), time.monotonic()
  try:
    with _limited(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
      warnings.simplefilter('ignore')
      kind.read()
    outcome = 'read'
  except Exception as error:
    if not mutants.is_told(error, kind):
      where = traceback.extract_tb(error.__traceback__)[-1]
      raise _Fault(
        f'{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})'
      ) from error
    outcome = 'refused'
  grown, seconds = (_status('VmHWM') - before) / 1024, time.monotonic() - start
  if grown > MEMORY:
    raise _Fault(f'it took {grown:.0f} MiB')
  if seconds > SECONDS / 2:
    raise _Fault(f'it took {seconds:.0f} s')
  return outcome


@contextlib.contextmanager
def _limited() -> Iterator[None]:
  def stop(*_: object) -> None:
    raise TimeoutError(f'more than {SECONDS} s')

  before = signal.signal(signal.SIGALRM, stop)
  signal.alarm(SECONDS)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _reset_peak() -> int:
  """KiB of memory in use, which the peak begins at anew."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  return _status('VmRSS')


def _status(field: str) -> int:
  """KiB of a field of the process's status."""
  text = pathlib.Path('/proc/self/status').read_text()
  return next(int(x.split()[1]) for x in text.splitlines() if x.startswith(field))


def main() -> int:
  """Reads the arguments, checks, and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=1000)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as root:
    os.environ['XDG_CACHE_HOME'] = f'{root}/cache'
    counts, faults = check(pathlib.Path(root), arguments.count, arguments.seed)
  for name in dict.fromkeys(name for name, _ in counts):
    read, refused = counts[name, 'read'], counts[name, 'refused']
    print(f'{name:20} {read:5} read {refused:5} refused {counts[name, "FAULT"]:5} faults')
  print('\n'.join(faults))
  print(f'{arguments.count} files, {len(faults)} faults')
  return 1 if faults else 0


if __name__ == '__main__':
  sys.exit(main())
