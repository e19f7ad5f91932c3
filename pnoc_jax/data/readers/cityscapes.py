"""Cityscapes, as its archives unpack; classes that fill every street are the background.

  leftImg8bit/<split>/<city>/<id>_leftImg8bit.png
  gtFine/<split>/<city>/<id>_gtFine_labelTrainIds.png     or ..._labelIds.png; 255 is void
  gtCoarse/train_extra/<city>/<id>_gtCoarse_label...png   for the split `train_extra`

Road, sidewalk, building, pole, vegetation and sky are background; the other 13 evaluated classes
are the foreground. Without a list the images are those of the split's folder. Labels are the
classes that the mask shows, or those of a list with lines `<id>,0|1|13` (evaluated ids), or those
of a table. `test` has neither masks nor labels.
"""

import re

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import deep, info
from pnoc_jax.data.readers import files, lists, remarks

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
IMAGES = {'train': 2975, 'val': 500, 'test': 1525, 'train_extra': 19998}  # Of each split.

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


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; `sources.open_source` documents the arguments.

  Masks in `dataset.masks` have the values 0 to 13 and 255.
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
  if listed and not config.labels and not problems:
    labels = np.array([listed[key] for key in ids], np.float32)
  else:
    labels = files.find_labels(config, ids, _NAMES, masks, problems)
  white, said = deep.find_range([found[key] for key in ids if key in found], problems)
  files.finish(root, split, ids, problems)
  return files.FileSource(
    info.DatasetInfo('cityscapes', CLASSES, _NAMES[0], _PALETTE),
    split,
    ids,
    labels,
    files.ImageFiles([found[key] for key in ids], white=white),
    masks,
    said + ([] if masks or split == 'test' else _unused(root, split, ids)),
  )


def _find(folder, split, ending):
  """{id: path} of `<folder>/<split>/<city>/<id><ending>`."""
  found = files.shown(folder.glob(f'{split}/*/*{ending}'), folder)
  return {x.name.removesuffix(ending): x for x in found}


def _ids(config, split, found, problems):
  """The ids, and {id: f32[K]} where a list has labels."""
  if not config.lists:
    if not found:
      problems.append(f'leftImg8bit/{split}/ has no images <city>/<id>{_IMAGE}')
    return list(found), {}
  lines = lists.own_list(config, split, problems)
  listed = {}
  for line in lines:
    key, comma, numbers = line.partition(',')
    if comma:
      if key.strip() in listed:
        problems.append(f'{split}.txt: the id {key.strip()!r} has labels on two lines; keep one')
      listed[key.strip()] = _parse_label(line, numbers, problems)
  bare = sum(',' not in line for line in lines)
  if listed and bare:
    problems.append(f'{split}.txt: {bare} of {len(lines)} lines have no labels')
  return [line.partition(',')[0].strip() for line in lines], listed


def _parse_label(line, numbers, problems):
  label = np.zeros(len(CLASSES), np.float32)
  for text in filter(None, (x.strip() for x in numbers.split('|'))):
    if not re.fullmatch('[0-9]{1,9}', text) or int(text) > max(_TRAIN_IDS):
      problems.append(f'the line {line!r} has the label {text!r}, expected 0 to 18')
    elif int(text) in _TRAIN_IDS:
      label[_TRAIN_IDS.index(int(text))] = 1
  return label


def _masks(root, split, ids, problems):
  """Masks of trainIds, else of labelIds, else None; masks of a part of the ids are a problem."""
  kind = 'gtCoarse' if split == 'train_extra' else 'gtFine'
  found = {
    name: _find(root / kind, '*', f'_{kind}_{name}.png') for name in ('labelTrainIds', 'labelIds')
  }
  best = max(found, key=lambda name: sum(key in found[name] for key in ids))
  paths = files.find_masks(found[best], ids, kind, problems)
  # The published masks of `test` are void all over.
  if paths is None or split == 'test':
    return None
  table = _from_train_ids() if best == 'labelTrainIds' else _from_label_ids()
  return files.MaskFiles(paths, indices=table)


def _unused(root, split, ids):
  kind = 'gtCoarse' if split == 'train_extra' else 'gtFine'
  wanted = f'{kind}/<split>/<city>/<id>_{kind}_labelTrainIds.png'
  return remarks.unused_masks(root, ids, wanted, images=('leftImg8bit',))


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
