"""Keeps others out of a directory that somebody works in, and says who that is.

A lock of the system goes with its process, even when that is killed. Where the file system has
none, a file stands for it, whose time is renewed as long as the process lives.
"""

import _thread
import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records

_FILE = '.lock'
_HELD = '.lock.held'  # Stands for a lock where there are none.
_READER = '.reader'
_LONGEST = 1 << 12  # Bytes of a mark.
_RENEWED, _STALE = 20.0, 120.0  # Seconds between renewals, and without one.


@dataclasses.dataclass(frozen=True)
class Holder:
  """A process that works in a directory.

  Attributes:
    host: its machine.
    pid: its number there.
    since: when it began, for people.
    space: where the number means something: one start of the machine, and one container there;
      empty where the system does not tell.
  """

  host: str
  pid: int
  since: str
  space: str = ''

  def __str__(self) -> str:
    return f'process {self.pid} on {self.host}, since {self.since}'


def _me() -> Holder:
  now = datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M:%S %Z')
  return Holder(socket.gethostname(), os.getpid(), now, _space())


def _space() -> str:
  with contextlib.suppress(OSError):
    boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  return ''


@contextlib.contextmanager
def hold(directory: Path, what: str = 'run') -> Iterator[None]:
  """Locks a directory that is there; where nothing else was written there, no lock is left.

  Args:
    directory: where this process will write.
    what: it is, for the message to another one: `another run is at work in ...`.

  Raises:
    UserError: another process is at work there, the directory cannot be written, or its lock is a
      link.
  """
  with contextlib.ExitStack() as stack:
    try:
      number = atomic.open_own(directory / _FILE, os.O_RDWR | os.O_CREAT)
    except OSError as error:
      raise UserError(f'{directory} cannot be written: {error.strerror}') from error
    stack.callback(os.close, number)
    # The lock's file may be older than the directory's permissions.
    if not os.access(directory, os.W_OK | os.X_OK):
      raise UserError(f'{directory} cannot be written: {os.strerror(errno.EACCES)}')
    if os.fstat(number).st_nlink > 1:
      raise UserError(
        f'{directory / _FILE} is a file that has another name, too, and is written to: remove it'
      )
    try:
      fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(_busy(directory, what, _parse(_content(number)))) from error
    except OSError:
      stack.enter_context(_hold_by_file(directory, what))
    else:
      if os.fstat(number).st_nlink == 0:  # Its holder removed it since it was opened.
        raise UserError(_busy(directory, what, None))
      os.ftruncate(number, 0)
      os.pwrite(number, json.dumps(records.plain(_me())).encode(), 0)
      os.fsync(number)  # Other machines shall read it.
    try:
      yield
    finally:
      # Nothing was begun, or a later start would take the directory for a run's.
      with contextlib.suppress(OSError):
        if os.listdir(directory) == [_FILE]:
          (directory / _FILE).unlink()


def mark(directory: Path) -> str:
  """What the holder of a directory left there: other processes of a run tell by it where it is."""
  for name in (_HELD, _FILE):
    with contextlib.suppress(OSError):
      return _text(directory / name)
  return ''


def _text(path: Path) -> str:
  """The beginning of a mark, which is all of it."""
  with open(atomic.require_file(path), 'rb') as file:
    return file.read(_LONGEST).decode(errors='replace')


@contextlib.contextmanager
def _hold_by_file(directory: Path, what: str) -> Iterator[None]:
  path = directory / _HELD
  _remove_stale(path)
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(_mark(path, directory))
    except FileExistsError as error:
      raise UserError(_busy_by_file(directory, what)) from error
    yield


def _remove_stale(path: Path) -> None:
  """Removes the mark of a process that is gone; of several that see it so, one removes it."""
  aside = path.with_name(f'{path.name}.{secrets.token_hex(8)}')
  with contextlib.suppress(FileNotFoundError):
    seen = path.stat()
    if not _is_stale(path):
      return
    path.rename(aside)
    taken = aside.stat()
    if (taken.st_ino, taken.st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns):
      aside.unlink()
    elif not path.exists():  # Another one has removed it meanwhile: this is its own mark.
      aside.rename(path)


@contextlib.contextmanager
def _mark(path: Path, held: Path | None = None) -> Iterator[None]:
  """A file that says that this process is here, and is renewed until it leaves.

  Args:
    path: of the file.
    held: the directory that it keeps others out of: a run that loses the mark is told to stop.
  """
  number = os.open(path, os.O_WRONLY | os.O_EXCL | os.O_CREAT | os.O_NOFOLLOW, 0o666)
  made, ended = os.fstat(number).st_ino, threading.Event()

  def ours() -> bool:
    try:
      return path.stat().st_ino == made
    except OSError as error:
      return not isinstance(error, FileNotFoundError)  # The disk may not answer now.

  def renew() -> None:
    while not ended.wait(_RENEWED):
      if ours():
        with contextlib.suppress(OSError):
          os.utime(path)
      elif held is not None:
        text = f'{held} was taken over by another process, as this one had shown no sign for long'
        print(f'error: {text}; this one stops', file=sys.stderr, flush=True)
        _thread.interrupt_main(signal.SIGTERM)  # For a run's own handler; without one nothing.
        return

  thread = threading.Thread(target=renew, daemon=True)
  try:
    with os.fdopen(number, 'w', encoding='utf-8') as file:
      json.dump(records.plain(_me()), file)
    thread.start()
    yield
  finally:
    ended.set()
    if thread.ident is not None:
      thread.join()
    if ours():
      path.unlink(missing_ok=True)


def _is_stale(path: Path, *, watch: bool = True) -> bool:
  """Whether the process of a mark is gone.

  Args:
    path: of the mark.
    watch: whether to wait, where only its time speaks against it, if it is renewed.
  """
  found = _holder(path)
  if found is not None and _is_near(found) and found.pid != os.getpid():
    try:
      os.kill(found.pid, 0)
    except ProcessLookupError:
      return True
    except PermissionError:
      pass  # It is another user's.
    return False
  # Times are compared as the file system tells them: clocks of machines differ.
  now = path.with_name(f'{path.name}.{secrets.token_hex(8)}')
  try:
    os.close(atomic.open_own(now, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    age = now.stat().st_mtime - path.stat().st_mtime
  except OSError:
    return False
  finally:
    with contextlib.suppress(OSError):
      now.unlink()
  return not 0 <= age <= _STALE and not (watch and _is_renewed(path))


def _is_near(holder: Holder) -> bool:
  """Whether its number is that of a process here."""
  return holder.host == socket.gethostname() and holder.space in ('', _space())


def _is_renewed(path: Path) -> bool:
  """Watches a mark for two renewals: a clock that was set makes one look old, or of the future."""
  try:
    before = path.stat().st_mtime_ns
    for _ in range(20):
      time.sleep(_RENEWED / 10)
      if path.stat().st_mtime_ns != before:
        return True
  except OSError:
    pass
  return False


def _holder(path: Path) -> Holder | None:
  try:
    return _parse(_text(path))
  except OSError:
    return None


def _content(number: int) -> str:
  return os.pread(number, _LONGEST, 0).decode(errors='replace')


def _parse(text: str) -> Holder | None:
  try:
    found = records.parse_json(text)
    holder = Holder(
      str(found['host']), int(found['pid']), str(found['since']), str(found.get('space', ''))
    )
    return holder if 0 < holder.pid < 1 << 31 else None
  except (ValueError, KeyError, TypeError, OverflowError):
    return None


def _busy(directory: Path, what: str, holder: Holder | None) -> str:
  who = f' ({holder})' if holder else ''
  return f'another {what} is at work in {directory}{who}'


def _busy_by_file(directory: Path, what: str) -> str:
  path = directory / _HELD
  return f'{_busy(directory, what, _holder(path))}; if it has ended, remove {path}'


def trouble(workdir: Path) -> str | None:
  """What speaks against a run in a directory that is there, in words; changes nothing."""
  held = workdir / _HELD
  if (workdir / _FILE).is_symlink():
    return f'{workdir / _FILE} is a link, and a run writes through none: remove it'
  if held.is_file() and not _is_stale(held):
    return _busy_by_file(workdir, 'run')
  there = (workdir / _FILE).is_file()
  try:
    number = os.open(workdir / _FILE if there else workdir, os.O_RDONLY)
  except OSError as error:
    return f'{workdir} cannot be read: {error.strerror}'
  try:
    fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return _busy(workdir, 'run', _parse(_content(number)) if there else None)
  except OSError:
    return None  # A file stands for the lock.
  finally:
    os.close(number)
  return None


@contextlib.contextmanager
def read(directories: Iterable[Path]) -> Iterator[None]:
  """Sees to it that finished stages of other runs stay where they are while they are read.

  Args:
    directories: of the stages; those of others, where nothing can be written, are locked as well.

  Raises:
    UserError: one of them is just being made again.
  """
  with contextlib.ExitStack() as stack:
    for directory in directories:
      try:
        number = os.open(directory / records.DONE, os.O_RDONLY)
      except OSError:
        continue  # The stage that reads it says so.
      stack.callback(os.close, number)
      try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
      except BlockingIOError as error:
        raise UserError(f'{directory} is just being made again: wait for that run') from error
      except OSError:
        pass  # The mark stands for the lock.
      with contextlib.suppress(OSError):
        me = _me()
        stack.enter_context(_mark(directory / f'{_READER}.{me.host}.{me.pid}'))
    yield


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
  """Sees to it that nobody reads a finished stage while it is moved away.

  Raises:
    UserError: another run reads it; nothing was changed.
  """
  with contextlib.ExitStack() as stack:
    marks = list(directory.glob(f'{_READER}.*'))
    locked = False
    with contextlib.suppress(FileNotFoundError):
      number = _open_to_lock(directory / records.DONE)
      stack.callback(os.close, number)
      try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        locked = True
      except OSError:
        locked = not all(map(_is_stale, marks))
    if locked:
      readers = [x for x in marks if not _is_stale(x, watch=False)]
      names = ', '.join(str(x) for x in map(_holder, readers) if x) or 'it is not known which'
      raise UserError(
        f'{directory} is being read by another run ({names}), so it cannot be made again now: wait '
        'for that run, or take another --workdir'
      )
    yield


def _open_to_lock(path: Path) -> int:
  """Opens a file: to write, as locks on network disks ask for, or to read where that is all."""
  try:
    return os.open(path, os.O_RDWR)
  except PermissionError:
    return os.open(path, os.O_RDONLY)
