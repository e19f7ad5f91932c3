"""Maps that an earlier stage made of a split's images, read beside them as training targets."""

import dataclasses
import enum
import pathlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from pnoc_jax import errors, types
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.io import images, products

Resample = transforms.Resample

_SHOWN = 20  # Problems that a message lists.


class Target(Protocol):
  """One map beside each image of a source, to learn from or to compare with."""

  @property
  def fill(self) -> int:
    """The map's value outside of the image."""
    ...

  @property
  def resample(self) -> Resample:
    """How the map is resized."""
    ...

  def read(self, index: int, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """u8[H, W] of one image; its (H, W) is checked where it is given."""
    ...


class Kind(enum.Enum):
  """What a map's file holds.

  Attributes:
    LABELS: PNG of class indices: 0 background, k+1 class k, 255 void.
    GREY: 8-bit grey PNG, 0..255 for 0..1.
    HINTS: a prior, of which the largest of its classes' maps is taken.
  """

  LABELS = 'labels'
  GREY = 'grey'
  HINTS = 'hints'


@dataclasses.dataclass(frozen=True)
class Maps:
  """One map an image of a split; picklable, and nothing is read before it is asked for.

  Attributes:
    paths: of the files, in the order of the source's ids.
    kind: what they hold.
    num_classes: K, foreground classes; of LABELS and HINTS.
    fill: the map's value outside of the image.
    resample: how the map is resized.
  """

  paths: tuple[pathlib.Path, ...]
  kind: Kind
  num_classes: int
  fill: int
  resample: Resample

  def __len__(self) -> int:
    return len(self.paths)

  def read(self, index: int, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """u8[H, W] of one image.

    Args:
      index: of the image in its source.
      size: the image's (H, W), to be checked against the map.

    Raises:
      UserError: the file is missing, cut short, foreign or of another image; the message names it.
    """
    path = self.paths[index]
    if self.kind is Kind.HINTS:
      prior = products.read_prior(path, size=size, num_classes=self.num_classes, arrays=('high',))
      return np.round(prior.high.max(0).astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
    array = images.read_mask(path)
    if size is not None and array.shape != tuple(size):
      raise errors.UserError(f'{path}: {_other_size(array.shape, size)}')
    if self.kind is Kind.LABELS:
      wrong = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
      wrong = [int(x) for x in wrong if self.num_classes < x < types.VOID]
      if wrong:
        raise errors.UserError(
          f'{path}: the map has the values {wrong}, expected 0 to {self.num_classes} and '
          f'{types.VOID} (void); it is of another list of classes'
        )
    return array


def label_maps(source: info.Source, directory: pathlib.Path, *, num_classes: int) -> Maps:
  """Class indices `<directory>/<id>.png`: affinity labels, pseudo masks.

  Args:
    source: the split.
    directory: the stage's directory of this split.
    num_classes: K, without the background.
  """
  paths = _paths(source, directory, '.png')
  return Maps(paths, Kind.LABELS, num_classes, types.VOID, Resample.NEAREST)


def grey_maps(source: info.Source, directory: pathlib.Path) -> Maps:
  """Grey values `<directory>/<id>.png`: saliency; 0 outside of the image.

  Args:
    source: the split.
    directory: the stage's directory of this split.
  """
  paths = _paths(source, directory, '.png')
  return Maps(paths, Kind.GREY, source.info.num_classes, 0, Resample.BILINEAR)


def prior_hints(source: info.Source, directory: pathlib.Path) -> Maps:
  """Hints of saliency `round(255 * max_k high_k)` of the priors `<directory>/<id>.npz`.

  Images without a label have no prior. 0 outside of the image.

  Args:
    source: the split.
    directory: the priors' directory of this split.
  """
  paths = _paths(source, directory, '.npz')
  return Maps(paths, Kind.HINTS, source.info.num_classes, 0, Resample.BILINEAR)


@dataclasses.dataclass(frozen=True)
class TrueMasks:
  """The masks of the data set itself, read as `Maps` are.

  Attributes:
    source: the split.
    fill: the mask's value outside of the image.
    resample: how the mask is resized.
  """

  source: info.Source
  fill: int = types.VOID
  resample: Resample = Resample.NEAREST

  def __len__(self) -> int:
    return len(self.source)

  def read(self, index: int, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """u8[H, W] of one image.

    Args:
      index: of the image in its source.
      size: the image's (H, W), to be checked against the mask.

    Raises:
      UserError: the image has no mask, one of another size, or one of values that are no class.
    """
    mask, name = self.source.mask(index), self.source.ids[index]
    if mask is None:
      raise errors.UserError(f'{self.source.split}: the image {name} has no mask')
    if size is not None and mask.shape != tuple(size):
      where = info.place(self.source, index)
      raise errors.UserError(f'{where}: the mask of {name}: {_other_size(mask.shape, size)}')
    info.check_mask(self.source, index, mask)
    return mask


def true_masks(source: info.Source) -> TrueMasks:
  """The source's own masks, to learn from what an earlier stage would have to guess."""
  return TrueMasks(source)


def _paths(source: info.Source, directory: pathlib.Path, suffix: str) -> tuple[pathlib.Path, ...]:
  return tuple(pathlib.Path(directory) / f'{name}{suffix}' for name in source.ids)


def check(maps: Maps, source: info.Source, indices: Iterable[int]) -> None:
  """Refuses maps that do not fit their images; reads headers only.

  Args:
    maps: of the source.
    source: the images.
    indices: of the images whose maps are needed.

  Raises:
    UserError: files are missing, cut short, foreign, of another size or of other classes; the
      message lists up to 20.
  """
  problems = []
  for index in indices:
    what = _fault(maps, index, source)
    if what:
      problems.append(f'{maps.paths[index].name}: {what}')
  if problems:
    directory = maps.paths[0].parent
    count = 'a map' if len(problems) == 1 else f'{len(problems)} maps'
    more = [f'... and {len(problems) - _SHOWN} more'] if len(problems) > _SHOWN else []
    raise errors.UserError(
      f'{count} in {directory} cannot be used:\n  '
      + '\n  '.join(problems[:_SHOWN] + more)
      + f'\nThey are made by the stage that writes {directory.parent}: run it again '
      '(--rerun if its images have changed).'
    )


def _fault(maps: Maps, index: int, source: info.Source) -> str | None:
  """What is wrong with one file, or None."""
  path, size = maps.paths[index], source.size(index)
  if not path.is_file():
    return 'missing'
  try:
    if maps.kind is Kind.HINTS:
      present = (np.flatnonzero(source.labels[index]) + 1).tolist()
      return _prior_fault(path, size, maps.num_classes, present)
    mode, found = images.png_header(path)
  except errors.UserError as error:
    return str(error).removeprefix(f'{path}: ')
  expected = ('L',) if maps.kind is Kind.GREY else ('P', 'L', '1')
  if mode not in expected:
    return f'a PNG of mode {mode}, expected {" or ".join(expected)}'
  return None if found == tuple(size) else _other_size(found, size)


def _prior_fault(
  path: pathlib.Path, size: tuple[int, int], num_classes: int, present: list[int]
) -> str | None:
  try:
    prior = products.read_prior(path, arrays=())
  except errors.UserError:
    return 'cut short or not a prior'
  if len(prior.logits) != num_classes:
    return f'a prior of {len(prior.logits)} classes, but the data set has {num_classes}'
  if prior.high.shape[1:] != tuple(size):
    return _other_size(prior.high.shape[1:], size)
  keys = prior.keys.tolist()
  if keys != [0, *present]:
    return f'a prior of the labels {keys}, expected 0 and the classes of its image, {present}'
  return None


def _other_size(found: tuple[int, ...], size: tuple[int, int]) -> str:
  return f'{found[1]}x{found[0]} px, but its image is {size[1]}x{size[0]}'
