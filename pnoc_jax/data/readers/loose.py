"""Images without labels, in files or in memory: what a trained network is used on."""

import collections
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, ranges

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm')
UNREAD = (
  *('.heic', '.heif', '.avif', '.jxl', '.jp2', '.svg', '.psd'),
  *('.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.raf', '.rw2'),
)
"""Of photographs in formats that are not read; telephones and cameras write them."""


def find(path: str | os.PathLike) -> list[tuple[str, pathlib.Path]]:
  """Finds the image files at a path, and names them.

  Args:
    path: an image, or a directory, which is searched with all directories below it.

  Returns:
    (name, file) by ascending name. A name is the path below the directory without its suffix, or
    with it where two files would have one name. Hidden files and all in hidden directories, e.g.
    `.ipynb_checkpoints/`, are left out; linked directories are searched like others.

  Raises:
    UserError: there is nothing at the path, or no file that is named as an image.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return [(path.stem, path)]
  if not path.is_dir():
    raise UserError(f'{path}: no such file or directory')
  files = [file for file in _walk(path) if file.suffix.lower() in SUFFIXES]
  files = {file.relative_to(path).as_posix(): file for file in files if not file.is_dir()}
  if not files:
    others = unread(path)
    convert = f'; convert {others[0].name} and the like' if others else ''
    raise UserError(f'{path} holds no image: none of {", ".join(SUFFIXES)}{convert}')
  stems = {name: name.removesuffix(file.suffix) for name, file in files.items()}
  claims = collections.Counter([*files, *stems.values()])
  named = ((name if claims[stems[name]] > 1 else stems[name], x) for name, x in files.items())
  return sorted(named)


def unread(path: str | os.PathLike) -> list[pathlib.Path]:
  """The photographs at a path that `find` passes over, because their format is not read."""
  path = pathlib.Path(path)
  return [x for x in _walk(path) if x.suffix.lower() in UNREAD] if path.is_dir() else []


def _walk(folder: pathlib.Path, above: frozenset[pathlib.Path] = frozenset()) -> list[pathlib.Path]:
  """All files that are not hidden; a link that leads back to a folder above is not followed."""
  here = folder.resolve()
  if here in above:
    return []
  try:
    entries = sorted(folder.iterdir())
  except OSError as error:
    raise UserError(f'{folder}: this directory cannot be read ({error.strerror})') from error
  found = []
  for path in entries:
    if not path.name.startswith('.'):
      found += _walk(path, above | {here}) if path.is_dir() else [path]
  return found


class LooseImages:
  """Files as a `Source` without labels and masks; large images are reduced.

  Attributes:
    info: classes and normalisation of the network.
    split: empty.
    ids: the names.
    labels: f32[N, K], zeros.
    has_masks: False.
  """

  def __init__(
    self,
    files: Iterable[tuple[str, pathlib.Path]],
    dataset: info.DatasetInfo,
    *,
    max_side: int,
    white: ranges.Range | None = None,
  ):
    """Reads the headers.

    Args:
      files: (name, file) of images that can be read.
      dataset: the network's classes and normalisation.
      max_side: the longest side of an example in pixels; larger images are reduced to it.
      white: the range of images of more than 8 bits; by default each has its own.

    Raises:
      UserError: a file is no image; the message names it.
    """
    self.info, self.split, self.has_masks = dataset, '', False
    self.ids, self._files = zip(*files, strict=True)
    self.labels = np.zeros((len(self.ids), dataset.num_classes), np.float32)
    self._max_side, self._white = max_side, white
    self._sizes = [self._fitted(self.original_size(i)) for i in range(len(self.ids))]

  def __len__(self) -> int:
    return len(self.ids)

  def example(self, index: int) -> dict[str, np.ndarray]:
    """{'image': u8[H, W, 3], 'label': f32[K], 'index': i32[]}."""
    image = self.original(index)
    if image.shape[:2] != self._sizes[index]:
      image = images.resize_bicubic(image, self._sizes[index])
    return info.make_example(image, self.labels, index)

  def original(self, index: int) -> np.ndarray:
    """u8[H, W, 3], in the file's own size."""
    return images.read_image(self._files[index], white=self._white)

  def original_size(self, index: int) -> tuple[int, int]:
    """(H, W) of the file."""
    return images.image_size(self._files[index])

  def mask(self, index: int) -> None:
    """There is none."""

  def size(self, index: int) -> tuple[int, int]:
    """(H, W) of the example."""
    return self._sizes[index]

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The image."""
    return (self._files[index],)

  def _fitted(self, size: tuple[int, int]) -> tuple[int, int]:
    longest = max(size)
    if longest <= self._max_side:
      return size
    height, width = (max(round(n * self._max_side / longest), 1) for n in size)
    return height, width


class ImageArrays:
  """Arrays as a `Source` without labels and masks.

  Attributes:
    info: classes and normalisation of the network.
    split: empty.
    ids: the positions, as texts.
    labels: f32[N, K], zeros.
    has_masks: False.
  """

  def __init__(self, arrays: Sequence[np.ndarray], dataset: info.DatasetInfo):
    """Takes u8[H, W, C] of any sizes; raises a ValueError for any other array."""
    channels = len(dataset.mean)
    for array in arrays:
      if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise ValueError(
          f'image is {array.dtype}{list(array.shape)}, expected uint8[H, W, {channels}]'
        )
    self.info, self.split, self.has_masks = dataset, '', False
    self.ids = tuple(map(str, range(len(arrays))))
    self.labels = np.zeros((len(arrays), dataset.num_classes), np.float32)
    self._arrays = arrays

  def __len__(self) -> int:
    return len(self.ids)

  def example(self, index: int) -> dict[str, np.ndarray]:
    """{'image': u8[H, W, C], 'label': f32[K], 'index': i32[]}."""
    return {'image': self._arrays[index], 'label': self.labels[index], 'index': np.array(index)}

  def mask(self, index: int) -> None:
    """There is none."""

  def size(self, index: int) -> tuple[int, int]:
    """(H, W) of the example."""
    height, width = self._arrays[index].shape[:2]
    return height, width

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """There are none."""
    return ()
