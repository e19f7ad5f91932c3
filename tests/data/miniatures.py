"""Writes small data sets in the layouts of the public ones."""

import json
import pathlib

import numpy as np
from PIL import Image

from pnoc_jax import types
from pnoc_jax.data import info
from pnoc_jax.data.readers import coco
from pnoc_jax.io import images

VOC_VOID = (224, 224, 192)


def picture(path: pathlib.Path, size: tuple[int, int], seed: int = 0) -> np.ndarray:
  """Writes noise of a (H, W) as JPEG or PNG, by the suffix; returns what a reader sees."""
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
  return np.asarray(Image.open(path).convert('RGB'))


def paint(size: tuple[int, int], *boxes: tuple[int, int, int, int, int]) -> np.ndarray:
  """u8[H, W] of boxes (value, y0, x0, y1, x1) on 0, the later over the earlier."""
  mask = np.zeros(size, np.uint8)
  for value, y0, x0, y1, x1 in boxes:
    mask[y0:y1, x0:x1] = value
  return mask


def colored(mask: np.ndarray, palette, void) -> np.ndarray:
  """u8[H, W, 3]: a mask of indices as colours."""
  table = np.zeros((256, 3), np.uint8)
  table[: len(palette)] = palette
  table[types.VOID] = void
  return table[mask]


# id -> (objects: (name, xmin, ymin, xmax, ymax), SegmentationClass index, 0 for no mask)
_VOC = {
  '2007_000001': ([('cat', 5, 5, 20, 18)], 8),
  '2007_000002': ([('person', 1, 1, 30, 20), ('person', 3, 3, 9, 9)], 15),
  '2008_000003': ([('dog', 2, 2, 9, 9), ('tvmonitor', 10, 4, 30, 20)], 12),
  # Beyond the image, and without width: neither counts.
  '2008_000004': (
    [('sheep', 1, 1, 9, 9), ('train', 31, 2, 44, 9), ('bus', 5, 5, 5, 9), ('boat', 4.6, 2, 8.2, 7)],
    0,
  ),
  '2009_000005': ([('aeroplane', 1, 1, 9, 9)], 0),
}
VOC_SPLITS = {'train': ('2007_000001', '2007_000002'), 'val': ('2008_000003',)}


def write_voc(root: pathlib.Path, *, aug_colors: bool = False) -> pathlib.Path:
  """VOCdevkit/VOC2012 with 5 images of 20x30 px, of which SBD adds the last two."""
  home = root / 'VOCdevkit' / 'VOC2012'
  for name in ('Annotations', 'SegmentationClass', 'SegmentationClassAug'):
    (home / name).mkdir(parents=True)
  palette = info.color_map(21)
  for i, (key, (objects, index)) in enumerate(_VOC.items()):
    picture(home / 'JPEGImages' / f'{key}.jpg', (20, 30), i)
    (home / 'Annotations' / f'{key}.xml').write_text(_annotation(objects))
    number = index or 17
    mask = paint((20, 30), (255, 4, 4, 12, 12), (number, 5, 5, 11, 11))
    if index:
      images.write_png(home / 'SegmentationClass' / f'{key}.png', mask, palette=np.array(palette))
    # SBD has masks of VOC's images too, without void.
    mask = paint((20, 30), (number, 4, 4, 12, 12))
    mask = colored(mask, palette, VOC_VOID) if aug_colors else mask
    images.write_png(home / 'SegmentationClassAug' / f'{key}.png', mask)
  for split, ids in VOC_SPLITS.items():
    path = home / 'ImageSets' / 'Segmentation' / f'{split}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(ids) + '\n')
  return root


def _annotation(objects):
  entries = ''.join(
    f'<object><name>{name}</name><difficult>1</difficult><bndbox><xmin>{x0}</xmin>'
    f'<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>'
    '<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>'
    '</bndbox></part></object>'
    for name, x0, y0, x1, y1 in objects
  )
  return (
    '<annotation><folder>VOC2012</folder><size><width>30</width><height>20</height>'
    f'<depth>3</depth></size><segmented>1</segmented>{entries}</annotation>'
  )


# Official ids of COCO's 80 categories: 1..90 without these.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_CATEGORIES = tuple(i for i in range(1, 91) if i not in _COCO_GAPS)
COCO_SIZE = (20, 30)


def write_coco(root: pathlib.Path) -> pathlib.Path:
  """COCO 2014 with three training images, the second without annotations, and one to validate."""
  (root / 'annotations').mkdir(parents=True)
  square = [4.0, 4.0, 16.0, 4.0, 16.0, 14.0, 4.0, 14.0]
  small = [[6.0, 6.0, 10.0, 6.0, 10.0, 10.0, 6.0, 10.0], [20.0, 2.0, 26.0, 2.0, 26.0, 8.0]]
  crowd = paint(COCO_SIZE, (1, 15, 0, 20, 30))
  train = [
    # The small one first: it still lies on the large one.
    (9, 58, small, 0),  # hot dog, in two parts
    (9, 67, [square], 0),  # dining table
    (9, 1, {'size': list(COCO_SIZE), 'counts': _runs(crowd)}, 1),  # a crowd of persons
    (77, 90, {'size': list(COCO_SIZE), 'counts': _runs(paint(COCO_SIZE, (1, 0, 0, 2, 2)))}, 0),
  ]
  for part, numbers, annotations in (
    ('train2014', (9, 25, 77), train),
    ('val2014', (42,), [(42, 18, [square], 0)]),
  ):
    images_there = []
    for number in numbers:
      name = f'COCO_{part}_{number:012d}.jpg'
      picture(root / part / name, COCO_SIZE, number)
      images_there.append(
        {'id': number, 'file_name': name, 'height': COCO_SIZE[0], 'width': COCO_SIZE[1]}
      )
    content = {
      'info': {'year': 2014},
      'images': images_there[::-1],
      'annotations': [
        {'id': i, 'image_id': image, 'category_id': category, 'segmentation': x, 'iscrowd': c}
        for i, (image, category, x, c) in enumerate(annotations)
      ],
      'categories': [
        {'supercategory': 'x', 'id': i, 'name': name}
        for i, name in zip(COCO_CATEGORIES, coco.CLASSES, strict=True)
      ],
    }
    (root / 'annotations' / f'instances_{part}.json').write_text(json.dumps(content))
  return root


def _runs(mask):
  """Lengths of runs down the columns, of 0 first."""
  flat = mask.T.ravel()
  ends = np.flatnonzero(np.diff(flat)) + 1
  runs = np.diff([0, *ends, flat.size]).tolist()
  return runs if flat[0] == 0 else [0, *runs]


CITYSCAPES_SIZE = (16, 32)


def write_cityscapes(root: pathlib.Path) -> pathlib.Path:
  """Cityscapes: two cities to train, one to validate, one of `test` with a void mask."""
  for split, city, number, boxes in (
    ('train', 'aachen', 1, [(13, 4, 4, 8, 8), (0, 8, 0, 16, 32), (255, 0, 0, 2, 2)]),
    ('train', 'aachen', 2, [(10, 0, 0, 4, 32), (2, 4, 0, 8, 32)]),
    ('train', 'bochum', 1, [(18, 1, 1, 3, 3), (3, 5, 5, 9, 9)]),
    ('val', 'munster', 1, [(11, 4, 4, 9, 9)]),
    ('test', 'berlin', 1, [(255, 0, 0, 16, 32)]),
  ):
    key = f'{city}_000000_{number:06d}'
    picture(root / f'leftImg8bit/{split}/{city}/{key}_leftImg8bit.png', CITYSCAPES_SIZE, number)
    path = root / f'gtFine/{split}/{city}/{key}_gtFine_labelTrainIds.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write_png(path, paint(CITYSCAPES_SIZE, *boxes))
  return root


DEEPGLOBE_VOID = (127, 127, 127)
_DEEPGLOBE = {
  '119': [(3, 0, 0, 8, 8), (4, 8, 8, 12, 16)],
  '266': [(1, 0, 0, 4, 16), (255, 12, 0, 16, 16)],
  '606': [(6, 2, 2, 4, 4)],
}


def write_deepglobe(root: pathlib.Path, *, published: bool = False) -> pathlib.Path:
  """DeepGlobe land cover in the reference's layout, or in that of the challenge."""
  for i, (key, boxes) in enumerate(_DEEPGLOBE.items()):
    mask = colored(paint((16, 16), *boxes), deepglobe_palette(), DEEPGLOBE_VOID)
    names = f'train/{key}_sat.jpg', f'train/{key}_mask.png'
    if not published:
      names = f'JPEGImages/{key}.jpg', f'SegmentationClassAug/{key}.png'
    picture(root / names[0], (16, 16), i)
    (root / names[1]).parent.mkdir(parents=True, exist_ok=True)
    images.write_png(root / names[1], mask)
  if not published:
    folder = root / 'ImageSets' / 'Segmentation'
    folder.mkdir(parents=True)
    (folder / 'train75.txt').write_bytes(b'606\r\n119\r\n')
    (folder / 'test.txt').write_text('266\n')
  return root


def deepglobe_palette() -> tuple[tuple[int, int, int], ...]:
  """Agriculture, urban, rangeland, forest, water, barren, unknown."""
  yellow, cyan, magenta = (255, 255, 0), (0, 255, 255), (255, 0, 255)
  return yellow, cyan, magenta, (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def write_hpa(root: pathlib.Path, count: int = 12) -> pathlib.Path:
  """HPA single cells: `count` images of four grey files, classes in turn, two for the first."""
  rows = ['ID,Label']
  for i in range(count):
    for c, channel in enumerate(('red', 'green', 'blue', 'yellow')):
      path = root / 'train' / f'cell{i:02d}_{channel}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      images.write_png(path, np.full((16, 16), 10 * i + c, np.uint8))
    rows.append(f'cell{i:02d},{i}{"|18" if i == 0 else ""}')
  (root / 'train.csv').write_text('\r\n'.join(rows) + '\r\n')
  return root
