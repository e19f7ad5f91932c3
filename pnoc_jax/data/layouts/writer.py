"""Writes the `folder` layout of what was found; images are linked or copied, never changed."""

import collections
import csv
import dataclasses
import hashlib
import io
import pathlib
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import info, names
from pnoc_jax.data.layouts import found, splits
from pnoc_jax.data.readers import lists
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, images

BACKGROUND = 'background'
_LONGEST = 250  # Bytes of an id: with `.jpeg` a file's name has 255, which is the most.

Progress = Callable[[Iterable], Iterable]
"""Wraps what is gone through image by image, e.g. to show a bar."""


@dataclasses.dataclass(frozen=True)
class Options:
  """How a folder is written.

  Attributes:
    share: of the images that validate, where the layout has no splits.
    seed: of their draw.
    copy: whether images are copied; else they are linked.
  """

  share: float = 0.2
  seed: int = 0
  copy: bool = False


@dataclasses.dataclass(frozen=True)
class Written:
  """What was written.

  Attributes:
    classes: without the background.
    counts: images of a split by class, and under '' those of no class.
    totals: images of a split.
    remarks: what was left out or joined, in words.
  """

  classes: tuple[str, ...]
  counts: dict[str, dict[str, int]]
  totals: dict[str, int]
  remarks: tuple[str, ...]


def write(
  layout: found.Found,
  output: pathlib.Path,
  options: Options,
  progress: Progress = iter,
  finish: Callable[[pathlib.Path], Any] = lambda root: None,
) -> Written:
  """Writes the layout that `readers.folder` describes.

  All is written beside the output first and then renamed, so that it is whole or not there.

  Args:
    layout: what was found.
    output: a directory that is not there yet, or empty.
    options: how.
    progress: called with the images that are read or copied.
    finish: called with the directory when all of it is written, before it has its name.

  Raises:
    UserError: the output is there or cannot be made, an image cannot be opened, or the labels
      cannot be used; nothing is left behind.
    OSError: the disk is full, or the like; nothing is left behind.
  """
  atomic.check_new(output)
  _check_headers(layout.examples)
  examples, remarks = _joined(layout.examples)
  classes = _classes(layout, examples)
  labels = np.array([[x in y.labels for x in classes] for y in examples], bool)
  labels = labels.reshape(len(examples), len(classes))
  parts, said = _parts(examples, labels, classes, options)
  ids = _ids(examples)
  with atomic.new_directory(output) as made:
    _write_lists(made, classes, ids, labels, parts)
    _write_images(made, ids, progress(examples), options)
    if any(x.mask for x in examples):
      _write_masks(made, ids, progress(examples), len(classes))
    finish(made)
  counts = {
    split: {
      **{name: int(labels[rows, k].sum()) for k, name in enumerate(classes)},
      '': int((~labels[rows].any(axis=1)).sum()),
    }
    for split, rows in parts.items()
  }
  totals = {split: len(rows) for split, rows in parts.items()}
  return Written(classes, counts, totals, (*layout.remarks, *remarks, *said))


def _check_headers(examples: Iterable[found.Example]) -> None:
  """Refuses images that cannot be opened by the names that a person knows them by."""
  problems = []
  for file in dict.fromkeys(x.file for x in examples):
    try:
      images.image_size(file)
    except UserError as error:
      problems.append(str(error))
  if problems:
    found.refuse(pathlib.Path('the input'), [*problems, 'mend or remove these files'])


def _joined(examples: Sequence[found.Example]) -> tuple[list[found.Example], list[str]]:
  """Files of equal content are one image, with the labels of all."""
  by_size = collections.Counter(x.file.stat().st_size for x in examples)
  kept: dict[object, found.Example] = {}
  joined = 0
  for example in examples:
    key: object = example.file
    if by_size[example.file.stat().st_size] > 1:
      key = hashlib.sha256(example.file.read_bytes()).digest()
    first = kept.get(key)
    if first is None:
      kept[key] = example
      continue
    joined += 1
    if first.split != example.split:
      raise UserError(
        f'{first.file} and {example.file} are one image, in the splits {first.split or "none"} and '
        f'{example.split or "none"}; remove one'
      )
    kept[key] = dataclasses.replace(first, labels=first.labels | example.labels)
  said = f'{found.count(joined, "file")} joined with others of equal content, labels too'
  return list(kept.values()), [said] if joined else []


def _classes(layout: found.Found, examples: Sequence[found.Example]) -> tuple[str, ...]:
  """The names of the classes, checked."""
  given = {x for y in examples for x in y.labels}
  order = list(layout.classes) or sorted(given)
  order += sorted(given - set(order))
  problems = []
  if not given:
    problems.append('no image has a label')
  if len(order) > types.VOID - 1:
    problems.append(f'{len(order)} classes; at most {types.VOID - 1} can be used')
  alike = collections.defaultdict(list)
  for name in order:
    fault = names.text_fault(name) or ('begins or ends with a space' * (name != name.strip()))
    if fault:
      problems.append(f'the class {name!r} {fault}; rename it')
    alike[re.sub(r'[\s_]+', '_', name).casefold()].append(name)
  for same in alike.values():
    if len(same) > 1:
      problems.append(f'the classes {" and ".join(map(repr, same))} have one name; rename or join')
  if BACKGROUND in alike:
    problems.append(
      f'{alike[BACKGROUND][0]!r} is the name of what no class covers; is it a class of its own, '
      f'rename it; are its images without a class, give --negative={alike[BACKGROUND][0]}'
    )
  found.refuse(pathlib.Path('the input'), problems)
  return tuple(order)


def _parts(
  examples: Sequence[found.Example],
  labels: np.ndarray,
  classes: Sequence[str],
  options: Options,
) -> tuple[dict[str, np.ndarray], list[str]]:
  """{split: places of its examples}, and what a person should know of them."""
  given = np.array([x.split for x in examples])
  if (given != '').any() and (given == '').any():
    bare = examples[int(np.flatnonzero(given == '')[0])].file
    raise UserError(f'some images are of a split and others of none, e.g. {bare}')
  if (given == 'val').any():
    parts = {x: np.flatnonzero(given == x) for x in found.SPLITS if (given == x).any()}
    if 'train' not in parts:
      raise UserError('the layout has a split val, but none to train on')
    chosen = given == 'val'
  else:
    test = given == 'test'
    drawn = splits.draw(labels[~test], options.share, options.seed)
    chosen = np.zeros(len(examples), bool)
    chosen[np.flatnonzero(~test)] = drawn
    parts = {'train': np.flatnonzero(~chosen & ~test), 'val': np.flatnonzero(chosen)}
    if test.any():
      parts['test'] = np.flatnonzero(test)
  if not len(parts['train']) or not labels[parts['train']].any():
    raise UserError('no image with a label is left to train on; lower --val')
  seen = labels[np.concatenate([parts['train'], parts['val']])]
  both = np.arange(len(seen)) >= len(parts['train'])
  alone = splits.only_in_one(seen, both, classes)
  said = [f'not in both train and val, for want of images: {", ".join(alone)}'] if alone else []
  shown = np.flatnonzero(labels[parts['train']].all(axis=0)).tolist()
  everywhere = [classes[k] for k in shown]
  if everywhere:
    said.append(
      f'every image to train on shows {", ".join(everywhere)}: no classifier can learn what that '
      'is; add photographs without it (--negative names their directory)'
    )
  return {k: v for k, v in parts.items() if len(v)}, said


def _ids(examples: Sequence[found.Example]) -> list[str]:
  """Ids that differ: the files' names without suffix, longer by folders where they are equal."""
  depth, ids = 1, [_id(x.file, 1) for x in examples]
  while len(set(ids)) < len(ids):
    counts = collections.Counter(ids)
    depth += 1
    longer = [_id(x.file, depth) if counts[y] > 1 else y for x, y in zip(examples, ids)]
    if longer == ids:  # The folders are equal, too: only suffixes differ.
      ids = [f'{y}_{x.file.suffix[1:]}' if counts[y] > 1 else y for x, y in zip(examples, ids)]
      break
    ids = longer
  first: dict[str, pathlib.Path] = {}
  for key, example in zip(ids, examples, strict=True):
    fault = names.path_fault(key, _LONGEST) or (
      'begins or ends with a space' * (key != key.strip())
    )
    if fault:
      raise UserError(f'{str(example.file)!r}: its name in the lists {fault}; rename this file')
    if first.setdefault(key, example.file) != example.file:
      raise UserError(
        f'{str(first[key])!r} and {str(example.file)!r} would both be {key!r} in the lists; rename '
        'one of them'
      )
  return ids


def _id(file: pathlib.Path, depth: int) -> str:
  parts = [*file.parts[1:-1], file.stem][-depth:]
  return unicodedata.normalize('NFC', '_'.join(parts))


def _write_lists(
  root: pathlib.Path,
  classes: Sequence[str],
  ids: Sequence[str],
  labels: np.ndarray,
  parts: dict[str, np.ndarray],
) -> None:
  (root / 'splits').mkdir()
  _text(root / 'classes.txt', [BACKGROUND, *classes])
  table = io.StringIO()
  rows = csv.writer(table, lineterminator='\n')
  rows.writerow(['id', 'labels'])
  names = [lists.written(x) for x in classes]
  for key, label in zip(ids, labels, strict=True):
    rows.writerow([key, ' '.join(x for x, there in zip(names, label, strict=True) if there)])
  _text(root / 'image_labels.csv', table.getvalue().splitlines())
  for split, places in parts.items():
    _text(root / 'splits' / f'{split}.txt', [ids[int(i)] for i in places])


def _text(path: pathlib.Path, lines: Iterable[str]) -> None:
  path.write_text(''.join(f'{x}\n' for x in lines), encoding='utf-8')


def _write_images(
  root: pathlib.Path, ids: Sequence[str], examples: Iterable[found.Example], options: Options
) -> None:
  (root / 'images').mkdir()
  for key, example in zip(ids, examples, strict=True):
    place = root / 'images' / f'{key}{example.file.suffix.lower()}'
    if options.copy:
      shutil.copyfile(example.file, place)
    else:
      place.symlink_to(example.file.resolve())


def _write_masks(
  root: pathlib.Path, ids: Sequence[str], examples: Iterable[found.Example], num_classes: int
) -> None:
  """Masks of those that have one, turned as their images are shown."""
  palette = np.array(info.color_map(num_classes + 1), np.uint8)
  for key, example in zip(ids, examples, strict=True):
    if example.mask is not None:
      mask = images.turn(example.mask(), example.file)
      images.write_png(root / 'masks' / f'{key}.png', mask, palette=palette)
