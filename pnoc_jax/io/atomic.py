"""Writes files whole or not at all."""

import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO


def write(path: str | os.PathLike, fill: Callable[[BinaryIO], Any], *, writer: str = '') -> None:
  """Lets `fill` write to a temporary file beside `path`, syncs it and renames it to `path`.

  A run that is killed at any instant leaves the old file or the new one, never a part of one, and
  perhaps a hidden temporary file. The temporary file's name is fixed, so that the next run that
  makes the same file writes over it.

  Args:
    path: of the file; its folder is made.
    fill: receives the open file.
    writer: names this process where several may write the same file at once.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(_temporary(f'.{path.name}{writer}.tmp'))
  try:
    with open(temporary, 'wb') as file:
      fill(file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def _temporary(name: str, longest: int = 255) -> str:
  """The name, or one that stands for it where it has too many bytes for a file system."""
  data = os.fsencode(name)
  return name if len(data) <= longest else f'.{hashlib.sha256(data).hexdigest()[:32]}.tmp'


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file in UTF-8."""
  write(path, lambda file: file.write(text.encode()))
