"""Which files of a folder a command wrote itself, so that it replaces no others."""

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records

RECORD = 'written.jsonl'


class Written:
  """The record of a folder: a line for each file that was written there, and what it is made of.

  A file that was changed afterwards, e.g. by a person who mends a label map, is no longer one that
  the command wrote.
  """

  def __init__(self, folder: Path):
    """Reads the record of the folder, if it has one.

    Raises:
      UserError: the folder has a file of the record's name that is no record.
    """
    self._folder, self._path = folder, folder / RECORD
    self._known: dict[str, dict[str, str]] = {}
    found = records.read_jsonl(self._path)
    self._count = len(found)
    for line in found:
      fits = line.keys() == {'file', 'made_of', 'sha256'}
      if not fits or not all(isinstance(x, str) for x in line.values()):
        raise UserError(
          f'{self._path} is not the record of label maps: name another directory for the output'
        )
      self._known[line['file']] = line
    self._lines: records.JsonLines | None = None
    self._work = contextlib.ExitStack()
    self._noting = threading.Lock()  # Several threads write.

  def __enter__(self) -> 'Written':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._work.close()

  def made_of(self, path: Path) -> str | None:
    """What the file at a path was made of when it was last written; None if it was not."""
    line = self._known.get(self._name(path))
    return None if line is None else line['made_of']

  def check(self, wanted: Mapping[Path, str], whole: Iterable[Path]) -> None:
    """Refuses to replace what the command did not write.

    Args:
      wanted: {path of a file that will be there: what it is made of}.
      whole: those of the files that are there and sound; damaged ones may be replaced if they were
        written by the command.

    Raises:
      UserError: it names some of the files that would be lost.
    """
    sound = set(whole)
    foreign = [path for path, made_of in wanted.items() if self._foreign(path, made_of, sound)]
    if foreign:
      named = ', '.join(str(path) for path in foreign[:3])
      more = f' and {len(foreign) - 3} more' if len(foreign) > 3 else ''
      raise UserError(
        f'{self._folder} has files that this command did not write, or that were changed since, '
        f'and it would replace them: {named}{more}. Name another directory for the output, or '
        'move these files away'
      )

  def _foreign(self, path: Path, made_of: str, sound: set[Path]) -> bool:
    if not os.path.lexists(path):
      return False
    line = self._known.get(self._name(path))
    if line is None or not path.is_file():
      return True
    replaced = path in sound and line['made_of'] != made_of
    return replaced and hashlib.sha256(path.read_bytes()).hexdigest() != line['sha256']

  def write(self, path: Path, data: bytes, made_of: str) -> None:
    """Writes a file and notes it; the note comes first, so that no file is without one.

    Raises:
      UserError: another command writes to the folder.
    """
    line = {
      'file': self._name(path),
      'made_of': made_of,
      'sha256': hashlib.sha256(data).hexdigest(),
    }
    with self._noting:
      if self._lines is None:
        self._lines = self._begin()
      if self._known.get(line['file']) != line:
        path.unlink(missing_ok=True)  # A run that dies here must not find the old file as the new.
        self._lines.write(line)
        self._known[line['file']] = line
    atomic.write(path, lambda file: file.write(data))

  def _begin(self) -> records.JsonLines:
    """Opens the record, which two commands must not do at once: their files would be mixed."""
    self._folder.mkdir(parents=True, exist_ok=True)
    locked = self._lock()
    if len(records.read_jsonl(self._path)) != self._count:
      raise UserError(self._busy())
    lines = self._work.enter_context(records.JsonLines(self._path))
    if not os.path.samestat(os.fstat(locked), os.stat(self._path)):
      self._lock()  # A torn line was removed, by which the record is another file.
    return lines

  def _lock(self) -> int:
    number = atomic.open_own(self._path, os.O_RDWR | os.O_CREAT)
    self._work.callback(os.close, number)
    try:
      fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(self._busy()) from error
    except OSError:
      pass  # There are no locks on this disk.
    return number

  def _busy(self) -> str:
    return (
      f'another command writes to {self._folder}, or has just done so: wait for it and give the '
      'same command again, or name another directory'
    )

  def remove(self, path: Path) -> None:
    """Removes a file that the command wrote; leaves any other."""
    if self._name(path) in self._known:
      path.unlink(missing_ok=True)

  def _name(self, path: Path) -> str:
    return os.fsencode(path.relative_to(self._folder)).decode(errors='backslashreplace')


def check_apart(read: Path, files: Iterable[Path], output: Path) -> None:
  """Refuses an output that lies in what is read, or the other way round, also through links.

  Args:
    read: the file or directory that was named as the input.
    files: the files that were found there.
    output: the directory to write, which need not be there.

  Raises:
    UserError: they overlap.
  """
  advice = 'name a directory apart from the input, so that nothing of it can be replaced'
  if _within(output, read):
    raise UserError(f'the output {output} lies in the input {read}: {advice}')
  if _within(read, output):
    raise UserError(f'the input {read} lies in the output {output}: {advice}')
  folders = {}
  for file in files:
    for place in {file.parent, file.resolve().parent}:
      folders.setdefault(place, file)
  for place, file in folders.items():
    if _within(place, output):
      raise UserError(f'the image {file} lies in the output {output} through a link: {advice}')


def check_beside(files: Iterable[Path], output: Path, option: str) -> None:
  """Refuses an output that lies in a folder of a data set's files, or that holds one.

  Args:
    files: the data set's.
    output: the directory to write, which need not be there.
    option: that named it, for the message.

  Raises:
    UserError: they overlap, perhaps through links.
  """
  # Names, and not paths: there may be hundreds of thousands of files.
  names = {os.path.dirname(name): name for name in map(os.fspath, files)}
  for folder, file in ((Path(folder), name) for folder, name in names.items()):
    if _within(output, folder) or _within(folder, output):
      raise UserError(
        f'{option} is {output}, and {file} of the data set lies below it or beside it: name a '
        'directory apart from the data set, so that nothing of it can be replaced'
      )


def check_folders(folders: Iterable[Path], read: Iterable[Path]) -> None:
  """Refuses folders of the output that are links to folders of the input.

  Raises:
    UserError: one of them is.
  """
  places = {file.resolve().parent for file in read}
  for folder in sorted(set(folders)):
    if folder.resolve() in places:
      raise UserError(
        f'{folder} is, through a link, a directory of the input: name another directory for the '
        'output'
      )


def _within(inner: Path, outer: Path) -> bool:
  """Whether a path is another one or lies in it; links and other names of a folder are followed."""
  if not outer.exists():
    return inner.resolve().is_relative_to(outer.resolve())
  inner = inner.resolve()
  return any(place.exists() and place.samefile(outer) for place in (inner, *inner.parents))
