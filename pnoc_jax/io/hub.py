"""Downloads pretrained weights by name, `hub:timm/resnest269e.in1k`, once, and checks them.

The file is `model.safetensors` of that repository on huggingface.co, of the revision after `@` if
the name has one. It is kept in the hub's own cache. A file that was put at `by_hand(name)` is taken
instead.
"""

import contextlib
import functools
import hashlib
import logging
import pathlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from pnoc_jax.errors import UserError
from pnoc_jax.io import user_cache

PREFIX = 'hub:'
FILE = 'model.safetensors'
_NAME = re.compile(r'hub:([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?')
_SHA256 = re.compile(r'[0-9a-f]{64}')
_COMMIT = re.compile(r'[0-9a-f]{40}')


class Fetched(NamedTuple):
  """What a name stood for when it was read.

  Attributes:
    path: the local file.
    sha256: of its bytes.
    revision: the commit that it was downloaded from; empty for a file that was put there by hand.
  """

  path: pathlib.Path
  sha256: str
  revision: str


def by_hand(name: str) -> pathlib.Path:
  """The path of a file that is taken instead of a download.

  Args:
    name: `hub:OWNER/NAME`, with `@REVISION` or without.

  Returns:
    A file in the user's cache directory; without a home, below the working directory.
  """
  repository, revision = _parse(name)
  base = user_cache.directory('weights') or pathlib.Path('weights')
  stem = '--'.join([*repository.split('/'), *(revision or '').split('/')]).rstrip('-')
  return base / f'{stem}.safetensors'


@functools.cache
def fetch(name: str) -> Fetched:
  """Returns the local file of some weights; downloads it where that was not done before.

  Args:
    name: `hub:OWNER/NAME`, with `@REVISION` or without. A revision is a tag or, so that nobody can
      change what it stands for, a commit.

  Raises:
    UserError: the name is malformed, the hub is out of reach, or the file differs from the hub's.
  """
  repository, revision = _parse(name)
  if by_hand(name).is_file():
    return Fetched(by_hand(name), _digest(by_hand(name)), '')
  try:
    import huggingface_hub as hub  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise UserError(
      f"{name} is downloaded by huggingface_hub: pip install 'pnoc-jax[hub]'; or {_advice(name)}"
    ) from error
  download = hub.hf_hub_download  # Its import, which sets levels of logs, happens here.
  # Without a connection its retries take half a minute.
  print(f'looking for {name} at huggingface.co', file=sys.stderr, flush=True)
  try:
    with _quiet():
      path = pathlib.Path(download(repository, FILE, revision=revision))
      expected = _published_digest(hub, repository, revision, path)
  except (OSError, ValueError) as error:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    raise UserError(f'{name} cannot be downloaded ({reason.strip()}); {_advice(name)}') from error
  digest = _digest(path)
  if digest != expected:
    raise UserError(
      f'{path} is damaged: its sha256 is {digest}, that of {name} is {expected}. Remove it and run '
      f'again, or {_advice(name)}'
    )
  # The hub's cache keeps a file below the commit that it is of.
  return Fetched(path, digest, path.parent.name if _COMMIT.fullmatch(path.parent.name) else '')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without the hub's own words on each of its retries: what became of them is said once."""
  logger = logging.getLogger('huggingface_hub')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _digest(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _parse(name: str) -> tuple[str, str | None]:
  match = _NAME.fullmatch(name)
  if not match:
    raise UserError(
      f'{name!r} names no weights: it is hub:OWNER/NAME, e.g. hub:timm/resnest269e.in1k'
    )
  return match[1], match[2]


def _advice(name: str) -> str:
  repository, revision = _parse(name)
  url = f'https://huggingface.co/{repository}/resolve/{revision or "main"}/{FILE}'
  return (
    f'fetch {url} by hand, where there is a connection, and put it at {by_hand(name)} (or '
    'anywhere: `init` also takes the path of a file)'
  )


def _published_digest(
  hub: ModuleType, repository: str, revision: str | None, path: pathlib.Path
) -> str:
  """The sha256 in the hub's metadata, which is also the name of a file in its cache."""
  blob = path.resolve().name
  if _SHA256.fullmatch(blob):
    return blob
  etag = hub.get_hf_file_metadata(hub.hf_hub_url(repository, FILE, revision=revision)).etag or ''
  if not _SHA256.fullmatch(etag):
    raise ValueError(f'the hub has no sha256 of {FILE}')
  return etag
