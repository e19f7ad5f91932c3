"""What the stages' products are worth against masks: one function a kind of product.

Each takes a split and the directories of the stages that it reads, and returns what JSON can hold,
in percent. Masks serve this alone.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_stage
from pnoc_jax.engine import log, loop, per_image
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products
from pnoc_jax.metrics import classification, segmentation, thresholds
from pnoc_jax.ops import pseudo_labels

Inputs = Mapping[str, Path]
Item = TypeVar('Item')


@dataclasses.dataclass(frozen=True)
class Split:
  """A split, most often with masks, and how it is looked at.

  Attributes:
    source: its images and masks.
    seed: of draws.
    crf: of the score that refines the priors' label maps.
    runtime: devices for it.
    config: the run's, for what looks at more than products.
  """

  source: info.Source
  seed: int = 0
  crf: crf_stage.CrfConfig = dataclasses.field(default_factory=crf_stage.CrfConfig)
  runtime: Runtime | None = None
  config: Any = None

  def mask(self, index: int) -> np.ndarray:
    """u8[H, W], the true mask of an image.

    Raises:
      UserError: it has none, or it holds a value that is no class.
    """
    found = self.source.mask(index)
    if found is None:
      raise UserError(f'{self.source.split}: the image {self.source.ids[index]} has no mask')
    info.check_mask(self.source, index, found)
    return found

  @property
  def classes(self) -> tuple[str, ...]:
    """All names, the background first."""
    return (self.source.info.background, *self.source.info.classes)

  @property
  def labelled(self) -> list[int]:
    """The images that have a class: the others have no priors."""
    return np.flatnonzero(self.source.labels.any(axis=1)).tolist()


def paths(
  split: Split, directory: Path, name: str, indices: Sequence[int], suffix: str = '.png'
) -> Iterator[tuple[int, Path]]:
  """Yields (index, path) of a stage's products; first looks whether all are there."""
  source = split.source
  paths = [
    per_image.image_path(directory, source.split, source.ids[i], suffix=suffix) for i in indices
  ]
  missing = [source.ids[i] for i, path in zip(indices, paths, strict=True) if not path.exists()]
  if missing:
    raise UserError(
      f'{len(missing)} products of {name} of {source.split} are missing below {directory}, the '
      f'first is {missing[0]}: run the stage {name} (--config.rerun={name} if its images have '
      'changed)'
    )
  what = f'scoring {name} of {source.split}'
  yield from watch(split, zip(indices, paths, strict=True), what, total=len(indices))


def watch(split: Split, items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
  """Goes through a split's images, as a bar on the terminal tells; a signal ends it at the next."""
  for item in log.track(items, what, total=total):
    if split.runtime is not None and split.runtime.should_stop():
      raise loop.Interrupted(0, f'{what}: whole scores are kept')
    yield item


def score_priors(split: Split, inputs: Inputs) -> dict[str, Any]:
  """Scores the priors at every threshold in one pass, and the generator's classification."""
  source, num_classes = split.source, len(split.classes)
  sums, logits = thresholds.init_sums(num_classes), []
  for index, path in paths(split, inputs['priors'], 'priors', split.labelled, '.npz'):
    mask = split.mask(index)
    prior = products.read_prior(
      path, size=mask.shape, num_classes=num_classes - 1, arrays=('high', 'logits')
    )
    sums += thresholds.sweep(prior.keys, prior.high, mask, num_classes=num_classes)
    logits.append(prior.logits)
  found = classification.Predictions(np.stack(logits), source.labels[split.labelled])
  return {
    **thresholds.best_score(sums, split.classes),
    'classification': classification.score(found),
  }


def score_priors_crf(split: Split, inputs: Inputs) -> dict[str, Any]:
  """Scores the priors' label maps at their best threshold after the CRF."""
  source, num_classes = split.source, len(split.classes)
  threshold = score_priors(split, inputs)['threshold']
  if split.runtime is None:
    raise ValueError('the CRF runs on devices: give a runtime')
  sizes, labels = [source.size(i) for i in split.labelled], crf_stage.most_labels(source)
  refine = crf_stage.LabelCrf(split.crf, split.runtime, sizes, labels=labels)

  def items():
    for index, path in paths(split, inputs['priors'], 'priors', split.labelled, '.npz'):
      prior = products.read_prior(
        path, size=source.size(index), num_classes=num_classes - 1, arrays=('high',)
      )
      labels = pseudo_labels.argmax_labels(np.moveaxis(prior.high, 0, -1), threshold)
      keys[index] = prior.keys
      yield index, source.example(index)['image'], labels, len(prior.keys)

  keys, confusion = {}, segmentation.init_confusion(num_classes)
  for index, labels in refine(items()):
    labels = keys.pop(index)[labels]
    confusion += segmentation.confuse(labels, split.mask(index), num_classes=num_classes)
  return {**label_score(split, confusion), 'threshold': threshold, 'images': len(split.labelled)}


def score_walk(split: Split, inputs: Inputs) -> dict[str, Any]:
  """Scores the random walk's maps at every threshold, as the priors."""
  num_classes = len(split.classes)
  sums = thresholds.init_sums(num_classes)
  for index, path in paths(split, inputs['random_walk'], 'random_walk', split.labelled, '.npz'):
    mask = split.mask(index)
    walk = products.read_walk(path, size=mask.shape, num_classes=num_classes - 1)
    sums += thresholds.sweep(walk.keys, walk.walk, mask, num_classes=num_classes)
  return thresholds.best_score(sums, split.classes)


def read_labels(path: Path, size: tuple[int, int], num_classes: int | None = None) -> np.ndarray:
  """A single-channel PNG of an image's size; with `num_classes`, of labels below it or 255."""
  array = images.read_mask(path)
  if array.shape != tuple(size):
    raise UserError(f'{path}: is {array.shape}, but the image is {tuple(size)} (height, width)')
  if num_classes is not None and (fault := _label_fault(array, num_classes)):
    raise UserError(f'{path}: {fault}')
  return array


def _label_fault(array: np.ndarray, num_classes: int) -> str | None:
  largest = int(array[array != types.VOID].max(initial=0))
  if largest >= num_classes:
    return f'holds the value {largest}; classes are 0..{num_classes - 1}, and 255 is void'
  return None


def score_affinity_labels(split: Split, inputs: Inputs) -> dict[str, Any]:
  """Scores the decided pixels of affinity labels, and says how many are not.

  Returns:
    The score over pixels that are not 255, with `undecided`, the share of 255, and `accuracy` of
    the others.
  """
  num_classes = len(split.classes)
  confusion = segmentation.init_confusion(num_classes)
  for index, path in paths(split, inputs['affinity_labels'], 'affinity_labels', split.labelled):
    mask = split.mask(index)
    labels = read_labels(path, mask.shape, num_classes)
    confusion += segmentation.confuse(labels, mask, num_classes=num_classes)
  undecided, total = confusion.matrix[:, -1].sum(), confusion.matrix.sum()
  matrix = np.concatenate([confusion.matrix[:, :-1], np.zeros((num_classes, 1), np.int64)], axis=1)
  decided = segmentation.Confusion(matrix)
  return {
    **label_score(split, decided),
    'undecided': float(100 * undecided / max(total, 1)),
    'accuracy': float(100 * np.trace(matrix) / max(matrix.sum(), 1)),
    'images': len(split.labelled),
  }


def score_pseudo_masks(split: Split, inputs: Inputs) -> dict[str, Any]:
  """Scores the pseudo masks of all images, those without a class included."""
  return _label_maps(split, inputs, 'pseudo_masks')


def score_predictions(split: Split, inputs: Inputs) -> dict[str, Any]:
  """Scores the segmentation network's predictions of all images."""
  return _label_maps(split, inputs, 'predictions')


def _label_maps(split: Split, inputs: Inputs, name: str) -> dict[str, Any]:
  num_classes, everything = len(split.classes), range(len(split.source))
  confusion = segmentation.init_confusion(num_classes)
  for index, path in paths(split, inputs[name], name, everything):
    mask = split.mask(index)
    labels = read_labels(path, mask.shape, num_classes)
    confusion += segmentation.confuse(labels, mask, num_classes=num_classes)
  return {**label_score(split, confusion), 'images': len(everything)}


def label_score(split: Split, confusion: segmentation.Confusion) -> dict[str, Any]:
  """The scores and the pixels by true (rows) and predicted class; predicted void comes last."""
  return {
    **segmentation.score(confusion.counts, split.classes),
    'confusion': confusion.matrix.tolist(),
  }


def score_folder(source: info.Source, directory: Path, *, named: int = 10) -> dict[str, Any]:
  """Scores any folder of label maps `<id>.png`, this package's or another tool's.

  Args:
    source: a split with masks.
    directory: palette or grey PNGs whose values are class numbers; 255 is no class.
    named: how many of the files at fault are named.

  Returns:
    `metrics.segmentation.score`'s result, with `confusion` and `images`.

  Raises:
    UserError: a file is missing, unreadable, of another size, or holds a value that is no class.
  """
  if not directory.is_dir():
    raise UserError(f'{directory} is no directory')
  if not source.has_masks:
    raise UserError(f'the split {source.split} of {source.info.name} has no masks to score against')
  split = Split(source)
  num_classes = len(split.classes)
  confusion, faults = segmentation.init_confusion(num_classes), []
  for index in log.track(range(len(source)), f'scoring {directory}', total=len(source)):
    path, mask = directory / f'{source.ids[index]}.png', split.mask(index)
    fault = 'missing' if not path.exists() else None
    if fault is None:
      try:
        labels = read_labels(path, mask.shape, num_classes)
      except UserError as error:
        fault = str(error).removeprefix(f'{path}: ')
    if fault is None:
      confusion += segmentation.confuse(labels, mask, num_classes=num_classes)
    else:
      faults.append(f'  {path.name}: {fault}')
  if faults:
    rest = f'\n  and {len(faults) - named} more' if len(faults) > named else ''
    raise UserError(
      f'{len(faults)} of {len(source)} files in {directory} cannot be scored:\n'
      + '\n'.join(faults[:named])
      + rest
    )
  return {**label_score(split, confusion), 'images': len(source)}
