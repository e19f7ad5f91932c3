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
  _check_depth(root, images, names)
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


def _check_depth(root: pathlib.Path, images: found.Images, names: set[str]) -> None:
  """Refuses a tree whose uppermost directories are not the classes that they would be taken for.

  Raises:
    UserError: splits stand beside other directories, or one directory holds all classes.
  """
  ours = {found.split_of(x) for x in names}
  if 'train' in ours and ours & {'val', 'test'} and '' in ours:
    others = ', '.join(sorted(x for x in names if not found.split_of(x)))
    raise UserError(
      f'{root} has directories of splits and others beside them, {others}: move these elsewhere, '
      'or rename the splits if they are classes'
    )
  below = {x.relative_to(root).parts[1:-1][:1] for x in images.files}
  if len(names) == 1 and len(below) > 1 and () not in below and '' in ours:
    raise UserError(
      f'{root} holds one directory, {next(iter(names))}, and in it are {len(below)}, e.g. '
      f'{min(below)[0]}: give the directory whose own directories are the classes'
    )


def _empty(root: pathlib.Path, names: set[str]) -> list[str]:
  """A remark on directories without an image: their classes would vanish unnoticed."""
  empty = sorted(
    x.name for x in root.iterdir() if x.is_dir() and x.name[0] != '.' and x.name not in names
  )
  return [f'directories without an image: {", ".join(empty)}'] if empty else []
