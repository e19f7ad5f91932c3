"""Pretrained weights by name, `hub:timm/resnest269e.in1k`: downloaded once, and checked.

The file is `model.safetensors` of that repository on huggingface.co, in a revision after an `@` if
one is named, and lies in the hub's own cache. A file put by hand into `by_hand` goes before it.
"""

import functools
import hashlib
import os
import pathlib
import re

from pnoc_jax.errors import UserError

PREFIX = 'hub:'
FILE = 'model.safetensors'
_NAME = re.compile(r'hub:([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?')
_SHA256 = re.compile(r'[0-9a-f]{64}')


def by_hand(name: str) -> pathlib.Path:
  """Where a file is looked for before the hub is asked.

  Args:
    name: `hub:OWNER/NAME`, with `@REVISION` or without.
  """
  repository, revision = _parse(name)
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  stem = '--'.join([*repository.split('/'), *(revision or '').split('/')]).rstrip('-')
  return pathlib.Path(base) / 'pnoc_jax' / 'weights' / f'{stem}.safetensors'


@functools.cache
def fetch(name: str) -> pathlib.Path:
  """Returns the local file of some weights; downloads it where that was not done before.

  Args:
    name: `hub:OWNER/NAME`, with `@REVISION` or without.

  Raises:
    UserError: the name is none, the hub is out of reach, or the file is not what the hub has.
  """
  repository, revision = _parse(name)
  if by_hand(name).is_file():
    return by_hand(name)
  try:
    import huggingface_hub as hub  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise UserError(
      f"{name} is downloaded by huggingface_hub: pip install 'pnoc-jax[hub]'; or {_advice(name)}"
    ) from error
  try:
    path = pathlib.Path(hub.hf_hub_download(repository, FILE, revision=revision))
    expected = _published_digest(hub, repository, revision, path)
  except (OSError, ValueError) as error:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    raise UserError(f'{name} cannot be downloaded ({reason.strip()}); {_advice(name)}') from error
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if digest != expected:
    raise UserError(
      f'{path} is damaged: its sha256 is {digest}, that of {name} is {expected}. Remove it and run '
      f'again, or {_advice(name)}'
    )
  return path


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


def _published_digest(hub, repository: str, revision: str | None, path: pathlib.Path) -> str:
  """The sha256 in the hub's metadata: the cache's blobs bear it as their name."""
  blob = path.resolve().name
  if _SHA256.fullmatch(blob):
    return blob
  etag = hub.get_hf_file_metadata(hub.hf_hub_url(repository, FILE, revision=revision)).etag or ''
  if not _SHA256.fullmatch(etag):
    raise ValueError(f'the hub has no sha256 of {FILE}')
  return etag
