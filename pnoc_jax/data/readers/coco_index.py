"""What COCO's annotations say about a split, as arrays on disk that open at once.

Reading the official JSON takes half a minute and gigabytes of memory, and every process of a run
would do it. It is read once; the arrays are kept in the user's cache directory and mapped from
there.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import cache
from pnoc_jax.data.readers import regions

_FORMAT = 2  # Of the arrays; part of the cache's key.


class Index:
  """The images of an annotation file and their regions."""

  def __init__(self, arrays: cache.Arrays):
    """Keeps what it is given.

    Args:
      arrays: of N images with R regions, whose codes are of T bytes in all:
        'names' str[N], of the files;
        'sizes' i32[N, 2] (H, W);
        'owners' i32[R], the image of a region, ascending;
        'values' u8[R], its class, 1..K;
        'starts' i64[R + 1], where its code begins;
        'codes' u8[T], as `regions.encode` returns them.
    """
    self._arrays = arrays

  def names(self) -> list[str]:
    """The images' file names."""
    return self._arrays['names'].tolist()

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


def open_index(path: pathlib.Path, classes: Sequence[str]) -> Index:
  """The index of an annotation file: from the cache, or read now and kept there.

  Args:
    path: of `instances_*.json`.
    classes: names of the categories; the order of their numbers in the file.

  Raises:
    UserError: the file is broken or of other categories.
  """
  what = _FORMAT, tuple(classes)
  return Index(cache.arrays('coco', [path], what, lambda: _read(path, classes)))


def _read(path: pathlib.Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
  try:
    with open(path, encoding='utf-8') as file:
      content = json.load(file, object_hook=_shrink)
    values = _values(content['categories'], classes)
    images = sorted(content['images'], key=lambda x: x['file_name'])
    numbers = {x['id']: i for i, x in enumerate(images)}
    entries = [(numbers[x['image_id']], x) for x in content['annotations']]
    entries.sort(key=lambda x: x[0])
    return _arrays(images, entries, values)
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  except (ValueError, KeyError, TypeError, IndexError) as error:
    raise errors.UserError(
      f'{path}: cannot be read as COCO annotations ({type(error).__name__}: {error})'
    ) from error


def _shrink(entry: dict[str, Any]) -> dict[str, Any]:
  """Turns numbers into arrays as soon as they are parsed: a tenth of the memory."""
  region = entry.get('segmentation')
  if isinstance(region, list):
    entry['segmentation'] = [np.array(x, np.float64) for x in region]
  elif isinstance(region, dict) and isinstance(region['counts'], list):
    region['counts'] = np.array(region['counts'])
  elif not isinstance(region, dict | None):
    raise ValueError(f'a segmentation is {region!r:.40}, neither outlines nor run lengths')
  return entry


def _values(categories: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[int, int]:
  """{category id: 1..K}."""
  ordered = sorted(categories, key=lambda x: x['id'])
  found = tuple(x['name'] for x in ordered)
  if found != tuple(classes):
    other = [x for x in found if x not in classes] or [x for x in classes if x not in found]
    raise errors.UserError(
      f'its {len(found)} categories are not the {len(classes)} of this data set, e.g. {other[:3]}'
    )
  return {x['id']: i + 1 for i, x in enumerate(ordered)}


def _arrays(
  images: Sequence[dict[str, Any]],
  entries: Sequence[tuple[int, dict[str, Any]]],
  values: Mapping[int, int],
) -> dict[str, np.ndarray]:
  for image in images:
    with _named('image', image):
      regions.check_size((image['height'], image['width']))
  codes = []
  for owner, entry in entries:
    with _named('annotation', entry):
      size = images[owner]['height'], images[owner]['width']
      codes.append(regions.encode(entry.get('segmentation') or [], size))
  return {
    'names': np.array([x['file_name'] for x in images], str),
    'sizes': np.array([(x['height'], x['width']) for x in images], np.int32).reshape(-1, 2),
    'owners': np.array([owner for owner, _ in entries], np.int32),
    'values': np.array([values[x['category_id']] for _, x in entries], np.uint8),
    'starts': np.cumsum([0, *map(len, codes)], dtype=np.int64),
    'codes': np.frombuffer(b''.join(codes), np.uint8),
  }


@contextlib.contextmanager
def _named(kind: str, entry: Mapping[str, Any]) -> Iterator[None]:
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{kind} {entry["id"]} has {error}') from error
