"""Bring your own data: a folder of images, a table of labels, lists of ids, and optional masks.

  classes.txt          one class a line, the background first
  image_labels.csv     header `id,labels`; labels are class names separated by spaces, and a space
                       within a name is written as `_`
  splits/<split>.txt   ids, one a line
  images/<id>.jpg      or .jpeg, .png, .bmp, .tif, .tiff, .webp; shown upright if EXIF says so
  masks/<id>.png       optional: palette or grey PNG of indices, 0 background, 255 void, as upright

Opening a folder reads the lists and the names of the files, not the images: `checks` reads these.
"""

import collections

import numpy as np

from pnoc_jax import errors, types
from pnoc_jax.data import deep, info
from pnoc_jax.data.readers import files, lists, remarks

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; arguments and errors are those of `FolderSource`."""
  return FolderSource(config.root, split, exclude=exclude)


class FolderSource(files.FileSource):
  """Random access to one split of a folder."""

  def __init__(self, root: str, split: str, *, exclude: frozenset[str] = frozenset()):
    """Reads the lists.

    Args:
      root: the folder.
      split: name of a file in `splits/`, without `.txt`.
      exclude: ids to leave out.

    Raises:
      UserError: something is missing or does not fit; the message lists up to 20 problems.
    """
    home = files.check_root(root, 'folder')
    if problems := _missing(home, split):
      raise errors.UserError(lists.describe(home, problems))
    names = _read_classes(home / 'classes.txt', problems)
    table = lists.read_labels(home / 'image_labels.csv', names, problems)
    ids = [x for x in _read_split(home, split, table, problems) if x not in exclude]
    images = _find_images(home / 'images', ids, problems)
    pngs = [x for x in files.names_in(home / 'masks') if x.endswith('.png')]
    found = {
      key.removesuffix('.png'): home / 'masks' / name for key, name in files.composed(pngs).items()
    }
    masks = files.find_masks(found, ids, 'masks', problems)
    if not ids:
      problems.append(f'splits/{split}.txt: no ids are left')
    white, said = deep.find_range(images, problems)
    files.finish(home, split, ids, problems)
    super().__init__(
      info.DatasetInfo(
        name=home.resolve().name,
        classes=tuple(names[1:]),
        background=names[0],
        palette=info.color_map(len(names)),
      ),
      split,
      ids,
      np.stack([table[x] for x in ids]),
      files.ImageFiles(images, upright=True, white=white),
      None if masks is None else files.MaskFiles(masks),
      said + ([] if masks else remarks.unused_masks(home, ids, 'masks/<id>.png')),
    )


def _missing(root, split):
  needed = ('classes.txt', 'image_labels.csv', f'splits/{split}.txt', 'images')
  missing = [f'{name} is missing' for name in needed if not (root / name).exists()]
  if not (root / needed[2]).exists():
    found = ', '.join(sorted(x.stem for x in (root / 'splits').glob('*.txt')))
    missing[missing.index(f'{needed[2]} is missing')] += f' (splits found: {found or "none"})'
  return missing


def _read_classes(path, problems):
  names = [line.strip() for line in lists.read_lines(path, problems) if line.strip()]
  for name, count in collections.Counter(names).items():
    if count > 1:
      problems.append(f'classes.txt: {name!r} is given {count} times')
  written = collections.Counter(lists.written(name) for name in set(names))
  for name in names:
    if written[lists.written(name)] > 1:
      problems.append(f'classes.txt: {name!r} is written in labels as another class is; rename it')
  if not 2 <= len(names) <= types.VOID:
    problems.append(
      f'classes.txt: {len(names)} names; give the background first, then 1 to 254 classes'
    )
  return names


def _read_split(root, split, table, problems):
  file = f'splits/{split}.txt'
  ids = lists.read_ids(root / file, file, problems)
  for key in dict.fromkeys(ids):
    if key not in table:
      problems.append(f'{file}: the id {key!r} has no row in image_labels.csv')
  return ids


def _find_images(folder, ids, problems):
  found = collections.defaultdict(list)
  for path in folder.iterdir():
    if path.suffix.lower() in SUFFIXES:
      found[files.compose(path.stem)].append(path)
  for key in ids:
    if key not in found:
      problems.append(f'images/: no image for the id {key!r} ({", ".join(SUFFIXES)})')
    elif len(found[key]) > 1:
      several = ', '.join(sorted(x.name for x in found[key]))
      problems.append(f'images/: several images for the id {key!r}: {several}; keep one')
  return [path for key in ids for path in found[key][:1]]
