"""What annotation tools write: Label Studio's JSON and CVAT's XML, with classes of whole images."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from pnoc_jax.data.layouts import found
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records

_CHOICES = ('choices', 'taxonomy', 'labels')  # Of Label Studio, each beside `...labels` of regions.
_ANSWERS = (*_CHOICES, 'choice', 'label')  # What its templates call the question.
_ABOUT = ('id', 'annotator', 'annotation_id', 'created_at', 'updated_at', 'lead_time', 'agreement')
"""Fields of a task in JSON-MIN that are neither what is shown nor an answer."""


def read_label_studio(request: found.Request) -> found.Found:
  """Reads an export JSON or JSON-MIN: choices, and the labels of regions, of each image.

  Tasks that nobody has annotated are left out. What two people answered differently is refused.

  Raises:
    UserError: the file is no such export, an image is not there, or answers differ.
  """
  path = request.input
  if path.is_dir():
    raise UserError(f'{path} is a directory; give the JSON file of the export')
  try:
    tasks = records.parse_json(atomic.require_file(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read as JSON ({error!s:.80})') from error
  if not isinstance(tasks, list) or not all(isinstance(x, dict) for x in tasks):
    raise UserError(f'{path} is no list of tasks; export as JSON or JSON-MIN')
  images = found.beside(request, path)
  asked = _asked([x for x in tasks if _annotations(x) is None], path, images)
  examples, problems, bare = [], [], 0
  for place, task in enumerate(tasks):
    about = f'task {task.get("id", place)}'
    fields = task['data'] if isinstance(task.get('data'), dict) else task
    shown = (x for name, x in fields.items() if name not in asked and isinstance(x, str) and x)
    files = {x for x in map(images.find, shown) if x is not None}
    answers = _answers(task, asked)
    if not answers:
      bare += 1
    elif len(files) != 1:
      said = 'none' if not files else f'{len(files)}'
      problems.append(
        f'{about}: {said} of its values names an image below {images.root}; name the directory of '
        'the images with --images'
      )
    elif len(set(answers)) > 1:
      texts = ' and '.join(sorted(', '.join(sorted(x)) or 'nothing' for x in set(answers)))
      problems.append(f'{about} was answered in different ways, {texts}: keep one annotation')
    else:
      examples.append(found.Example(files.pop(), answers[0]))
  found.refuse(path, problems)
  remarks = images.left_out()
  if bare:
    remarks.append(f'{found.count(bare, "task")} without an annotation left out')
  return found.Found(examples, remarks=tuple(remarks))


def _annotations(task: Mapping[str, Any]) -> list[Any] | None:
  """What persons said of a task, each for himself; None in JSON-MIN, which has no such list."""
  annotations = task.get('annotations', task.get('completions'))
  return annotations if isinstance(annotations, list) else None


def _asked(
  tasks: Sequence[Mapping[str, Any]], path: pathlib.Path, images: found.Images
) -> frozenset[str]:
  """The fields of tasks in JSON-MIN that hold answers: they have the names of the questions.

  Raises:
    UserError: there are texts in several fields, each of which may be the answer.
  """
  names = dict.fromkeys(x for task in tasks for x in task if x not in _ABOUT and x != 'data')
  marked = [
    name
    for name in names
    if name.lower() in _ANSWERS or any(_is_marked(x.get(name)) for x in tasks)
  ]
  if marked:
    return frozenset(marked)
  texts = [
    name
    for name in names
    if any(isinstance(x.get(name), str) and not images.holds(x[name]) for x in tasks)
    and not any(isinstance(x.get(name), str) and images.holds(x[name]) for x in tasks)
  ]
  if len(texts) > 1:
    raise UserError(
      f'{path}: each of the fields {", ".join(texts)} may be the answer; export as JSON, not as '
      'JSON-MIN'
    )
  return frozenset(texts)


def _is_marked(value: Any) -> bool:
  """Whether a value has the form of answers, `{'choices': [...]}`, or of regions with labels."""
  parts = value if isinstance(value, list) else [value]
  return any(isinstance(x, dict) and any(True for _ in _names(x)) for x in parts)


def _answers(task: Mapping[str, Any], asked: frozenset[str]) -> list[frozenset[str]]:
  """The names that each person who annotated a task gave it; `asked` are fields of JSON-MIN."""
  annotations = _annotations(task)
  if annotations is not None:
    kept = [x for x in annotations if isinstance(x, dict) and not x.get('was_cancelled')]
    return [
      frozenset(
        name
        for result in _list(x.get('result'))
        if isinstance(result, dict) and isinstance(result.get('value'), dict)
        for name in _names(result['value'])
      )
      for x in kept
    ]
  # JSON-MIN: the answers are fields of the task, as a name, a list, or {'choices': [...]}.
  given = {k: v for k, v in task.items() if k in asked}
  return [frozenset(x for v in given.values() for x in _texts(v))] if given else []


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else []


def _names(value: Mapping[str, Any]) -> Iterator[str]:
  for key, names in value.items():
    if key in _CHOICES or key.endswith('labels'):
      yield from _texts(names)


def _texts(value: Any) -> Iterator[str]:
  """All texts within lists and mappings; of a path in a taxonomy, its last name."""
  if isinstance(value, str):
    yield value.strip()
  elif isinstance(value, Sequence):
    if value and all(isinstance(x, list) for x in value):
      value = [x[-1] for x in value if x]
    for x in value:
      yield from _texts(x)
  elif isinstance(value, Mapping):
    yield from _names(value)


def read_cvat(request: found.Request) -> found.Found:
  """Reads `annotations.xml` of "CVAT for images 1.1": tags, and the labels of shapes.

  Raises:
    UserError: the file is no such export, or an image is not there.
  """
  path = request.input
  path = path / 'annotations.xml' if path.is_dir() else path
  try:
    root = ElementTree.parse(atomic.require_file(path)).getroot()
  except (ElementTree.ParseError, LookupError, ValueError, OSError) as error:
    raise UserError(f'{path} cannot be read as XML ({error})') from error
  entries = root.findall('image')
  if root.tag != 'annotations' or not entries:
    raise UserError(f'{path} has no <image> in <annotations>; export as "CVAT for images 1.1"')
  images = found.beside(request, path)
  examples, problems = [], []
  for entry in entries:
    file = images.find(entry.get('name', ''))
    labels = {x.get('label', '').strip() for x in entry if x.get('label') is not None}
    if file is None:
      name = entry.get('name')
      problems.append(
        f'there is no image {name!r} below {images.root}; name its place with --images'
      )
    else:
      split = found.split_of(entry.get('subset', ''))
      examples.append(found.Example(file, frozenset(labels), split))
  found.refuse(path, problems)
  names = [(x.text or '').strip() for x in root.findall('meta//labels/label/name')]
  classes = tuple(dict.fromkeys(x for x in names if x))
  return found.Found(examples, classes, images.unlisted(examples))
