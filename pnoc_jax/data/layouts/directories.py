"""A directory for each class: `cat/1.jpg`, `dog/2.jpg`, or below `train/` and `val/`."""

import pathlib

from pnoc_jax.data.layouts import found
from pnoc_jax.errors import UserError


def read(request: found.Request) -> found.Found:
  """Reads the layout.

  Raises:
    UserError: the input is no such layout; the message says where it is not.
  """
  root = request.input
  if not root.is_dir():
    raise UserError(f'{root} is no directory; give the one that holds a directory for each class')
  images = found.Images(root)
  names = {x.relative_to(root).parts[0] for x in images.files}
  splits = all(found.split_of(x) for x in names)
  examples, problems = [], []
  for file in images.files:
    parts = file.relative_to(root).parts
    folders = parts[1:-1] if splits else parts[:-1]
    if not folders:
      problems.append(f'{file.relative_to(root)} lies in no directory of a class')
      continue
    labels = frozenset({folders[0]})
    examples.append(found.Example(file, labels, found.split_of(parts[0]) if splits else ''))
  found.refuse(root, problems)
  return found.Found(examples, remarks=tuple(images.left_out() + _empty(root, names)))


def _empty(root: pathlib.Path, names: set[str]) -> list[str]:
  """A remark on directories without an image: their classes would vanish unnoticed."""
  empty = sorted(
    x.name for x in root.iterdir() if x.is_dir() and x.name[0] != '.' and x.name not in names
  )
  return [f'directories without an image: {", ".join(empty)}'] if empty else []
