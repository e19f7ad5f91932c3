"""What label maps are made from: scores of an image's classes and its saliency, strictly read."""

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import joins
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products

# Files that a message names.
_SHOWN = 20


class Scores(enum.Enum):
  """Whose scores of the present classes; the values are stages' names.

  Attributes:
    PRIORS: the generator's maps, each over its own maximum.
    RANDOM_WALK: the same after the walk, all over one maximum.
  """

  PRIORS = 'priors'
  RANDOM_WALK = 'random_walk'


class Saliency(enum.Enum):
  """Whose saliency.

  Attributes:
    NONE: nobody's; thresholds alone tell the background.
    PRIORS: the masks of C2AM, 0 or 1.
    NETWORK: the saliency network's maps.
  """

  NONE = 'none'
  PRIORS = 'priors'
  NETWORK = 'network'

  @property
  def stages(self) -> tuple[str, ...]:
    """Name of the stage that makes it, or nothing."""
    return {'none': (), 'priors': ('saliency_priors',), 'network': ('saliency',)}[self.value]


class Evidence:
  """The scores and the saliency of a split's images."""

  def __init__(
    self, source: info.Source, inputs: Mapping[str, Path], *, scores: Scores, saliency: Saliency
  ):
    """Notes where the files are; reads none.

    Args:
      source: the split.
      inputs: directories of the stages; `check` passes over those that are not there yet.
      scores: whose scores.
      saliency: whose saliency.
    """
    self.source = source
    split = source.split
    self._kind = scores
    self._scores = inputs[scores.value] / split if scores.value in inputs else None
    self._saliency: joins.Maps | None = None
    for name in saliency.stages:
      if name in inputs:
        self._saliency = joins.grey_maps(source, inputs[name] / split)

  @property
  def labelled(self) -> list[int]:
    """Indices of the images that have classes, hence scores."""
    return np.flatnonzero(self.source.labels.any(axis=1)).tolist()

  def check(self, indices: Sequence[int]) -> None:
    """Refuses files that do not fit their images; reads headers only.

    Args:
      indices: of images that have scores.

    Raises:
      UserError: naming the files that are missing, cut short, foreign, or of another size or list
        of classes.
    """
    if self._scores is not None:
      if self._kind is Scores.PRIORS:
        joins.check(joins.prior_hints(self.source, self._scores), self.source, indices)
      else:
        self._check_walks(indices)
    if self._saliency is not None:
      joins.check(self._saliency, self.source, indices)

  def _check_walks(self, indices: Sequence[int]) -> None:
    faults = []
    for index in indices:
      path = self._score_path(index)
      try:
        keys = products.read_walk(path, **self._expected(index), arrays=()).keys.tolist()
      except UserError as error:
        faults.append(f'  {str(error).removeprefix(f"{path.parent}/")}')
        continue
      present = (np.flatnonzero(self.source.labels[index]) + 1).tolist()
      if keys != [0, *present]:
        faults.append(
          f'  {path.name}: a walk of the labels {keys}, expected 0 and the classes of its image, '
          f'{present}'
        )
    if faults:
      more = [f'  ... and {len(faults) - _SHOWN} more'] if len(faults) > _SHOWN else []
      raise UserError(
        f'{len(faults)} walks in {self._scores} cannot be used:\n'
        + '\n'.join(faults[:_SHOWN] + more)
        + '\nRun random_walk again (--config.rerun=random_walk).'
      )

  def _score_path(self, index: int) -> Path:
    if self._scores is None:
      raise ValueError(f'{self._kind.value} is no input')
    return self._scores / f'{self.source.ids[index]}.npz'

  def _expected(self, index: int) -> dict[str, Any]:
    return {'size': self.source.size(index), 'num_classes': self.source.info.num_classes}

  def image(self, index: int) -> np.ndarray:
    """u8[H, W, 3]."""
    return self.source.example(index)['image']

  def scores(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image's scores.

    Returns:
      keys i32[P+1], 0 and the present classes; scores f16[H, W, P].

    Raises:
      UserError: the file is missing, damaged, or of another image or list of classes.
    """
    path, expected = self._score_path(index), self._expected(index)
    if self._kind is Scores.PRIORS:
      prior = products.read_prior(path, **expected, arrays=('high',))
      return prior.keys, np.moveaxis(prior.high, 0, -1)
    walk = products.read_walk(path, **expected)
    return walk.keys, np.moveaxis(walk.walk, 0, -1)

  def saliency(self, index: int) -> np.ndarray:
    """Reads an image's saliency: f32[H, W] in [0, 1].

    Raises:
      UserError: the file is missing, damaged or of another image.
    """
    if self._saliency is None:
      raise ValueError('saliency is no input')
    return self._saliency.read(index, size=self.source.size(index)).astype(np.float32) / 255


def exists_png(path: Path) -> bool:
  """Whether a PNG is there to its last byte: what a resumed run may skip."""
  try:
    images.png_header(path)
  except UserError:
    return False
  return True


def write_labels(path: Path, labels: np.ndarray, dataset: info.DatasetInfo) -> None:
  """Writes a label map as a PNG in the data set's colours.

  Args:
    path: of the file.
    labels: int[H, W] of 0..K, or 255.
    dataset: its palette.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  images.write_png(path, labels.astype(np.uint8), palette=np.asarray(dataset.palette, np.uint8))
