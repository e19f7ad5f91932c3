"""MS COCO 2014: labels and masks from its official annotations, or from files made of these.

  train2014/COCO_train2014_<12 digits>.jpg      or images/train2014/
  val2014/COCO_val2014_<12 digits>.jpg
  annotations/instances_{train,val}2014.json
  coco_seg_anno/<12 digits>.png                 optional: masks, 0 background, 1..80, 255 void

The ids are the files' names without `.jpg`. Split `train2014` has all 82,783 images and `val2014`
40,504; `train2014_labelled` and `val2014_labelled` the 82,081 and 40,137 that have annotations.
Classes are the 80 categories in the order of their ids, numbered without gaps.
"""

import pathlib
import re

import numpy as np

from pnoc_jax.data import deep, info
from pnoc_jax.data.readers import coco_index, files, lists, remarks

_CATEGORIES = """
  person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant
  stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe
  backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat
  baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork knife spoon bowl
  banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant
  bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink
  refrigerator book clock vase scissors teddy_bear hair_drier toothbrush
"""
CLASSES = tuple(x.replace('_', ' ') for x in _CATEGORIES.split())
# Images of each split.
IMAGES = {
  'train2014': 82783,
  'val2014': 40504,
  'train2014_labelled': 82081,
  'val2014_labelled': 40137,
}

_LABELLED = '_labelled'
_MASKS = 'coco_seg_anno'
_NAMES = ('background', *CLASSES)


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; `sources.open_source` documents the arguments.

  A split from `dataset.lists` has images of `val2014` if its name begins with `val`, else of
  `train2014`. Masks come from `dataset.masks`, else from `coco_seg_anno`, else they are painted
  from the annotations, with crowds; the smaller of two overlapping regions lies on top.
  """
  part = 'val2014' if split.startswith('val') else 'train2014'
  root = files.find_root(config, (part, f'images/{part}'), ('coco', 'coco2014'))
  folder = root / part if (root / part).is_dir() else root / 'images' / part
  problems = []
  path = root / 'annotations' / f'instances_{part}.json'
  index = _open_index(path, config, problems)
  ids = _ids(config, split, folder, index, problems)
  ids = [x for x in ids if x not in exclude]
  numbers = _numbers(ids, index, config, problems)
  if config.labels or index is None or numbers is None:
    labels = files.find_labels(config, ids, _NAMES, None, problems)
  else:
    labels = index.labels(len(CLASSES))[numbers]
  if split.endswith(_LABELLED):
    keep = np.flatnonzero(labels.any(1)).tolist()
    ids, labels = [ids[i] for i in keep], labels[keep]
    numbers = numbers and [numbers[i] for i in keep]
  paths = files.need(folder, ids, problems, name='{}.jpg'.format)
  masks = _masks(config, root, path, ids, index, numbers, problems)
  sizes = None if index is None or numbers is None else index.sizes()[numbers]
  white, said = deep.find_range(paths, problems)
  files.finish(root, split, ids, problems)
  return files.FileSource(
    info.DatasetInfo('coco14', CLASSES, _NAMES[0], info.color_map(len(_NAMES))),
    split,
    ids,
    labels,
    files.ImageFiles(paths, white=white, sizes=sizes),
    masks,
    said + ([] if config.masks else _remarks(root, ids, masks)),
  )


class RegionMasks:
  """Masks that are painted from annotations when they are asked for."""

  def __init__(self, index: coco_index.Index, numbers: list[int], path: pathlib.Path):
    """Keeps its arguments.

    Args:
      index: of the annotations.
      numbers: the places in `index` of the ids, in their order.
      path: of the annotations.
    """
    self._index, self._numbers, self._path = index, tuple(numbers), path

  def read(self, index: int) -> np.ndarray:
    """u8[H, W]."""
    return self._index.mask(self._numbers[index])

  def files(self, index: int) -> tuple[pathlib.Path]:
    """The annotations."""
    del index
    return (self._path,)


def _open_index(path, config, problems):
  """The index, or None where nothing needs one and there is none."""
  if path.is_file():
    return coco_index.open_index(path, CLASSES)
  if not config.labels:
    problems.append(
      f'annotations/{path.name} is missing: unpack the official annotations there, or give a '
      'table of labels with --config.dataset.labels=FILE'
    )
  return None


def _ids(config, split, folder, index, problems):
  if config.lists:
    return lists.own_list(config, split, problems, parse=lambda x: _parse_id(x, folder.name))
  if split.removesuffix(_LABELLED) != folder.name:
    problems.append(
      f'there is no split {split!r}: known are {", ".join(IMAGES)}, and those of lists in a folder '
      'named with --config.dataset.lists=DIR'
    )
    return []
  if index is not None:
    return [x.removesuffix('.jpg') for x in index.names()]
  return sorted(x.removesuffix('.jpg') for x in files.names_in(folder) if x.endswith('.jpg'))


def _parse_id(line, part):
  """The id of a line: a file's name with or without its ending, or a number."""
  name = pathlib.PurePosixPath(line.split()[0]).name.removesuffix('.jpg')
  return f'COCO_{part}_{int(name):012d}' if re.fullmatch('[0-9]{1,12}', name) else name


def _numbers(ids, index, config, problems):
  """The places of the ids in the index; None if one is not in it, or there is none."""
  if index is None:
    return None
  there = {x.removesuffix('.jpg'): i for i, x in enumerate(index.names())}
  missing = [key for key in ids if key not in there]
  if not missing:
    return [there[key] for key in ids]
  if not config.labels:
    problems.append(
      f'the annotations lack {len(missing)} of {len(ids)} ids, the first is {missing[0]}'
    )
  return None


def _remarks(root, ids, masks):
  """Warnings of masks in files that are there and not used."""
  if isinstance(masks, files.MaskFiles):
    return []
  there = {x.removesuffix('.png') for x in files.names_in(root / _MASKS)}
  found = {key for key in ids if key in there or key[-12:] in there}
  used = 'no masks are used' if masks is None else 'they are painted from the annotations'
  return remarks.partial_masks(found, ids, f'{_MASKS}/', used) or (
    remarks.unused_masks(root, ids, f'{_MASKS}/<id>.png') if masks is None else []
  )


def _masks(config, root, path, ids, index, numbers, problems):
  """Masks whose files are named by id or by its 12 digits, else of the annotations, else None."""
  folder = pathlib.Path(config.masks).expanduser() if config.masks else root / _MASKS
  there = files.names_in(folder)
  for name in ('{}.png'.format, lambda key: f'{key[-12:]}.png'):
    if ids and all(name(key) in there for key in ids):
      return files.MaskFiles([folder / name(key) for key in ids])
  if config.masks:
    files.own_masks(config, ids, problems)
    return None
  if index is None or numbers is None:
    return None
  return RegionMasks(index, numbers, path)
