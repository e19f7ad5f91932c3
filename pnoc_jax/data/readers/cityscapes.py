"""Cityscapes, as its archives unpack; classes that fill every street are the background.

  leftImg8bit/<split>/<city>/<id>_leftImg8bit.png
  gtFine/<split>/<city>/<id>_gtFine_labelTrainIds.png     or ..._labelIds.png; 255 is void
  gtCoarse/train_extra/<city>/<id>_gtCoarse_label...png   for the split `train_extra`

Road, sidewalk, building, pole, vegetation and sky are background; the other 13 evaluated classes
are the foreground. Images without a list are those of the split's folder. Labels are the classes
that the mask shows, or those of the list `<id>,0|1|13` (evaluated ids), or a table's. `test` has
neither masks nor labels.
"""

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import info
from pnoc_jax.data.readers import files

CLASSES = (
  'wall',
  'fence',
  'traffic light',
  'traffic sign',
  'terrain',
  'person',
  'rider',
  'car',
  'truck',
  'bus',
  'train',
  'motorcycle',
  'bicycle',
)
IMAGES = {'train': 2975, 'val': 500, 'test': 1525, 'train_extra': 19998}
"""Images of the splits."""

_TRAIN_IDS = (3, 4, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18)  # Of CLASSES.
_BACKGROUND_IDS = (0, 1, 2, 5, 8, 10)
# The evaluated classes' numbers among all 34 (`labelIds`), in the order of their trainIds.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_PALETTE = (
  (0, 0, 0),
  (102, 102, 156),
  (190, 153, 153),
  (250, 170, 30),
  (220, 220, 0),
  (152, 251, 152),
  (220, 20, 60),
  (255, 0, 0),
  (0, 0, 142),
  (0, 0, 70),
  (0, 60, 100),
  (0, 80, 100),
  (0, 0, 230),
  (119, 11, 32),
)
_NAMES = ('background', *CLASSES)
_IMAGE = '_leftImg8bit.png'


def open_source(
  config: info.DatasetConfig, split: str, *, exclude: frozenset[str] = frozenset()
) -> files.FileSource:
  """Opens a split.

  Args:
    config: the root, and what takes the place of the data set's own files; masks of one's own have
      the values 0 to 13 and 255.
    split: its name.
    exclude: ids to leave out.

  Raises:
    UserError: something is missing or does not fit.
  """
  root = files.find_root(config, ('leftImg8bit',), ('cityscapes',))
  problems = []
  found = _find(root / 'leftImg8bit', split if not config.lists else '*', _IMAGE)
  ids, listed = _ids(config, split, found, problems)
  ids = [x for x in ids if x not in exclude]
  for key in ids:
    if key not in found:
      problems.append(f'leftImg8bit/: {key}{_IMAGE} is missing')
  if config.masks:
    masks = files.MaskFiles(files.own_masks(config, ids, problems))
  else:
    masks = _masks(root, split, ids, problems)
  if problems or not ids:
    labels = None
  elif config.labels:
    labels = files.own_labels(config, ids, _NAMES, problems)
  elif listed:
    labels = np.stack([listed[key] for key in ids])
  elif masks is not None:
    labels = files.labels_of_masks(masks, len(ids), len(CLASSES))
  else:
    labels = np.zeros((len(ids), len(CLASSES)), np.float32)
  files.finish(root, split, ids, problems)
  return files.FileSource(
    info.DatasetInfo('cityscapes', CLASSES, _NAMES[0], _PALETTE),
    split,
    ids,
    labels,
    files.ImageFiles([found[key] for key in ids]),
    masks,
  )


def _find(folder, split, ending):
  """{id: path} of `<folder>/<split>/<city>/<id><ending>`."""
  return {x.name.removesuffix(ending): x for x in sorted(folder.glob(f'{split}/*/[!.]*{ending}'))}


def _ids(config, split, found, problems):
  """The ids, and {id: f32[K]} where a list has labels."""
  if not config.lists:
    if not found:
      problems.append(f'leftImg8bit/{split}/ has no images <city>/<id>{_IMAGE}')
    return list(found), {}
  lines = files.own_list(config, split, problems)
  listed = {}
  for line in lines:
    key, comma, numbers = line.partition(',')
    if comma:
      listed[key.strip()] = _parse_label(line, numbers, problems)
  if listed and len(listed) < len(lines):
    problems.append(f'{split}.txt: {len(lines) - len(listed)} of {len(lines)} lines have no labels')
  return [line.partition(',')[0].strip() for line in lines], listed


def _parse_label(line, numbers, problems):
  label = np.zeros(len(CLASSES), np.float32)
  for text in filter(None, (x.strip() for x in numbers.split('|'))):
    if not text.isdecimal() or int(text) > max(_TRAIN_IDS):
      problems.append(f'the line {line!r} has the label {text!r}, expected 0 to 18')
    elif int(text) in _TRAIN_IDS:
      label[_TRAIN_IDS.index(int(text))] = 1
  return label


def _masks(root, split, ids, problems):
  """Masks of trainIds, else of labelIds, else None; a part of a split is a problem."""
  folder, kind = (
    (root / 'gtCoarse', 'gtCoarse') if split == 'train_extra' else (root / 'gtFine', 'gtFine')
  )
  best = {}
  for name, table in (('labelTrainIds', _from_train_ids()), ('labelIds', _from_label_ids())):
    there = _find(folder, '*', f'_{kind}_{name}.png')
    if ids and all(key in there for key in ids):
      paths = [there[key] for key in ids]
      # The published masks of `test` are void all over.
      return None if split == 'test' else files.MaskFiles(paths, indices=table)
    best = max(best, there, key=lambda x: sum(key in x for key in ids))
  missing = [key for key in ids if key not in best]
  if missing and len(missing) < len(ids):
    problems.append(
      f'{kind}/: {len(missing)} of {len(ids)} ids have no mask, the first is {missing[0]}'
    )
  return None


def _from_train_ids():
  """u8[256]: the values of our masks by trainId."""
  table = np.full(256, types.VOID, np.uint8)
  table[list(_BACKGROUND_IDS)] = 0
  table[list(_TRAIN_IDS)] = np.arange(1, len(CLASSES) + 1)
  return table


def _from_label_ids():
  table = np.full(256, types.VOID, np.uint8)
  table[list(_LABEL_IDS)] = _from_train_ids()[: len(_LABEL_IDS)]
  return table
