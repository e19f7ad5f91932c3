"""What is measured of the networks while they train; for `engine.measure`."""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.engine import programs
from pnoc_jax.losses import forward
from pnoc_jax.metrics import classification, saliency, segmentation, thresholds
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.predict import segmentation as predict
from pnoc_jax.types import Array, Batch, Variables

_Batches = Sequence[Mapping[str, np.ndarray]]
# Of C2AM's maps: 0.05, 0.10, ..., 0.50.
_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 11))


@dataclasses.dataclass(frozen=True)
class CamMeter:
  """Class activation maps on their own grid, best of eight thresholds, and classification.

  On VOC's split `train` these are the columns by epoch of Tables 1 and 7.

  Attributes:
    model: the network.
    dataset: its classes.
  """

  model: nn.Module
  dataset: info.DatasetInfo

  def forward(self, variables: Variables, batch: Batch) -> tuple[Array, Array]:
    """Raw maps f32[B, h, w, K] and logits f32[B, K]."""
    image = programs.make_prepare(self.dataset)(batch)['image']
    cam = forward.evaluate(self.model, variables, image)
    return cam, cam_ops.logits(cam)

  def begin(self) -> tuple[Any, list[classification.Predictions]]:
    """Sums over thresholds, and the predictions of each batch."""
    return thresholds.init_sums(self.dataset.num_classes + 1, thresholds.GRID_THRESHOLDS), []

  def add(self, sums: Any, found: Any, batches: _Batches) -> Any:
    """Adds a batch."""
    (total, parts), (cam, logits), (batch,) = sums, found, batches
    total += thresholds.grid_sweep(
      cam, batch['label'], batch['mask'], box=batch['box'], weight=batch['weight']
    )
    real = batch['weight'] > 0
    return total, [*parts, classification.Predictions(logits[real], batch['label'][real])]

  def score(self, sums: Any) -> dict[str, float]:
    """mIoU, FP, FN and threshold; mAP, precision, recall, F1 and ROC-AUC."""
    total, (first, *rest) = sums
    names = (self.dataset.background, *self.dataset.classes)
    best = thresholds.best_score(total, names)
    scores = classification.score(functools.reduce(operator.add, rest, first))
    result = {f'eval/{name}': best[name] for name in ('miou', 'miou_fg', 'fp', 'fn', 'threshold')}
    for name in ('map', 'precision', 'recall', 'f1', 'roc_auc'):
      if scores[name] is not None:
        result[f'eval/{name}'] = scores[name]
    return result


@dataclasses.dataclass(frozen=True)
class C2amMeter:
  """2-class IoU of C2AM's rectified, normalised map on its own grid, best of ten thresholds.

  Attributes:
    model: the network.
    dataset: its images.
    both: also measure the inverted map, where it is not settled which part is the foreground.
  """

  model: nn.Module
  dataset: info.DatasetInfo
  both: bool

  @property
  def _signs(self) -> dict[str, int]:
    return {'': 1, '_inverted': -1} if self.both else {'': 1}

  def forward(self, variables: Variables, batch: Batch) -> Array:
    """Logits f32[B, h, w, 1]."""
    image = programs.make_prepare(self.dataset)(batch)['image']
    return forward.evaluate(self.model, variables, image).logits

  def begin(self) -> dict[str, Any]:
    """Sums over thresholds, of each sign."""
    return {name: thresholds.init_sums(2, _THRESHOLDS) for name in self._signs}

  def add(self, sums: dict[str, Any], found: Any, batches: _Batches) -> dict[str, Any]:
    """Adds a batch."""
    (batch,) = batches
    target = saliency.binary_target(batch['mask'])
    return {
      name: sums[name]
      + thresholds.grid_sweep(
        sign * found,
        np.ones((len(found), 1)),
        target,
        box=batch['box'],
        weight=batch['weight'],
        thresholds=_THRESHOLDS,
      )
      for name, sign in self._signs.items()
    }

  def score(self, sums: dict[str, Any]) -> dict[str, float]:
    """mIoU, IoU of the foreground and threshold."""
    result = {}
    for name, found in sums.items():
      best = thresholds.best_score(found, ('background', 'foreground'))
      result |= {f'eval/{key}{name}': best[key] for key in ('miou', 'miou_fg', 'threshold')}
    return result


@dataclasses.dataclass(frozen=True)
class PoolNetMeter:
  """2-class IoU of PoolNet's maps at 0.5.

  Attributes:
    model: the network.
    dataset: its images, with the mean and deviation of colours that it wants.
  """

  model: nn.Module
  dataset: info.DatasetInfo

  def forward(self, variables: Variables, batch: Batch) -> Array:
    """What is salient, u8[B, S, S]."""
    image = programs.make_prepare(self.dataset)(batch)['image']
    return (forward.evaluate(self.model, variables, image) > 0).astype(jnp.uint8)

  def begin(self) -> segmentation.Confusion:
    """Counts of nothing."""
    return segmentation.init_confusion(2)

  def add(
    self, sums: segmentation.Confusion, found: Any, batches: _Batches
  ) -> segmentation.Confusion:
    """Adds a batch."""
    (batch,) = batches
    target, real = saliency.binary_target(batch['mask']), batch['weight'] > 0
    return sums + _confuse(found[real], target[real], num_classes=2)

  def score(self, sums: segmentation.Confusion) -> dict[str, float]:
    """mIoU and IoU of the foreground."""
    score = segmentation.score(sums.counts, saliency.CLASSES)
    return {f'eval/{name}': score[name] for name in ('miou', 'miou_fg')}


@dataclasses.dataclass(frozen=True)
class SegmentationMeter:
  """IoU of a segmentation network's label maps, against one or more targets.

  Attributes:
    model: the network.
    dataset: its classes.
    prefixes: of the metrics, one a target: 'eval' of the masks, 'eval/pseudo' of pseudo masks.
  """

  model: nn.Module
  dataset: info.DatasetInfo
  prefixes: tuple[str, ...]

  def forward(self, variables: Variables, batch: Batch) -> Array:
    """Label maps u8[B, S, S]."""
    image = programs.make_prepare(self.dataset)(batch)['image']
    found = predict.logits(self.model, variables, image)
    return jnp.argmax(found, -1).astype(jnp.uint8)

  def begin(self) -> list[segmentation.Confusion]:
    """Counts of nothing, of each target."""
    return [segmentation.init_confusion(self.dataset.num_classes + 1) for _ in self.prefixes]

  def add(
    self, sums: list[segmentation.Confusion], found: Any, batches: _Batches
  ) -> list[segmentation.Confusion]:
    """Adds a batch, which each target has in its order."""
    real, count = batches[0]['weight'] > 0, self.dataset.num_classes + 1
    return [
      total + _confuse(found[real], batch['mask'][real], num_classes=count)
      for total, batch in zip(sums, batches, strict=True)
    ]

  def score(self, sums: list[segmentation.Confusion]) -> dict[str, float]:
    """mIoU with and without the background, of each target."""
    names, result = (self.dataset.background, *self.dataset.classes), {}
    for prefix, total in zip(self.prefixes, sums, strict=True):
      scores = segmentation.score(total.counts, names)
      result |= {f'{prefix}/{name}': scores[name] for name in ('miou', 'miou_fg')}
    return result


def _confuse(labels: np.ndarray, target: np.ndarray, *, num_classes: int) -> segmentation.Confusion:
  """Counts the pixels of label maps [B, S, S]."""
  width = labels.shape[-1]
  pair = (x.reshape(-1, width) for x in (labels, target))
  return segmentation.confuse(*pair, num_classes=num_classes)
