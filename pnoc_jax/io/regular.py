"""Tells files from what only has a file's name: reading a pipe or a device may never end."""

import errno
import os
import pathlib
import stat


def require(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a file, to be opened.

  Raises:
    FileNotFoundError: there is nothing at the path.
    OSError: a directory, a pipe, a socket or a device is there.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise OSError(errno.EINVAL, 'it is no file', os.fspath(path))
  return pathlib.Path(path)
