"""Directories that commands write to."""

import argparse
import pathlib
import re

from pnoc_jax.errors import UserError

_ADDRESS = re.compile(r'[a-z][a-z0-9+.-]*:/')


def local(text: str) -> pathlib.Path:
  """The path of a directory or file of this machine.

  Raises:
    UserError: the text is an address such as `gs://bucket/run`, of which a path would make a
      directory called `gs:`.
  """
  if _ADDRESS.match(text):
    raise UserError(
      f'{text} is an address, and this command works in directories: mount the bucket '
      '(gcsfuse, mountpoint-s3) or a shared disk, and give the path'
    )
  return pathlib.Path(text)


def written(text: str) -> pathlib.Path:
  """`local` as the type of an argument of argparse, which shows the message of its own error."""
  try:
    return local(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error
