"""Scores priors at every background threshold in one pass over the data.

A threshold moves only the background, so a histogram of each pixel's largest map holds the counts
of all thresholds. The histograms of several images, batches or processes are merged by adding them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pnoc_jax import types
from pnoc_jax.metrics import segmentation

# The thresholds of a prior's background: 0.05, 0.10, ..., 0.80.
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 17))
# Those of the scoring during training, on the CAM's own grid: 0.10, 0.15, ..., 0.45.
GRID_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(2, 10))


@dataclasses.dataclass(frozen=True)
class ScoreSums:
  """The histogram from which the counts of every threshold follow.

  Attributes:
    histogram: i64[C, C, T+1], pixels by true class, by the class with the largest map, and by the
      number of thresholds that lie strictly below that map's value.
    thresholds: the T ascending thresholds.
    images: how many images were added.
  """

  histogram: np.ndarray
  thresholds: tuple[float, ...]
  images: int = 0

  def __add__(self, other: ScoreSums) -> ScoreSums:
    if self.thresholds != other.thresholds or self.histogram.shape != other.histogram.shape:
      raise ValueError(
        'sums of other thresholds or classes do not add: '
        f'{self.histogram.shape} at {self.thresholds} and '
        f'{other.histogram.shape} at {other.thresholds}'
      )
    return ScoreSums(self.histogram + other.histogram, self.thresholds, self.images + other.images)


def init_sums(num_classes: int, thresholds: Sequence[float] = THRESHOLDS) -> ScoreSums:
  """The sums of no image, over `num_classes` classes, the background included."""
  if num_classes < 2 or not all(a < b for a, b in itertools.pairwise(thresholds)):
    raise ValueError(f'need 2+ classes, ascending thresholds: {num_classes}, {thresholds}')
  shape = (num_classes, num_classes, len(thresholds) + 1)
  return ScoreSums(np.zeros(shape, np.int64), tuple(float(t) for t in thresholds))


def sweep(
  keys: np.ndarray,
  high: np.ndarray,
  target: np.ndarray,
  *,
  num_classes: int,
  thresholds: Sequence[float] = THRESHOLDS,
) -> ScoreSums:
  """Scores one image's prior at all thresholds in one pass.

  The reference puts a constant map theta before the others and takes the argmax, once for each
  threshold. The background wins where the largest map is <= theta (an argmax gives ties to the
  lower index), and elsewhere the class with the largest map wins, whatever theta is. So three facts
  of a pixel give its prediction at every threshold: its true class, the class with the largest map,
  and the place of that map's value among the thresholds.

  The comparison is in float32, with the thresholds rounded to float32, as in the reference, whose
  constant map has the dtype of the other maps; float16 maps are widened exactly.

  Args:
    keys: i32[K+1], 0 and then the ascending classes of the maps.
    high: f16 or f32[K, H, W], the maps.
    target: int[H, W], the mask.
    num_classes: C, the background included.
    thresholds: T ascending thresholds.

  Returns:
    ScoreSums of this image.

  Raises:
    ValueError: shapes disagree, or a label or key is out of range.
  """
  if high.ndim != 3 or keys.shape != (high.shape[0] + 1,) or not high.shape[0] or keys[0] != 0:
    raise ValueError(f'expected keys [K+1] from 0 and maps [K, H, W]: {keys}, {high.shape}')
  segmentation.check_labels(keys, num_classes, 'keys')
  segmentation.check_size(high, target.shape)
  maps = high.astype(np.float32)
  winner = np.argmax(maps, axis=0)
  largest = np.take_along_axis(maps, winner[None], axis=0)[0]
  return _histogram(keys[1:][winner], largest, target, num_classes, thresholds, images=1)


def _histogram(
  winner: np.ndarray,
  largest: np.ndarray,
  target: np.ndarray,
  num_classes: int,
  thresholds: Sequence[float],
  *,
  images: int,
) -> ScoreSums:
  """`winner`, `largest` and `target` share one shape."""
  empty = init_sums(num_classes, thresholds)
  keep = target != types.VOID
  below = np.searchsorted(np.asarray(thresholds, np.float32), largest[keep], side='left')
  truth = segmentation.check_labels(target[keep], num_classes, 'target')
  place = np.ravel_multi_index((truth, winner[keep], below), empty.histogram.shape)
  flat = np.bincount(place, minlength=empty.histogram.size)
  return ScoreSums(flat.reshape(empty.histogram.shape), empty.thresholds, images)


def grid_sweep(
  cam: np.ndarray,
  label: np.ndarray,
  mask: np.ndarray,
  *,
  box: np.ndarray | None = None,
  weight: np.ndarray | None = None,
  thresholds: Sequence[float] = GRID_THRESHOLDS,
  eps: float = 1e-5,
) -> ScoreSums:
  """Scores raw CAMs of a batch on their own grid: the epoch columns of Table 1, without TTA.

  The maps are rectified and divided by (their maximum + eps), and those of absent classes are set
  to 0. The masks are resized to the grid by the floor rule.

  Args:
    cam: f32[B, h, w, K], raw.
    label: f32[B, K], multi-hot.
    mask: u8[B, H, W], 0..K or void.
    box: i32[B, 4] of (y0, x0, y1, x1) in pixels: where the image lies. Cells whose mask pixel is
      outside are void and take no part in the maximum. None: everywhere.
    weight: f32[B], 0 for the rows that only fill the batch. None: all count.
    thresholds: ascending.
    eps: added to each map's maximum.

  Returns:
    ScoreSums over K+1 classes.
  """
  cam, label, mask = np.asarray(cam, np.float32), np.asarray(label), np.asarray(mask)
  if cam.ndim != 4 or label.shape != (cam.shape[0], cam.shape[3]) or mask.ndim != 3:
    raise ValueError(
      f'expected cam [B, h, w, K], label [B, K], mask [B, H, W]; got {cam.shape}, {label.shape}, '
      f'{mask.shape}'
    )
  if len(mask) != len(cam):
    raise ValueError(f'{len(cam)} CAMs but {len(mask)} masks')
  grid, size = cam.shape[1:3], mask.shape[1:]
  target = segmentation.resize_nearest(mask, grid)
  inside = np.ones(target.shape, bool)
  if box is not None:
    y, x = (np.arange(n) * old // n for n, old in zip(grid, size, strict=True))
    y0, x0, y1, x1 = (np.asarray(box)[:, i, None] for i in range(4))
    inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]
  # Differs from the reference: cells of the crop's padding are left out of maximum and counts;
  # because they show no image. Without padding the two agree.
  maps = np.where(inside[..., None], np.maximum(cam, 0), 0)
  maps = maps / (maps.max(axis=(1, 2), keepdims=True) + np.float32(eps))
  maps = maps * (label[:, None, None, :] > 0)
  winner = np.argmax(maps, axis=-1)
  largest = np.take_along_axis(maps, winner[..., None], axis=-1)[..., 0]
  rows = np.ones(len(cam), bool) if weight is None else np.asarray(weight) > 0
  target = np.where(inside & rows[:, None, None], target, types.VOID)
  num_classes = cam.shape[3] + 1
  return _histogram(winner + 1, largest, target, num_classes, thresholds, images=int(rows.sum()))


def counts(sums: ScoreSums) -> segmentation.Counts:
  """The counts at every threshold: Counts of shape [T, C]."""
  histogram = sums.histogram
  # above[n] = pixels with more than n thresholds below their value: foreground at threshold n.
  above = np.flip(np.cumsum(np.flip(histogram[:, :, 1:], 2), axis=2), 2)
  by_truth = histogram.sum(axis=(1, 2))
  background = by_truth[:, None] - above.sum(axis=1)  # [C, T]
  predicted = above.sum(axis=0).T.copy()
  hit = np.einsum('cct->tc', above).copy()
  predicted[:, 0] += background.sum(axis=0)
  hit[:, 0] += background[0]
  return segmentation.Counts(np.broadcast_to(by_truth, predicted.shape), predicted, hit)


def best_score(sums: ScoreSums, classes: Sequence[str]) -> dict[str, Any]:
  """The result of a sweep at its best threshold by mIoU (the lowest one of equals), in percent.

  Args:
    sums: of a sweep.
    classes: C names, the background first.

  Returns:
    `score` at the best threshold, with `threshold`, `thresholds`, `mious` and `images`.
  """
  every = counts(sums)
  mious = segmentation.iou(every).mean(axis=1)
  best = int(np.argmax(mious))
  at_best = segmentation.Counts(every.true[best], every.predicted[best], every.hit[best])
  return {
    **segmentation.score(at_best, classes),
    'threshold': sums.thresholds[best],
    'thresholds': list(sums.thresholds),
    'mious': [float(100 * value) for value in mious],
    'images': sums.images,
  }
