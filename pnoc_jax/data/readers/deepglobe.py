"""DeepGlobe land cover: satellite images; agriculture, found nearly everywhere, is the background.

  JPEGImages/<id>.jpg  SegmentationClassAug/<id>.png   and lists ImageSets/Segmentation/<split>.txt
  <split>/<id>_sat.jpg  <split>/<id>_mask.png          or as the challenge published it

The reference's lists `train75` (603 images) and `test` (200) are a random draw that nothing
published derives: name a folder that holds them with `dataset.lists`. Labels are the classes that
a mask shows, or a table's.
"""

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import deep, info
from pnoc_jax.data.readers import files, lists, remarks
from pnoc_jax.io import images

CLASSES = ('urban', 'rangeland', 'forest', 'water', 'barren', 'unknown')
IMAGES = {'train75': 603, 'test': 200}  # Of each split.

_NAMES = ('agriculture', *CLASSES)
_PALETTE = (
  (255, 255, 0),
  (0, 255, 255),
  (255, 0, 255),
  (0, 255, 0),
  (0, 0, 255),
  (255, 255, 255),
  (0, 0, 0),
)
_VOID_COLOR = (127, 127, 127)
_VOID_INDEX = 7  # In masks that were saved as indices.
_LIST = 'ImageSets/Segmentation/{}.txt'


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; `sources.open_source` documents the arguments."""
  marks = ('JPEGImages', split, 'train')
  root = files.find_root(config, marks, ('DGdevkit', 'land-train'))
  problems = []
  if (root / 'JPEGImages').is_dir():
    image_files = {x.stem: x for x in sorted((root / 'JPEGImages').glob('[!.]*.jpg'))}
    mask_files = {x.stem: x for x in (root / 'SegmentationClassAug').glob('[!.]*.png')}
    folder, wanted = 'JPEGImages', 'SegmentationClassAug/<id>.png'
  else:
    folder = '*' if config.lists else split
    image_files = _published(root, folder, '_sat.jpg')
    mask_files = _published(root, folder, '_mask.png')
    wanted = f'{folder}/<id>_mask.png'
  ids = _ids(config, root, split, image_files, problems)
  ids = [x for x in ids if x not in exclude]
  problems += [f'{folder}/: no image of the id {key!r}' for key in ids if key not in image_files]
  if config.masks:
    paths = files.own_masks(config, ids, problems)
  else:
    paths = files.find_masks(mask_files, ids, root.name, problems)
  masks = _Masks(paths) if paths else None
  labels = files.find_labels(config, ids, _NAMES, masks, problems)
  white, said = deep.find_range([image_files[key] for key in ids if key in image_files], problems)
  files.finish(root, split, ids, problems)
  return files.FileSource(
    info.DatasetInfo('deepglobe', CLASSES, _NAMES[0], _PALETTE),
    split,
    ids,
    labels,
    files.ImageFiles([image_files[key] for key in ids], white=white),
    masks,
    said + ([] if masks else remarks.unused_masks(root, ids, wanted, images=('JPEGImages',))),
  )


class _Masks(files.MaskFiles):
  """Masks of colours, or of indices."""

  def read(self, index: int) -> np.ndarray:
    path = self.files(index)[0]
    mode, _ = images.png_header(path)
    if mode not in ('RGB', 'RGBA'):
      mask = images.read_mask(path)
      return np.where(mask == _VOID_INDEX, types.VOID, mask).astype(np.uint8)
    return decode(images.read_image(path, upright=False))


def decode(colors: np.ndarray) -> np.ndarray:
  """The class indices u8[H, W] of a mask's colours u8[H, W, 3].

  As the challenge asks, channels are cut at 128; a colour that then belongs to no class is void.
  """
  table = np.full(8, types.VOID, np.uint8)
  for index, color in enumerate(_PALETTE):
    table[_bits(np.array(color))] = index
  mask = table[_bits(colors)]
  mask[(colors == _VOID_COLOR).all(-1)] = types.VOID
  return mask


def _bits(color):
  return ((color >= 128) * (4, 2, 1)).sum(-1)


def _published(root, folder, ending):
  found = files.shown(root.glob(f'{folder}/*{ending}'), root)
  return {x.name.removesuffix(ending): x for x in found}


def _ids(config, root, split, image_files, problems):
  if config.lists:
    return lists.own_list(config, split, problems, parse=_parse_id)
  name = _LIST.format(split)
  if (root / name).is_file():
    return lists.read_ids(root / name, name, problems, parse=_parse_id)
  if (root / 'JPEGImages').is_dir():
    problems.append(
      f'{name} is missing: put the list there, or name its folder with --config.dataset.lists=DIR'
    )
    return []
  return list(image_files)


def _parse_id(line):
  return line.split()[0].removesuffix('.jpg').removesuffix('_sat')
