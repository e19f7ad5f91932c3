"""Writes archives that have the same bytes for the same files."""

import gzip
import os
import pathlib
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

from pnoc_jax.io import atomic


def write_tar_gz(path: str | os.PathLike, members: Iterable[tuple[str, pathlib.Path]]) -> None:
  """Writes a `.tar.gz`, whole or not at all, without this machine's users, dates and rights.

  Args:
    path: of the archive.
    members: (name in the archive, file).
  """

  def write(stream: BinaryIO) -> None:
    with (
      gzip.GzipFile(filename='', mode='wb', fileobj=stream, mtime=0) as packed,
      tarfile.open(fileobj=packed, mode='w', format=tarfile.USTAR_FORMAT) as archive,
    ):
      for name, file in sorted(members):
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = file.stat().st_size, 0o644
        with open(file, 'rb') as content:
          archive.addfile(entry, content)

  atomic.write(path, write)
