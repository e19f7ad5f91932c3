"""PASCAL VOC 2012, as its archive unpacks, with the SBD masks that augment it.

  VOCdevkit/VOC2012/           or the folder above it
    JPEGImages/<id>.jpg
    Annotations/<id>.xml       labels
    ImageSets/Segmentation/    train.txt val.txt trainval.txt, and train_aug.txt if you have it
    SegmentationClass/<id>.png palette PNG, or its colours; 255 is void
    SegmentationClassAug/      optional: the SBD masks of the field, indices or colours
    SBD/dataset/               optional: SBD itself (or benchmark_RELEASE/dataset), here or beside:
      train.txt val.txt        its lists
      cls/<id>.mat             its masks

The split `train_aug` of the field has all 10,582 ids that have a mask in VOC or SBD and are not in
VOC's val. Without a list it is derived from the folder of SBD masks, or from SBD's two lists. A
split has masks if each of its ids has one: VOC's own, else a PNG of SBD's, else SBD's `.mat`.
"""

import pathlib
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import cache, deep, info
from pnoc_jax.data.readers import files, lists, remarks
from pnoc_jax.io import atomic, mat

CLASSES = (
  'aeroplane',
  'bicycle',
  'bird',
  'boat',
  'bottle',
  'bus',
  'car',
  'cat',
  'chair',
  'cow',
  'diningtable',
  'dog',
  'horse',
  'motorbike',
  'person',
  'pottedplant',
  'sheep',
  'sofa',
  'train',
  'tvmonitor',
)
# Images of each split.
IMAGES = {
  'train': 1464,
  'val': 1449,
  'trainval': 2913,
  'train_aug': 10582,
  'trainval_aug': 12031,
  'test': 1456,
}

_FORMAT = 3  # Of the parsed annotations; part of the cache's key.
_VOID_COLOR = (224, 224, 192)
_NAMES = ('background', *CLASSES)
_LISTS = 'ImageSets/Segmentation'
_SBD = tuple(
  f'{above}{name}/dataset'
  for above in ('', '../', '../../')
  for name in ('SBD', 'benchmark_RELEASE')
)


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; `sources.open_source` documents the arguments.

  Lists, names of files and annotations are read. The labels of `test`, which has no annotations,
  are empty.
  """
  root = files.find_root(config, ('JPEGImages',), ('VOC2012', 'VOCdevkit/VOC2012'))
  problems = []
  ids = [x for x in _ids(config, root, split, problems) if x not in exclude]
  paths = files.need(root / 'JPEGImages', ids, problems, name='{}.jpg'.format)
  if config.labels:
    labels, beyond = lists.own_labels(config, ids, _NAMES, problems), []
  else:
    labels, beyond = _read_annotations(root / 'Annotations', split, ids, problems)
  there = {} if config.masks else _find_masks(root)
  masks = files.own_masks(config, ids, problems) if config.masks else _all(there, ids)
  white, said = deep.find_range(paths, problems)
  files.finish(root, split, ids, problems)
  palette = info.color_map(len(_NAMES))
  colors = {color: i for i, color in enumerate(palette)} | {_VOID_COLOR: types.VOID}
  return files.FileSource(
    info.DatasetInfo('voc12', CLASSES, _NAMES[0], palette),
    split,
    ids,
    labels,
    files.ImageFiles(paths, white=white),
    _Masks(masks, colors=colors) if masks else None,
    said + beyond + ([] if masks or split == 'test' else _remarks(root, there, ids)),
  )


class _Masks(files.MaskFiles):
  """PNG files, or MATLAB files of SBD."""

  def read(self, index: int) -> np.ndarray:
    path = self.files(index)[0]
    return mat.read_segmentation(path) if path.suffix == '.mat' else super().read(index)


def _ids(config, root, split, problems):
  if config.lists:
    return lists.own_list(config, split, problems, parse=_parse_id)
  path = root / _LISTS / f'{split}.txt'
  if path.is_file():
    return lists.read_ids(path, path.name, problems, parse=_parse_id)
  if split in ('train_aug', 'trainval_aug'):
    return _derive(root, split, problems)
  found = ', '.join(sorted(x.stem for x in (root / _LISTS).glob('*.txt')))
  problems.append(f'{_LISTS}/{split}.txt is missing (splits found: {found or "none"})')
  return []


def _parse_id(line):
  """The id in a line, which is the id or `/JPEGImages/<id>.jpg /.../<id>.png`."""
  return pathlib.PurePosixPath(line.split()[0]).name.removesuffix('.jpg')


def _derive(root, split, problems):
  """Ids with a mask in VOC or SBD, without VOC's val; all of them for trainval_aug."""
  known = {}
  for name in ('train', 'val'):
    path = root / _LISTS / f'{name}.txt'
    if not path.is_file():
      problems.append(f'{_LISTS}/{name}.txt is missing; {split} is derived from it')
      return []
    known[name] = set(lists.read_ids(path, path.name, problems, parse=_parse_id))
  segmented = known['train'] | known['val']
  more = _masked(root / 'SegmentationClassAug') or _sbd_ids(root, problems)
  # Some copies have the SBD masks among VOC's own.
  more = more or _masked(root / 'SegmentationClass') - segmented
  if not more:
    problems.append(
      f'{_LISTS}/{split}.txt is missing and cannot be derived: put the SBD masks into '
      'SegmentationClassAug/, or the train.txt and val.txt of SBD into SBD/dataset/, or name a '
      'folder of lists with --config.dataset.lists=DIR'
    )
    return []
  everything = segmented | more
  return sorted(everything if split == 'trainval_aug' else everything - known['val'])


def _masked(folder):
  return {x.removesuffix('.png') for x in files.names_in(folder) if x.endswith('.png')}


def _sbd_ids(root, problems):
  """The ids of SBD's two lists; none if the lists are not there."""
  for place in _SBD:
    paths = [root / place / f'{name}.txt' for name in ('train', 'val')]
    if all(x.is_file() for x in paths):
      return {key for x in paths for key in lists.read_ids(x, f'{place}/{x.name}', problems)}
  return set()


def _find_masks(root):
  """{id: its mask's file}, VOC's own before SBD's."""
  places = [(root / name, '.png') for name in ('SegmentationClass', 'SegmentationClassAug')]
  places += [(root / place / 'cls', '.mat') for place in _SBD]
  there = {}
  for folder, suffix in reversed(places):
    there |= {
      x.removesuffix(suffix): folder / x for x in files.names_in(folder) if x.endswith(suffix)
    }
  return there


def _all(there, ids):
  """The masks of all ids; None unless every id has one."""
  return [there[key] for key in ids] if there.keys() >= set(ids) else None


def _remarks(root, there, ids):
  result = 'the split counts as one without masks; add them, or list ids with masks'
  place = 'SegmentationClass/, SegmentationClassAug/, SBD/'
  return remarks.partial_masks(there, ids, place, result) or remarks.unused_masks(
    root, ids, 'SegmentationClass/<id>.png', images=('JPEGImages',)
  )


def _read_annotations(
  folder: pathlib.Path, split: str, ids: Sequence[str], problems: list[str]
) -> tuple[np.ndarray, list[str]]:
  """The classes of each annotation f32[N, K], and remarks; parsed once, then kept in the cache."""
  there = files.names_in(folder)
  names = [f'{key}.xml' for key in ids]
  if split == 'test' and there.isdisjoint(names):
    return np.zeros((len(ids), len(CLASSES)), np.float32), []  # They were never published.
  problems += [f'Annotations/: {name} is missing' for name in names if name not in there]
  paths = [folder / name for name in names if name in there]
  found = cache.arrays('voc', paths, (_FORMAT, CLASSES), lambda: _parse(paths))
  problems += found['problems'].tolist()
  beyond = np.array(found['beyond'])
  said = []
  if where := np.flatnonzero(beyond).tolist():
    said.append(
      f'{beyond.sum()} objects in {len(where)} annotations have no pixel within the size that the '
      f'file states, and do not count for the labels, e.g. in Annotations/{paths[where[0]].name}'
    )
  # Where one is missing the rows do not fit the ids, but then the split is not opened.
  return np.array(found['labels']), said


def _parse(paths: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
  """Of N annotations: labels f32[N, K], objects beyond the image i64[N], problems as texts."""
  labels, problems = np.zeros((len(paths), len(CLASSES)), np.float32), []
  beyond = np.zeros(len(paths), np.int64)
  for place, (label, path) in enumerate(zip(labels, paths, strict=True)):
    try:
      names, beyond[place] = read_annotation(path)
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
      # An encoding that Python does not know is a LookupError.
      problems.append(f'Annotations/: {path.name} cannot be read ({error}); mend this file')
      continue
    for name in names:
      if name in CLASSES:
        label[CLASSES.index(name)] = 1
      else:
        hint = lists.hint(name, _NAMES)
        problems.append(f'Annotations/: {path.name} has the unknown class {name!r}{hint}')
  return {'labels': labels, 'beyond': beyond, 'problems': np.array(problems, str)}


def read_annotation(path: pathlib.Path) -> tuple[list[str], int]:
  """Names of the objects in an annotation, with difficult and truncated ones, without parts.

  As in the reference, an object whose box has no area within the image does not count. A size of 0,
  which some tools write, says nothing about the image, and then no box ends beyond it.

  Returns:
    The names, and how many objects do not count.

  Raises:
    ParseError: the file is no XML.
    LookupError: the file names an encoding that there is not.
    ValueError: it is no annotation, a number in it is none, or a box ends before it begins.
  """
  root = ElementTree.parse(atomic.require_file(path)).getroot()
  if root.tag != 'annotation':
    raise ValueError(f'its outermost element is <{root.tag}>, not <annotation>')
  size = [_number(root.find('size'), name, 0.0) for name in ('width', 'height')]
  size = [n if n > 0 else float('inf') for n in size]
  names, beyond = [], 0
  for entry in root.findall('object'):
    name = (entry.findtext('name') or '').strip()
    box = entry.find('bndbox')
    if box is not None:
      low = [_number(box, name, 0.0) for name in ('xmin', 'ymin')]
      high = [_number(box, name, float('inf')) for name in ('xmax', 'ymax')]
      for axis, a, b in zip('xy', low, high, strict=True):
        if a > b:
          raise ValueError(f'the box of {name!r} has {axis}min {a:g} and {axis}max {b:g}')
      if any(min(b, n) <= max(a, 0.0) for a, b, n in zip(low, high, size, strict=True)):
        beyond += 1
        continue
    names.append(name)
  return names, beyond


def _number(element, name, default):
  text = None if element is None else element.findtext(name)
  if text is None or not text.strip():
    return default
  if not np.isfinite(value := float(text)):
    raise ValueError(f'{name} is {text.strip()}, which is no number')
  return value
