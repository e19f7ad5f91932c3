"""Human Protein Atlas, single cells (Kaggle 2021): images of four channels, labels without masks.

  train.csv                                     ID,Label   the label `8|5|0`: classes by number
  publichpa.csv                                 optional: more of it, same columns
  train/<id>_{red,green,blue,yellow}.png        or .jpg; or in images/ or publichpa/
  <split>.txt in `dataset.lists`                ids, one a line

Without lists `val` is a tenth of the ids and `train` the others, the same ones on every machine.
The reference draws a tenth too, but another one. There are no masks.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import deep, info
from pnoc_jax.data.readers import files, lists
from pnoc_jax.io import images, ranges

CLASSES = (
  'Nucleoplasm',
  'Nuclear membrane',
  'Nucleoli',
  'Nucleoli fibrillar center',
  'Nuclear speckles',
  'Nuclear bodies',
  'Endoplasmic reticulum',
  'Golgi',
  'Intermediate filaments',
  'Actin filaments',
  'Microtubules',
  'Mitotic spindle',
  'Centrosome',
  'Plasma membrane',
  'Mitochondria',
  'Aggresome',
  'Cytosol',
  'Vesicles',
  'Negative',
)
# An image's channels show microtubules, the protein, the nucleus, the endoplasmic reticulum.
CHANNELS = ('red', 'green', 'blue', 'yellow')

_TABLES = ('train.csv', 'publichpa.csv')
_FOLDERS = ('train', 'images', 'publichpa', 'test')
_SUFFIXES = ('.png', '.jpg')
_NAMES = ('background', *CLASSES)
_VAL_SHARE = 0.1
_VAL_SEED = 1838339744  # The reference's number.


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; `sources.open_source` documents the arguments."""
  root = files.find_root(config, ('train.csv', *_FOLDERS), ('hpa-single-cell',))
  problems = []
  table = {}
  for name in _TABLES:
    if (root / name).is_file():
      _read_table(root / name, table, problems)
  if config.lists:
    ids = lists.own_list(config, split, problems)
  else:
    ids = _draw(sorted(table), split, problems)
  ids = [x for x in ids if x not in exclude]
  if config.labels:
    labels = lists.own_labels(config, ids, _NAMES, problems)
  else:
    problems += [
      f'no row for the id {x!r} in {" or ".join(_TABLES)}' for x in ids if x not in table
    ]
    labels = np.array([table.get(x, np.zeros(len(CLASSES))) for x in ids], np.float32)
  paths = _find(root, ids, problems)
  white, said = deep.find_range([x for channels in paths for x in channels if x], problems)
  files.finish(root, split, ids, problems)
  # Like its pretrained filters, the fourth channel's numbers are those of the first.
  return files.FileSource(
    info.DatasetInfo(
      'hpa',
      CLASSES,
      _NAMES[0],
      info.color_map(len(_NAMES)),
      mean=(*info.IMAGENET_MEAN, info.IMAGENET_MEAN[0]),
      std=(*info.IMAGENET_STD, info.IMAGENET_STD[0]),
    ),
    split,
    ids,
    labels,
    ChannelFiles(paths, white=white),
    remarks=said,
  )


class ChannelFiles:
  """Images that have one file for each channel."""

  def __init__(
    self, paths: Sequence[tuple[pathlib.Path, ...]], *, white: ranges.Range | None = None
  ):
    """Keeps the paths of each id's channels, in the order of the ids, and their range."""
    self._paths, self.white = tuple(paths), white

  def read(self, index: int) -> np.ndarray:
    """u8[H, W, 4]."""
    return read_channels(self._paths[index], white=self.white)

  def size(self, index: int) -> tuple[int, int]:
    """(H, W) of the first channel."""
    return images.image_size(self._paths[index][0], upright=False)

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The four files."""
    return self._paths[index]


def read_channels(
  files: Sequence[pathlib.Path | bytes], *, white: ranges.Range | None = None
) -> np.ndarray:
  """u8[H, W, 4] of the four files of an image; `white` is the range of files of more than 8 bits.

  Raises:
    UserError: a file is broken, or of another size than the first.
  """
  # The public images show a channel in its colour; the others are grey.
  channels = [images.read_image(file, upright=False, white=white).max(-1) for file in files]
  for file, channel, name in zip(files, channels, CHANNELS, strict=True):
    if channel.shape != channels[0].shape:
      raise errors.UserError(
        f'{name if isinstance(file, bytes) else file}: {channel.shape[1]}x{channel.shape[0]} px, '
        f'but the first channel has {channels[0].shape[1]}x{channels[0].shape[0]}'
      )
  return np.stack(channels, -1)


def _read_table(path, table, problems):
  rows = lists.read_table(path, problems)
  columns = rows[0][1] if rows else None
  if columns is None or not {'ID', 'Label'} <= set(columns):
    problems.append(f'{path.name}: its columns are {columns}, expected ID and Label')
    return
  numbers = {str(k): k for k in range(len(CLASSES))}
  for line, cells in rows[1:]:
    row = dict(zip(columns, cells))
    label = np.zeros(len(CLASSES), np.float32)
    for text in row.get('Label', '').split('|'):
      if text.strip() not in numbers:
        problems.append(
          f'{path.name}, line {line}: the label {row.get("Label")!r} is not of numbers 0 to '
          f'{len(CLASSES) - 1} with | between'
        )
        break
      label[numbers[text.strip()]] = 1
    key = row['ID'].strip()
    if not np.array_equal(table.setdefault(key, label), label):
      problems.append(
        f'{path.name}, line {line}: the id {key!r} has a row of other labels already, '
        f'here or in {" or ".join(_TABLES)}; keep one'
      )


def _draw(ids, split, problems):
  if split not in ('train', 'val'):
    problems.append(
      f'there is no split {split!r}: known are train and val, and those of lists in a folder named '
      'with --config.dataset.lists=DIR'
    )
    return []
  if not ids:
    problems.append(f'{_TABLES[0]} has no rows')
  # Differs from the reference: another tenth of the images validates; because its draw is not known
  # as ids.
  order = np.random.default_rng(_VAL_SEED).permutation(len(ids))
  count = int(np.ceil(len(ids) * _VAL_SHARE))
  return [ids[i] for i in sorted(order[:count] if split == 'val' else order[count:])]


def _find(root, ids, problems):
  """Paths of each id's channels; a missing one is a problem."""
  there = {}
  for folder in _FOLDERS:
    there.update({name: root / folder / name for name in files.names_in(root / folder)})
  found = []
  for key in ids:
    names = [[f'{key}_{x}{suffix}' for suffix in _SUFFIXES] for x in CHANNELS]
    paths = [next((there[x] for x in either if x in there), None) for either in names]
    missing = [x for x, path in zip(CHANNELS, paths, strict=True) if path is None]
    if missing:
      problems.append(f'the id {key!r} has no image of {", ".join(missing)}')
    found.append(tuple(paths))
  return found
