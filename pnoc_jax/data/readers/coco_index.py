"""What COCO's annotations say about a split, as arrays on disk that open at once.

Reading the official JSON takes half a minute and gigabytes of memory, and every process of a run
would do it. It is read once; the arrays are kept in the user's cache directory and mapped from
there.
"""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pnoc_jax import errors, types
from pnoc_jax.data import cache
from pnoc_jax.data import names as naming
from pnoc_jax.data.readers import lists, regions
from pnoc_jax.io import atomic

_LONGEST_PATH = 1024  # Bytes of the name of an image's file, perhaps with folders.
_FORMAT = 4  # Of the arrays; part of the cache's key.


class Index:
  """The images of an annotation file and their regions."""

  def __init__(self, arrays: cache.Arrays):
    """Keeps what it is given.

    Args:
      arrays: of N images with R regions, whose codes are of T bytes in all:
        'classes' str[K], names of the categories in the order of their numbers;
        'names' str[N], of the files;
        'sizes' i32[N, 2] (H, W);
        'owners' i32[R], the image of a region, ascending;
        'values' u8[R], its class, 1..K;
        'starts' i64[R + 1], where its code begins;
        'codes' u8[T], as `regions.encode` returns them.
    """
    self._arrays = arrays

  @property
  def classes(self) -> tuple[str, ...]:
    """The categories' names, in the order of their numbers."""
    return tuple(self._arrays['classes'].tolist())

  def names(self) -> list[str]:
    """The images' file names."""
    return self._arrays['names'].tolist()

  def sizes(self) -> np.ndarray:
    """i32[N, 2] (H, W), as the annotations say."""
    return np.array(self._arrays['sizes'])

  def labels(self, num_classes: int) -> np.ndarray:
    """f32[N, K]: the classes of all regions, crowds too."""
    labels = np.zeros((len(self._arrays['names']), num_classes), np.float32)
    labels[self._arrays['owners'], self._arrays['values'].astype(int) - 1] = 1
    return labels

  def mask(self, image: int) -> np.ndarray:
    """u8[H, W] of one image: 0 background, k+1 class k."""
    low, high = np.searchsorted(self._arrays['owners'], [image, image + 1])
    values, starts = self._arrays['values'], self._arrays['starts']
    painted = [
      (int(values[i]), self._arrays['codes'][starts[i] : starts[i + 1]].tobytes())
      for i in range(low, high)
    ]
    return regions.paint(painted, tuple(self._arrays['sizes'][image].tolist()))


def open_index(path: pathlib.Path, classes: Sequence[str] | None) -> Index:
  """The index of an annotation file: from the cache, or read now and kept there.

  Args:
    path: of `instances_*.json`.
    classes: names of the categories; the order of their numbers in the file. None takes those of
      the file.

  Raises:
    UserError: the file is broken or of other categories.
  """
  what = _FORMAT, None if classes is None else tuple(classes)
  return Index(cache.arrays('coco', [path], what, lambda: _read(path, classes)))


def _read(path: pathlib.Path, classes: Sequence[str] | None) -> dict[str, np.ndarray]:
  problems = []
  try:
    with open(atomic.require_file(path), encoding='utf-8') as file:
      content = json.load(file, object_hook=_shrink)
    categories = _entries(content, 'categories', ('id', 'name'))
    values = _values(categories, classes)
    images = _entries(content, 'images', ('id', 'file_name', 'height', 'width'))
    images = sorted(images, key=lambda x: x['file_name'])
    numbers = _numbers(images, problems)
    entries = _entries(content, 'annotations', ('image_id', 'category_id'))
    entries = [x for x in entries if _refers(x, numbers, values, problems)]
    entries.sort(key=lambda x: numbers[x['image_id']])
    codes = [] if problems else _codes(images, entries, numbers, problems)
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  # What JSON holds can be of any form, nested as deeply as it likes, and a number of any size.
  except Exception as error:
    raise errors.UserError(
      f'{path}: cannot be read as COCO annotations ({type(error).__name__}: {error})'
    ) from error
  if problems:
    raise errors.UserError(lists.describe(path, problems))
  return {
    'classes': np.array([x['name'] for x in sorted(categories, key=lambda x: x['id'])], str),
    'names': np.array([x['file_name'] for x in images], str),
    'sizes': np.array([(x['height'], x['width']) for x in images], np.int32).reshape(-1, 2),
    'owners': np.array([numbers[x['image_id']] for x in entries], np.int32),
    'values': np.array([values[x['category_id']] for x in entries], np.uint8),
    'starts': np.cumsum([0, *map(len, codes)], dtype=np.int64),
    'codes': np.frombuffer(b''.join(codes), np.uint8),
  }


def _shrink(entry: dict[str, Any]) -> dict[str, Any]:
  """Turns numbers into arrays as soon as they are parsed: a tenth of the memory."""
  region = entry.get('segmentation')
  try:
    if isinstance(region, list):
      entry['segmentation'] = [np.array(x, np.float64) for x in region]
    elif isinstance(region, dict) and isinstance(region.get('counts'), list):
      region['counts'] = np.array(region['counts'])
    elif not isinstance(region, dict | None):
      raise ValueError(f'a segmentation is {region!r:.40}, neither outlines nor run lengths')
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(f'annotation {entry.get("id")}: {error}') from error
  return entry


def _entries(content: Any, name: str, fields: Sequence[str]) -> list[dict[str, Any]]:
  """The entries of one of the file's lists; each has the fields."""
  entries = content.get(name) if isinstance(content, dict) else None
  if not isinstance(entries, list):
    raise errors.UserError(f'cannot be read as COCO annotations: it has no list {name!r}')
  for place, entry in enumerate(entries):
    missing = [x for x in fields if not isinstance(entry, dict) or x not in entry]
    if missing:
      known = f' (id {entry["id"]})' if isinstance(entry, dict) and 'id' in entry else ''
      raise errors.UserError(
        f'cannot be read as COCO annotations: {name}[{place}]{known} has no {", ".join(missing)}'
      )
  return entries


def _values(categories: Sequence[dict[str, Any]], classes: Sequence[str] | None) -> dict[int, int]:
  """{category id: 1..K}."""
  for number, count in collections.Counter(x['id'] for x in categories).items():
    if count > 1:
      raise errors.UserError(f'{count} categories have the id {number}; give each one of its own')
  ordered = sorted(categories, key=lambda x: x['id'])
  found = tuple(x['name'] for x in ordered)
  if classes is None:
    _check_names(found)
  elif found != tuple(classes):
    other = [x for x in found if x not in classes] or [x for x in classes if x not in found]
    raise errors.UserError(
      f'its {len(found)} categories are not the {len(classes)} of this data set, e.g. {other[:3]}'
    )
  return {x['id']: i + 1 for i, x in enumerate(ordered)}


def _check_names(found: Sequence[Any]) -> None:
  for name, count in collections.Counter(found).items():
    if not isinstance(name, str) or not name.strip():
      raise errors.UserError(f'a category is named {name!r}; give each one a name')
    if count > 1:
      raise errors.UserError(f'{count} categories are named {name!r}; join them under one id')
  if len(found) > types.VOID - 1:
    raise errors.UserError(f'it has {len(found)} categories; at most {types.VOID - 1} can be used')


def _numbers(images: Sequence[dict[str, Any]], problems: list[str]) -> dict[int, int]:
  """{image id: its place}; what is listed twice, or has no size, is a problem."""
  names, numbers = {}, {}
  for place, image in enumerate(images):
    key, name = image['id'], image['file_name']
    if fault := naming.text_fault(name, _LONGEST_PATH):
      problems.append(f'images: the file name of the id {key!r:.40} {fault}')
    if name in names:
      problems.append(
        f'images: {name} is listed under the ids {names[name]} and {key}; join their annotations '
        'under one id'
      )
    if key in numbers:
      other = images[numbers[key]]['file_name']
      problems.append(f'images: the id {key} is of {other} and of {name}; give each one of its own')
    names[name], numbers[key] = key, place
    try:
      regions.check_size((image['height'], image['width']))
    except ValueError as error:
      problems.append(f'image {key} has {error}')
  return numbers


def _refers(
  entry: dict[str, Any],
  numbers: Mapping[int, int],
  values: Mapping[int, int],
  problems: list[str],
) -> bool:
  """Whether an annotation is of an image and a category that there are."""
  absent = [
    f'{field} {entry[field]!r}'
    for field, known in (('image_id', numbers), ('category_id', values))
    if entry[field] not in known
  ]
  if absent:
    problems.append(
      f'annotation {entry.get("id")} has the {" and the ".join(absent)}, which the file does not '
      'list: remove the annotation, or add what it refers to'
    )
  return not absent


def _codes(
  images: Sequence[dict[str, Any]],
  entries: Sequence[dict[str, Any]],
  numbers: Mapping[int, int],
  problems: list[str],
) -> list[bytes]:
  """The code of each annotation's region."""
  codes = []
  for entry in entries:
    image = images[numbers[entry['image_id']]]
    try:
      region = entry.get('segmentation')
      size = image['height'], image['width']
      codes.append(regions.encode([] if region is None else region, size))
    except (ValueError, KeyError, TypeError) as error:
      what = error if isinstance(error, ValueError) else f'no region ({error!r})'
      problems.append(
        f'annotation {entry.get("id")} has {what}; mend or remove this annotation of '
        f'{image["file_name"]}'
      )
  return codes
