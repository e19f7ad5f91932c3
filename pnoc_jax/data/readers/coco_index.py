"""What COCO's annotations say about a split, as arrays on disk that open at once.

Reading the official JSON takes ten seconds and gigabytes of memory, and every process of a run
would do it. It is read once; the arrays are kept in the user's cache directory and mapped from
there.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import cache
from pnoc_jax.data.readers import regions

_FORMAT = 1  # Of the arrays; part of the cache's key.


class Index:
  """The images of an annotation file and their regions; picklable by its place.

  Its arrays, of N images with R regions of P parts in all:
    names: str[N], of the files.
    sizes: i32[N, 2] (H, W).
    owners: i32[R], the image of a region, ascending.
    values: u8[R], its class, 1..K.
    parts: i64[R + 1], where its parts begin.
    kinds: u8[P], polygon 0 or run lengths 1.
    starts: i64[P + 1], where a part's numbers begin.
    numbers: f64[T], coordinates or lengths of runs.
  """

  def __init__(self, directory: pathlib.Path):
    """`directory` holds the arrays."""
    self._directory = directory
    self._arrays = {}

  def __getstate__(self):
    return {'_directory': self._directory, '_arrays': {}}

  def __getitem__(self, name: str) -> np.ndarray:
    if name not in self._arrays:
      self._arrays[name] = np.load(
        self._directory / f'{name}.npy', mmap_mode='r', allow_pickle=False
      )
    return self._arrays[name]

  def names(self) -> list[str]:
    """The images' file names."""
    return self['names'].tolist()

  def labels(self, num_classes: int) -> np.ndarray:
    """f32[N, K]: the classes of all regions, crowds too."""
    labels = np.zeros((len(self['names']), num_classes), np.float32)
    labels[self['owners'], self['values'].astype(int) - 1] = 1
    return labels

  def mask(self, image: int) -> np.ndarray:
    """u8[H, W] of one image: 0 background, k+1 class k."""
    size = tuple(int(x) for x in self['sizes'][image])
    low, high = np.searchsorted(self['owners'], [image, image + 1])
    painted = []
    for region in range(low, high):
      filled = np.zeros(size, bool)
      for part in range(*self['parts'][region : region + 2]):
        numbers = self['numbers'][slice(*self['starts'][part : part + 2])]
        fill = regions.run_lengths if self['kinds'][part] else regions.polygon
        filled |= fill(numbers, size)
      painted.append((int(self['values'][region]), filled))
    return regions.paint(painted, size)


def open_index(path: pathlib.Path, classes: Sequence[str]) -> Index:
  """The index of an annotation file: from the cache, or read now and kept there.

  Args:
    path: of `instances_*.json`.
    classes: names of the categories; the order of their numbers in the file.

  Raises:
    UserError: the file is broken or of other categories, or the cache cannot be written.
  """
  what = _FORMAT, tuple(classes)
  return Index(cache.arrays('coco', [path], what, lambda: _read(path, classes)))


def _read(path, classes):
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


def _shrink(entry):
  """Turns coordinates into arrays as soon as they are parsed: a tenth of the memory."""
  outlines = entry.get('segmentation')
  if outlines is None:
    return entry
  if isinstance(outlines, dict):
    counts = outlines['counts']
    counts = regions.parse_counts(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    entry['segmentation'], entry['runs'] = [counts], True
  else:
    entry['segmentation'] = [np.array(x, np.float64) for x in outlines]
  return entry


def _values(categories, classes):
  """{category id: 1..K}."""
  ordered = sorted(categories, key=lambda x: x['id'])
  found = tuple(x['name'] for x in ordered)
  if found != tuple(classes):
    other = [x for x in found if x not in classes] or [x for x in classes if x not in found]
    raise errors.UserError(
      f'its {len(found)} categories are not the {len(classes)} of this data set, e.g. {other[:3]}'
    )
  return {x['id']: i + 1 for i, x in enumerate(ordered)}


def _arrays(images, entries, values):
  parts, kinds, starts, numbers = [0], [], [0], []
  for owner, entry in entries:
    outlines, are_runs = entry.get('segmentation') or [], entry.get('runs', False)
    size = images[owner]['height'] * images[owner]['width']
    if are_runs and outlines[0].sum() != size:
      raise ValueError(f'annotation {entry["id"]} has runs of {outlines[0].sum()} px, not {size}')
    for outline in outlines:
      if not are_runs and len(outline) % 2:
        raise ValueError(f'annotation {entry["id"]} has an outline of {len(outline)} numbers')
      numbers.append(outline)
      kinds.append(are_runs)
      starts.append(starts[-1] + len(outline))
    parts.append(len(kinds))
  return {
    'names': np.array([x['file_name'] for x in images], str),
    'sizes': np.array([(x['height'], x['width']) for x in images], np.int32).reshape(-1, 2),
    'owners': np.array([owner for owner, _ in entries], np.int32),
    'values': np.array([values[x['category_id']] for _, x in entries], np.uint8),
    'parts': np.array(parts, np.int64),
    'kinds': np.array(kinds, np.uint8),
    'starts': np.array(starts, np.int64),
    'numbers': np.concatenate([*numbers, np.zeros(0)]),
  }
