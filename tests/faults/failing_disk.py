"""Lets the disk fail under each writer of a run: one line says so, and the same command goes on.

    python tests/faults/failing_disk.py --config=tests/configs/tiny.py

A launch meets one error: a full disk (ENOSPC) in the middle of a file, or a broken one (EIO) as the
file is synced, in turn, at the first file of each kind: images, archives, records, logs, weights;
checkpoints, which a library writes, as they are begun. At last, files may have no more than a few
bytes (EFBIG), which the system itself enforces against every writer.
"""

import argparse
import errno
import functools
import itertools
import os
import pathlib
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from faults import launches  # noqa: E402

CODES = errno.ENOSPC, errno.EIO
SMALL = 2048
"""Bytes of the longest file while the system enforces a limit."""
_TOLERATED = 'files.json'
"""A note beside a checkpoint: a run that cannot write it goes on."""


def check(flags: list[str], root: pathlib.Path, among: Collection[int] | None = None) -> list[str]:
  """Runs to the end through one error after another.

  Args:
    flags: of the launcher, without `--workdir`.
    root: an empty directory.
    among: numbers of the errors, from 0, that are met; all by default.

  Returns:
    What is wrong, in words.
  """
  whole, failing, faults = root / 'whole', root / 'failing', []
  launch = launches.start([*flags, f'--workdir={whole}'], root / 'whole.log')
  for _ in launch.events():
    pass
  if any(launch.end(60.0).values()):
    return [f'the undisturbed run failed, see {root / "whole.log"}']
  struck: list[str] = []
  for number in itertools.count():
    log = root / f'failing.{number}.log'

    fault = functools.partial(_break, failing, tuple(struck), among)
    launch = launches.start([*flags, f'--workdir={failing}'], log, fault=fault)
    told = [x.removeprefix('strikes ') for x in launch.events() if x.startswith('strikes ')]
    code = launch.end(60.0)[launch.pids[0]]
    struck += told
    if not told or told[-1].endswith(' skipped'):
      break
    text = log.read_text(encoding='utf-8', errors='replace')
    last = (text.strip().splitlines() or [''])[-1]
    print(f'{told[-1]}: exit {code}: {last[:160]}', flush=True)
    # The system's limit holds for what the launch prints, too.
    cut = told[-1].startswith('EFBIG')
    if code not in (1, 2) or not (cut or ('Traceback' not in text and last.startswith('error: '))):
      faults.append(f'{told[-1]}: exit {code}, see {log}')
  met = sum(not x.endswith(' skipped') for x in struck)
  print(f'{met} errors were met')
  if met < (1 if among is None else len(among)):
    faults.append(f'{met} errors were met')
  if code:
    faults.append(f'the last launch ended with {code}, see {log}')
  expected, found = launches.lasting(whole), launches.lasting(failing)
  return faults + [f'{path} differs' for path in launches.differences(found, expected)]


def _break(
  workdir: pathlib.Path, struck: Sequence[str], among: Collection[int] | None, tell: launches.Hear
) -> launches.Hear:
  """Lets the next kind of writer fail in this process, once."""
  from pnoc_jax.io import atomic, checkpoints, records

  seen, met = {x.removesuffix(' skipped') for x in struck}, []

  def fails(path: Any, what: str) -> bool:
    """Whether this is the first time of the kind of file, and its turn."""
    if met or not str(path).startswith(f'{workdir}{os.sep}') or str(path).endswith(_TOLERATED):
      return False
    name = f'{what} of {launches.kind(f"file {path}", workdir)}'
    if name in seen:
      return False
    number = len(seen)
    if among is not None and number not in among:
      tell(f'strikes {name} skipped')
      seen.add(name)
      return False
    tell(f'strikes {name}')
    met.append(name)
    return True

  def error(code: int, path: Any) -> OSError:
    return OSError(code, os.strerror(code), os.fspath(path))

  write, line, save, fsync = (
    atomic.write,
    records.JsonLines.write,
    checkpoints.Checkpoints.save,
    os.fsync,
  )

  def failing_write(path: Any, fill: Callable[[Any], Any], **options: Any) -> None:
    if fails(path, 'ENOSPC in the middle'):

      def full(file: Any) -> None:
        file.write(b'half')
        raise error(errno.ENOSPC, path)

      write(path, full, **options)
    if fails(path, 'EIO at the sync'):

      def broken(number: int) -> None:
        raise error(errno.EIO, path)

      os.fsync = broken
      try:
        write(path, fill, **options)
      finally:
        os.fsync = fsync
    write(path, fill, **options)

  def failing_line(self: Any, value: Any) -> None:
    for code in CODES:
      if fails(self._path, f'{errno.errorcode[code]} in a line'):
        raise error(code, self._path)
    line(self, value)

  def failing_save(self: Any, step: int, *rest: Any) -> None:
    for code in CODES:
      if fails(self._directory / 'step', f'{errno.errorcode[code]} at the beginning'):
        raise error(code, self._directory)
    if fails(self._directory / 'step', 'EFBIG, by the system,'):
      signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
      resource.setrlimit(
        resource.RLIMIT_FSIZE, (SMALL, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
      )
    save(self, step, *rest)

  atomic.write, records.JsonLines.write = failing_write, failing_line
  checkpoints.Checkpoints.save = failing_save
  return lambda event: None


def main() -> int:
  """Reads the arguments and lets the disk fail."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', default='tests/configs/tiny.py')
  parser.add_argument(
    '--among', help='numbers of the errors that are met, as 0,3,7; all by default'
  )
  parser.add_argument('--root', help='a new directory to work in; by default one that is removed')
  arguments, more = parser.parse_known_args()
  from pnoc_jax.runs import runner  # noqa: F401

  among = None if arguments.among is None else [int(x) for x in arguments.among.split(',')]
  with tempfile.TemporaryDirectory() as kept:
    root = launches.new_directory(arguments.root or kept)
    faults = check([f'--config={arguments.config}', *more], root, among)
  print('\n'.join(faults))
  print(f'{len(faults)} faults')
  return 1 if faults else 0


if __name__ == '__main__':
  sys.exit(main())
