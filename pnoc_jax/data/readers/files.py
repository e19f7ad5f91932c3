"""A split whose images and masks are files, and the steps that the readers of such splits share."""

import pathlib
import pickle
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Protocol

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import cache, info
from pnoc_jax.data.readers import lists
from pnoc_jax.io import images, ranges


class Masks(Protocol):
  """The masks of a split, by their places in its ids."""

  def read(self, index: int) -> np.ndarray:
    """u8[H, W]: 0 background, k+1 class k, 255 void."""
    ...

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The files that are read; messages about a mask name the last one."""
    ...


class Images(Protocol):
  """The images of a split, by their places in its ids."""

  def read(self, index: int) -> np.ndarray:
    """u8[H, W, channels]."""
    ...

  def size(self, index: int) -> tuple[int, int]:
    """(H, W), from the header."""
    ...

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The files that are read."""
    ...


class FileSource:
  """Random access to one split; `info.Source` documents attributes and methods."""

  def __init__(
    self,
    dataset: info.DatasetInfo,
    split: str,
    ids: Sequence[str],
    labels: np.ndarray,
    images: Images,
    masks: Masks | None = None,
    remarks: Sequence[str] = (),
  ):
    """Keeps its arguments.

    Args:
      dataset: the description.
      split: the split's name.
      ids: N unique names.
      labels: f32[N, K].
      images: the images in the order of the ids.
      masks: the masks in the order of the ids, or None.
      remarks: what a person should know about the split, e.g. of files that are not used.
    """
    self.remarks = tuple(remarks)
    self.info, self.split, self.ids, self.labels = dataset, split, tuple(ids), labels
    self.has_masks = masks is not None
    self.white: ranges.Range | None = getattr(images, 'white', None)
    self._images, self._masks, self._sizes = images, masks, {}

  def __getstate__(self) -> dict[str, bytes]:
    # Each process that loads data is handed a copy: labels are mostly zeros, and paths alike.
    return {'packed': zlib.compress(pickle.dumps({**vars(self), '_sizes': {}}), level=1)}

  def __setstate__(self, state: dict[str, bytes]) -> None:
    vars(self).update(pickle.loads(zlib.decompress(state['packed'])))

  def __len__(self) -> int:
    return len(self.ids)

  def example(self, index: int) -> dict[str, np.ndarray]:
    """{'image': u8[H, W, channels], 'label': f32[K], 'index': i32[]}."""
    return info.make_example(self._images.read(index), self.labels, index)

  def mask(self, index: int) -> np.ndarray | None:
    """u8[H, W], or None."""
    return None if self._masks is None else self._masks.read(index)

  def size(self, index: int) -> tuple[int, int]:
    """(H, W)."""
    if index not in self._sizes:
      self._sizes[index] = self._images.size(index)
    return self._sizes[index]

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The image's files, then the mask's."""
    masks = () if self._masks is None else self._masks.files(index)
    return (*self._images.files(index), *masks)


class ImageFiles:
  """Images of one file each."""

  def __init__(
    self,
    paths: Sequence[pathlib.Path],
    *,
    upright: bool = False,
    white: ranges.Range | None = None,
    sizes: np.ndarray | None = None,
  ):
    """Keeps its arguments.

    Args:
      paths: the files in the order of the ids.
      upright: whether images are turned as EXIF says. The masks of the public data sets lie on the
        pixels as they are stored.
      white: the range of those of more than 8 bits, as `deep.find_range` finds it.
      sizes: i32[N, 2] (H, W) where they are known; headers are read where they are not.
    """
    self._paths, self._upright, self.white, self._known = tuple(paths), upright, white, sizes

  def read(self, index: int) -> np.ndarray:
    """u8[H, W, 3]."""
    return images.read_image(self._paths[index], upright=self._upright, white=self.white)

  def size(self, index: int) -> tuple[int, int]:
    """(H, W)."""
    if self._known is not None:
      height, width = self._known[index].tolist()
      return height, width
    return images.image_size(self._paths[index], upright=self._upright)

  def files(self, index: int) -> tuple[pathlib.Path]:
    """The file."""
    return (self._paths[index],)


class MaskFiles:
  """Masks of one PNG each, which holds class indices or colours."""

  def __init__(
    self,
    paths: Sequence[pathlib.Path],
    *,
    colors: Mapping[tuple[int, int, int], int] | None = None,
    indices: np.ndarray | None = None,
  ):
    """Keeps its arguments.

    Args:
      paths: the files in the order of the ids.
      colors: {(R, G, B): index} of masks that were saved as colours.
      indices: u8[256], the class index that each stored value stands for; None if the values are
        class indices.
    """
    self._paths, self._colors, self._indices = tuple(paths), colors, indices

  def read(self, index: int) -> np.ndarray:
    """u8[H, W]."""
    mask = images.read_mask(self._paths[index], colors=self._colors)
    return mask if self._indices is None else self._indices[mask]

  def files(self, index: int) -> tuple[pathlib.Path]:
    """The file."""
    return (self._paths[index],)


def check_root(root: str, name: str) -> pathlib.Path:
  """The directory `dataset.root` of the data set called `name`.

  Raises:
    UserError: it is empty, or there is no such directory.
  """
  if not root:
    problems = ['dataset.root is empty: set it to the folder (--config.dataset.root=DIR)']
    raise errors.UserError(lists.describe(name, problems))
  path = pathlib.Path(root).expanduser()
  if not path.is_dir():
    problems = [f'there is no such folder as {root}: check dataset.root']
    raise errors.UserError(lists.describe(root, problems))
  return path


def find_root(
  config: info.DatasetConfig, marks: Sequence[str], places: Sequence[str]
) -> pathlib.Path:
  """The directory that holds a data set: `dataset.root`, or a directory below it.

  Args:
    config: has the root.
    marks: names of which one at least is in the directory.
    places: the directories below the root that are looked at after the root.

  Raises:
    UserError: the root is empty or not there, or nothing in it looks like the data set.
  """
  root = check_root(config.root, config.name)
  for place in (root, *(root / x for x in places)):
    if any((place / mark).exists() for mark in marks):
      return place
  looked = ', '.join(f'{x}/' for x in ('.', *places))
  problems = [f'{" or ".join(marks)} not found in {looked}: is this a {config.name}?']
  raise errors.UserError(lists.describe(config.root, problems))


def labels_of_masks(
  masks: Masks, count: int, num_classes: int, *, skip: bool = False, threads: int = 4
) -> np.ndarray:
  """The classes that each mask shows; the masks are read once, then the cache has the labels.

  Args:
    masks: the masks of N ids.
    count: N.
    num_classes: K.
    skip: give an image whose mask cannot be read no label, with a warning; the check before a run
      leaves it out.
    threads: how many threads decode.

  Returns:
    f32[N, K].

  Raises:
    UserError: a mask cannot be read, and `skip` is False.
  """
  broken = []

  def shown(index: int) -> np.ndarray:
    try:
      return np.bincount(masks.read(index).ravel(), minlength=256)[1 : num_classes + 1] > 0
    except errors.UserError as error:
      if not tolerant:
        raise
      broken.append(str(error))
      return np.zeros(num_classes, bool)

  def make() -> dict[str, np.ndarray]:
    with futures.ThreadPoolExecutor(threads) as pool:
      rows = list(pool.map(shown, range(count)))
    return {'labels': np.array(rows, np.float32).reshape(count, num_classes)}

  paths = [path for index in range(count) for path in masks.files(index)]
  tolerant = False
  try:
    found = cache.arrays('labels', paths, (type(masks).__name__, num_classes), make)
  except errors.UserError:
    if not skip:
      raise
    tolerant = True
    found = make()  # The cache holds whole data sets only.
    warnings.warn(
      f'{len(broken)} masks that labels are read from cannot be read, the first: {min(broken)}',
      stacklevel=1,
    )
  return np.array(found['labels'])


def find_labels(
  config: info.DatasetConfig,
  ids: Sequence[str],
  names: Sequence[str],
  masks: Masks | None,
  problems: list[str],
) -> np.ndarray:
  """f32[N, K] of the table `dataset.labels`, else of what the masks show, else zeros.

  Masks are not read where there are problems already. `names` begins with the background.
  """
  if config.labels:
    return lists.own_labels(config, ids, names, problems)
  if masks is None or problems:
    return np.zeros((len(ids), len(names) - 1), np.float32)
  skip = config.on_error is info.OnError.SKIP
  return labels_of_masks(masks, len(ids), len(names) - 1, skip=skip)


def own_masks(
  config: info.DatasetConfig, ids: Sequence[str], problems: list[str]
) -> list[pathlib.Path]:
  """The files `<dataset.masks>/<id>.png`; every id has one."""
  folder = pathlib.Path(config.masks).expanduser()
  there = composed(names_in(folder))
  missing = [key for key in ids if compose(f'{key}.png') not in there]
  if missing:
    problems.append(
      f'{folder} (dataset.masks) lacks the masks of {len(missing)} of {len(ids)} ids, the first is '
      f'{missing[0]}.png'
    )
  return [folder / there.get(compose(f'{key}.png'), f'{key}.png') for key in ids]


def find_masks(
  found: Mapping[str, pathlib.Path], ids: Sequence[str], place: str, problems: list[str]
) -> list[pathlib.Path] | None:
  """The masks of all ids, or None if no id has one; if some ids have none, that is a problem.

  Args:
    found: {id: its mask's file}.
    ids: the ids of the split.
    place: where the masks are, for the message.
    problems: what is wrong is appended here.
  """
  paths = [found[key] for key in ids if key in found]
  if not paths or len(paths) == len(ids):
    return paths or None
  missing = [key for key in ids if key not in found]
  # A metric over a part of a split would pass for one over all of it.
  problems.append(
    f'{place}/: {len(missing)} of {len(ids)} ids have no mask, the first is {missing[0]}: '
    'add them, or list ids with masks in a split of their own'
  )
  return None


def need(
  folder: pathlib.Path, ids: Sequence[str], problems: list[str], *, name: Callable[[str], str]
) -> list[pathlib.Path]:
  """The files `<folder>/<name(id)>`; each missing one is a problem."""
  there = composed(names_in(folder))
  for key in ids:
    if compose(name(key)) not in there:
      problems.append(f'{folder.name}/: {name(key)} is missing')
  return [folder / there.get(compose(name(key)), name(key)) for key in ids]


def names_in(folder: pathlib.Path) -> set[str]:
  """The names of all files in a folder but the hidden ones; none if there is no such folder."""
  if not folder.is_dir():
    return set()
  return {x.name for x in folder.iterdir() if not x.name.startswith('.')}


def composed(names: Iterable[str]) -> dict[str, str]:
  """{name with composed accents: name}; macOS writes an accent apart from its letter."""
  return {compose(name): name for name in names}


def compose(name: str) -> str:
  """The name with each accent composed with its letter."""
  return unicodedata.normalize('NFC', name)


def shown(paths: Iterable[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
  """The paths below a root, sorted, that neither are hidden nor lie in a hidden folder."""
  return sorted(x for x in paths if not any(y[0] == '.' for y in x.relative_to(root).parts))


def finish(root: pathlib.Path, split: str, ids: Sequence[str], problems: list[str]) -> None:
  """Raises UserError with the problems that were collected; a split without ids is a problem."""
  if not ids and not problems:
    problems.append(f'the split {split!r} has no images')
  if problems:
    raise errors.UserError(lists.describe(root, problems))
