"""DeepGlobe land cover: satellite images; agriculture, found nearly everywhere, is the background.

  JPEGImages/<id>.jpg  SegmentationClassAug/<id>.png   and lists ImageSets/Segmentation/<split>.txt
  <split>/<id>_sat.jpg  <split>/<id>_mask.png          or as the challenge published it

The reference's lists `train75` (603 images) and `test` (200) are a random draw that nothing
published derives: name a folder that holds them with `dataset.lists`. Labels are the classes that
a mask shows, or a table's.
"""

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import info
from pnoc_jax.data.readers import files, lists
from pnoc_jax.io import images

CLASSES = ('urban', 'rangeland', 'forest', 'water', 'barren', 'unknown')
IMAGES = {'train75': 603, 'test': 200}
"""Images of the splits."""

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
_VOID_INDEX = 7  # Of masks that were saved as indices.
_LIST = 'ImageSets/Segmentation/{}.txt'


def open_source(
  config: info.DatasetConfig, split: str, *, exclude: frozenset[str] = frozenset()
) -> files.FileSource:
  """Opens a split.

  Args:
    config: the root, and what takes the place of the data set's own files.
    split: its name.
    exclude: ids to leave out.

  Raises:
    UserError: something is missing or does not fit.
  """
  marks = ('JPEGImages', split, 'train')
  root = files.find_root(config, marks, ('DGdevkit', 'land-train'))
  problems = []
  if (root / 'JPEGImages').is_dir():
    image_files = {x.stem: x for x in sorted((root / 'JPEGImages').glob('[!.]*.jpg'))}
    mask_files = {x.stem: x for x in (root / 'SegmentationClassAug').glob('[!.]*.png')}
    folder = 'JPEGImages'
  else:
    folder = '*' if config.lists else split
    image_files = _published(root, folder, '_sat.jpg')
    mask_files = _published(root, folder, '_mask.png')
  ids = _ids(config, root, split, image_files, problems)
  ids = [x for x in ids if x not in exclude]
  problems += [f'{folder}/: no image of the id {key!r}' for key in ids if key not in image_files]
  masks = None
  if config.masks:
    masks = _Masks(files.own_masks(config, ids, problems))
  elif any(key in mask_files for key in ids):
    missing = [key for key in ids if key not in mask_files]
    if missing:
      problems.append(f'{len(missing)} of {len(ids)} ids have no mask, the first is {missing[0]!r}')
    else:
      masks = _Masks([mask_files[key] for key in ids])
  labels = np.zeros((len(ids), len(CLASSES)), np.float32)
  if config.labels:
    labels = files.own_labels(config, ids, _NAMES, problems)
  elif masks is not None and not problems:
    labels = files.labels_of_masks(masks, len(ids), len(CLASSES))
  files.finish(root, split, ids, problems)
  return files.FileSource(
    info.DatasetInfo('deepglobe', CLASSES, _NAMES[0], _PALETTE),
    split,
    ids,
    labels,
    files.ImageFiles([image_files[key] for key in ids]),
    masks,
  )


class _Masks(files.MaskFiles):
  """Masks by colour, or by index."""

  def read(self, index):
    path = self.files(index)[0]
    mode, _ = images.png_header(path)
    if mode not in ('RGB', 'RGBA'):
      mask = images.read_mask(path)
      return np.where(mask == _VOID_INDEX, types.VOID, mask).astype(np.uint8)
    return decode(images.read_image(path, upright=False))


def decode(colors: np.ndarray) -> np.ndarray:
  """u8[H, W] of the colours u8[H, W, 3] of a mask.

  The challenge asks to cut its masks' channels at 128; a colour of no class then is void.
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
  return {x.name.removesuffix(ending): x for x in sorted(root.glob(f'{folder}/[!.]*{ending}'))}


def _ids(config, root, split, image_files, problems):
  if config.lists:
    return files.own_list(config, split, problems, parse=_parse_id)
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
