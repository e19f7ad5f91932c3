"""YOLO's text files: a line `class x y w h` for each object, and the classes' names in a list."""

import pathlib
import re

import yaml

from pnoc_jax.data.layouts import found
from pnoc_jax.data.readers import lists
from pnoc_jax.errors import UserError

_TABLES = ('data.yaml', 'data.yml', 'dataset.yaml', 'classes.txt', 'obj.names', 'classes.names')


def read(request: found.Request) -> found.Found:
  """Reads images and their text files, `images/a/1.jpg` with `labels/a/1.txt` or `1.txt` beside it.

  An image without a text file, or with an empty one, shows no class, as in training by YOLO.

  Raises:
    UserError: there is no list of names, or a line of a text file is none of YOLO's.
  """
  root = request.input
  images, classes = found.Images(root), _read_names(root)
  examples, problems, labelled = [], [], 0
  for file in images.files:
    parts = file.relative_to(root).parts[:-1]
    text = next((x for x in _places(file, root) if x.is_file()), None)
    labelled += text is not None
    labels = frozenset() if text is None else _read_labels(text, classes, problems)
    split = next((found.split_of(x) for x in parts if found.split_of(x)), '')
    examples.append(found.Example(file, labels, split))
  if not labelled:
    problems.append('no image has a text file, in labels/ or beside it')
  found.refuse(root, problems)
  remarks = images.left_out()
  if bare := len(images.files) - labelled:
    remarks.append(f'{found.count(bare, "image")} without a text file: they count as without class')
  return found.Found(examples, tuple(classes), tuple(remarks))


def _places(file: pathlib.Path, root: pathlib.Path) -> list[pathlib.Path]:
  parts = list(file.relative_to(root).with_suffix('.txt').parts)
  if 'images' in parts:
    last = len(parts) - 1 - parts[::-1].index('images')
    parts[last] = 'labels'
  return [root.joinpath(*parts), file.with_suffix('.txt')]


def _read_names(root: pathlib.Path) -> list[str]:
  path = next((root / x for x in _TABLES if (root / x).is_file()), None)
  if path is None:
    raise UserError(f'{root} has no list of classes: one of {", ".join(_TABLES)}')
  if path.suffix not in ('.yaml', '.yml'):
    problems: list[str] = []
    names = [x.strip() for x in lists.read_lines(path, problems) if x.strip()]
    found.refuse(root, problems)
    return names
  try:
    # All values as the texts that stand there: to YAML's usual rules the name `no` means false.
    names = yaml.load(path.read_text(encoding='utf-8'), yaml.BaseLoader)['names']
    if isinstance(names, dict):
      names = [names[str(i)] for i in range(len(names))]
  except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise UserError(f'{path} has no list `names` of classes ({error!r:.80})') from error
  if not isinstance(names, list) or not names:
    raise UserError(f'{path} has no list `names` of classes')
  # The text of a list of lists could be longer than any memory.
  texts = [isinstance(x, str) for x in names]
  if not all(texts):
    raise UserError(f'{path}: name {texts.index(False)} of the list `names` is no text')
  return [x.strip() for x in names]


def _read_labels(path: pathlib.Path, classes: list[str], problems: list[str]) -> frozenset[str]:
  labels = set()
  for number, line in enumerate(lists.read_lines(path, problems), 1):
    words = line.split()
    if not words:
      continue
    if not re.fullmatch('[0-9]{1,9}', words[0]) or int(words[0]) >= len(classes):
      problems.append(
        f'{path.name}, line {number}: begins with {words[0]!r:.20}, not with a number of a class '
        f'below {len(classes)}'
      )
      continue
    labels.add(classes[int(words[0])])
  return frozenset(labels)
