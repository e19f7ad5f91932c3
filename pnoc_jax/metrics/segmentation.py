"""Scores label maps against masks: IoU, false positives and negatives, from summed pixel counts.

The counts of several images, batches or processes are merged by adding them; they are int64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pnoc_jax import types


@dataclasses.dataclass(frozen=True)
class Counts:
  """Pixels by class. The axis of the classes is the last one; one of thresholds may precede it.

  Attributes:
    true: i64[..., C], pixels of the class in the masks (T).
    predicted: i64[..., C], pixels predicted as the class (P).
    hit: i64[..., C], pixels of both (TP).
  """

  true: np.ndarray
  predicted: np.ndarray
  hit: np.ndarray

  def __add__(self, other: Counts) -> Counts:
    return Counts(self.true + other.true, self.predicted + other.predicted, self.hit + other.hit)


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Pixels by their true and their predicted class; several are merged by adding them.

  Attributes:
    matrix: i64[C, C+1]: rows are true classes, columns predicted ones, the last of them void.
  """

  matrix: np.ndarray

  def __add__(self, other: Confusion) -> Confusion:
    return Confusion(self.matrix + other.matrix)

  @property
  def counts(self) -> Counts:
    """The counts by class, of which the scores are made."""
    square = self.matrix[:, :-1]
    return Counts(self.matrix.sum(axis=1), square.sum(axis=0), np.diagonal(square).copy())


def init_confusion(num_classes: int) -> Confusion:
  """The confusion of no pixel, over `num_classes` classes, the background included."""
  return Confusion(np.zeros((num_classes, num_classes + 1), np.int64))


def confuse(prediction: np.ndarray, target: np.ndarray, *, num_classes: int) -> Confusion:
  """Counts one label map against its mask, by pairs of classes.

  Args:
    prediction: int[H, W] of 0..num_classes-1, or void. Where it is void, the pixel counts among the
      true ones, and is predicted as no class.
    target: int[H, W] of 0..num_classes-1, or void; void pixels count nowhere.
    num_classes: C, the background included.

  Raises:
    ValueError: the sizes differ, or a label is out of range.
  """
  check_size(prediction, target.shape)
  keep = target != types.VOID
  target = check_labels(target[keep], num_classes, 'target')
  prediction = prediction[keep].astype(np.int64)
  known = prediction != types.VOID
  check_labels(prediction[known], num_classes, 'prediction')
  column = np.where(known, prediction, num_classes)
  shape = (num_classes, num_classes + 1)
  flat = np.bincount(np.ravel_multi_index((target, column), shape), minlength=math.prod(shape))
  return Confusion(flat.reshape(shape))


def count(prediction: np.ndarray, target: np.ndarray, *, num_classes: int) -> Counts:
  """Counts one label map against its mask, by class: the `counts` of `confuse`."""
  return confuse(prediction, target, num_classes=num_classes).counts


def check_size(x: np.ndarray, shape: Sequence[int]) -> None:
  """Raises a ValueError if `x` [..., h, w] has not the mask's `shape` (h, w)."""
  if x.shape[-2:] != tuple(shape):
    raise ValueError(f'prediction is {x.shape[-2:]}, but the mask is {tuple(shape)}')


def check_labels(x: np.ndarray, num_classes: int, name: str) -> np.ndarray:
  """`x` as int64; a ValueError if a label is not one of 0..num_classes-1."""
  x = x.astype(np.int64)
  if x.size and not 0 <= x.min() <= x.max() < num_classes:
    raise ValueError(f'{name} holds labels {x.min()}..{x.max()}, expected 0..{num_classes - 1}')
  return x


def resize_nearest(x: np.ndarray, size: Sequence[int]) -> np.ndarray:
  """Resizes the two last axes by the floor rule of cv2's INTER_NEAREST: source floor(i * in / out).

  Args:
    x: [..., H, W].
    size: (height, width) of the result.
  """
  rows, columns = (np.arange(n) * old // n for n, old in zip(size, x.shape[-2:], strict=True))
  return x[..., rows[:, None], columns]


def iou(counts: Counts, *, eps: float = 1e-10) -> np.ndarray:
  """TP / (T + P - TP + eps) in [0, 1], f64[..., C]; 0 for a class that never occurs."""
  return counts.hit / (_union(counts) + eps)


def image_iou(prediction: np.ndarray, target: np.ndarray) -> float:
  """Mean IoU in [0, 1] of one image, over the classes that occur in either of two label maps.

  Args:
    prediction: int[H, W] of 0..254, or void, which is no class.
    target: int[H, W] as `prediction`; void pixels count nowhere.

  Returns:
    The mean; NaN where no pixel counts.
  """
  check_size(prediction, target.shape)
  both = (target.astype(np.intp) << 8) + prediction
  pairs = np.bincount(both.ravel(), minlength=1 << 16).reshape(256, 256)[: types.VOID]
  hit = np.diagonal(pairs)
  union = pairs.sum(axis=1) + pairs.sum(axis=0)[: types.VOID] - hit
  present = union > 0
  return float((hit[present] / union[present]).mean()) if present.any() else float('nan')


def _union(counts: Counts) -> np.ndarray:
  return counts.true + counts.predicted - counts.hit


def false_positives(counts: Counts, *, eps: float = 1e-10) -> np.ndarray:
  """(P - TP) / (T + P - TP + eps), f64[..., C]: the share of the union that is wrongly claimed."""
  return (counts.predicted - counts.hit) / (_union(counts) + eps)


def false_negatives(counts: Counts, *, eps: float = 1e-10) -> np.ndarray:
  """(T - TP) / (T + P - TP + eps), f64[..., C]: the share of the union that is missed."""
  return (counts.true - counts.hit) / (_union(counts) + eps)


def score(counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
  """The result of one set of label maps, in percent.

  Args:
    counts: of shape [C].
    classes: C names, the background first.

  Returns:
    `miou` over all C classes (one that never occurs counts 0, as in the reference), `miou_fg`
    without the background, `fp` and `fn` as means over the foreground; by class: `iou`,
    `fp_class`, `fn_class`; `absent`, the classes of which the masks hold no pixel.
  """
  if counts.true.shape != (len(classes),):
    raise ValueError(f'counts are {counts.true.shape}, but there are {len(classes)} classes')
  ious, fp, fn = iou(counts), false_positives(counts), false_negatives(counts)

  def percent(x: np.ndarray) -> float:
    return float(100 * np.mean(x))

  def by_class(x: np.ndarray) -> dict[str, float]:
    return {name: percent(value) for name, value in zip(classes, x, strict=True)}

  return {
    'miou': percent(ious),
    'miou_fg': percent(ious[1:]),
    'fp': percent(fp[1:]),
    'fn': percent(fn[1:]),
    'iou': by_class(ious),
    'fp_class': by_class(fp),
    'fn_class': by_class(fn),
    'absent': [name for name, pixels in zip(classes, counts.true, strict=True) if not pixels],
  }
