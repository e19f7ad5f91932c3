"""Writes files whole or not at all, through no link; and opens no pipe in the place of a file."""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import secrets
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from pnoc_jax import errors

_LEFT = re.compile(r'\..+\.[0-9a-f]{16}\.tmp')


def write(
  path: str | os.PathLike, fill: Callable[[BinaryIO], Any], *, sync_folder: bool = True
) -> None:
  """Lets `fill` write to a temporary file beside `path`, syncs it and renames it to `path`.

  A run that is killed at any instant leaves the old file or the new one, never a part of one, and
  perhaps a hidden temporary file, which `sweep` removes. The temporary file's name cannot be
  guessed and is new: no link is followed, and no other process writes to it.

  Args:
    path: of the file; its folder is made.
    fill: receives the open file.
    sync_folder: whether the file is there for good when this returns, also after a power cut. Who
      writes many files calls `sync_folders` at their end.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(_temporary(path.name))
  number = open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
  try:
    with named(path), open(number, 'wb') as file:
      fill(file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
    if sync_folder:
      sync_folders([path])
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
  """Gives an error of the disk the name of the file: what an open file meets has none."""
  try:
    yield
  except OSError as error:
    if error.filename is None:
      error.filename = os.fspath(path)
    raise


def sync_folders(paths: Iterable[pathlib.Path]) -> None:
  """Makes names of files last that were written or renamed, also after a power cut.

  Args:
    paths: of the files; each of their folders is synced once.
  """
  for folder in {path.parent for path in paths}:
    try:
      number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
      continue  # It is gone, with its files.
    try:
      os.fsync(number)
    except OSError as error:
      if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems have no such thing.
        raise
    finally:
      os.close(number)


def _temporary(name: str, longest: int = 255) -> str:
  """A hidden name; of one that would have too many bytes for a file system stands a digest."""
  end = f'.{secrets.token_hex(8)}.tmp'
  data = os.fsencode(name)
  return f'.{name}{end}' if len(data) + len(end) < longest else f'.{_digest(data)}{end}'


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:32]


def open_own(path: str | os.PathLike, flags: int) -> int:
  """Opens a file to write to it: a file, and never what a link of that name leads to.

  Args:
    path: of the file.
    flags: as of `os.open`.

  Returns:
    The file's number, to be closed by the caller.

  Raises:
    UserError: a link, a pipe or a device has the name.
    OSError: the file cannot be opened.
  """
  try:
    # Without O_NONBLOCK the opening of a pipe would wait for its other end.
    number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
  except OSError as error:
    if os.path.islink(path):
      raise errors.UserError(
        f'{os.fspath(path)} is a link, and a run writes through none: remove it'
      ) from error
    if error.errno == errno.ENXIO:  # A pipe that nobody reads, or a socket.
      raise _no_file(path) from error
    raise
  if not stat.S_ISREG(os.fstat(number).st_mode):
    os.close(number)
    raise _no_file(path)
  return number


def _no_file(path: str | os.PathLike) -> errors.UserError:
  return errors.UserError(f'{os.fspath(path)} is no file that a run can write to: remove it')


def require_file(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a file that is to be read: the end of a pipe or a device may never come.

  Raises:
    FileNotFoundError: there is nothing at the path.
    OSError: a directory, a pipe, a socket or a device is there.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise OSError(errno.EINVAL, 'it is no file', os.fspath(path))
  return pathlib.Path(path)


def sweep(directory: str | os.PathLike, *, below: bool = True) -> None:
  """Removes the temporary files that killed runs left in a directory.

  Nobody else may write there meanwhile. Links to directories are not followed.

  Args:
    directory: where to look.
    below: whether to look in all directories below it, too.
  """
  for folder, folders, names in os.walk(directory):
    if not below:
      folders.clear()
    for name in filter(_LEFT.fullmatch, names):
      pathlib.Path(folder, name).unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(output: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a directory to fill, which gets its name when all is written: it is whole or not there.

  What is written is removed again where the work ends with an error, or by SIGTERM.

  Args:
    output: the directory's name; not there yet, or an empty directory, perhaps through a link.

  Raises:
    UserError: there is something at the name already, or no directory can be made there.
  """
  output = pathlib.Path(output)
  check_new(output)
  place = output.resolve()
  try:
    place.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix='.unfinished.', dir=place.parent))
  except OSError as error:
    said = f'{output} cannot be made ({error.strerror}): {error.filename}'
    raise errors.UserError(said) from error
  try:
    with _ended_by_signals():
      yield made
      made.chmod(0o777 & ~_umask())
      _rename_new(made, place, output)
  except BaseException:
    shutil.rmtree(made, ignore_errors=True)
    raise
  sync_folders([place])


def check_new(output: pathlib.Path) -> None:
  """Raises UserError unless a path is free for `new_directory`, or an empty directory."""
  if os.path.lexists(output) and (not output.is_dir() or any(output.iterdir())):
    raise errors.UserError(f'{output} is there already; name a new directory, or remove it')
  if output.is_dir() and output.samefile(os.curdir):
    raise errors.UserError(f'{output} is the directory that you are in; name a new one')


def _rename_new(made: pathlib.Path, place: pathlib.Path, output: pathlib.Path) -> None:
  try:
    made.rename(place)  # Over an empty directory, too.
  except OSError as error:
    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
      raise
    raise errors.UserError(f'{output} was made by somebody else meanwhile; name another') from error


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
  """Lets SIGTERM end the work as an error does, so that what was begun is removed."""

  def end(number: int, _: object) -> None:
    raise SystemExit(128 + number)

  ours = threading.current_thread() is threading.main_thread()
  if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
    yield  # Whoever called has a way of its own.
    return
  signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file in UTF-8."""
  write(path, lambda file: file.write(text.encode()))
