"""Scores multi-label classification: mAP, precision, recall, F1 and ROC-AUC, averaged over classes.

None of them is a sum over examples, so the logits themselves are kept. Those of several parts are
merged by adding them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Logits beside their labels.

  Attributes:
    logits: f32[N, K].
    labels: [N, K], multi-hot.
  """

  logits: np.ndarray
  labels: np.ndarray

  def __post_init__(self) -> None:
    if self.logits.ndim != 2 or self.logits.shape != self.labels.shape:
      raise ValueError(f'expected [N, K] twice, got {self.logits.shape}, {self.labels.shape}')

  def __add__(self, other: Predictions) -> Predictions:
    return Predictions(
      np.concatenate([self.logits, other.logits]), np.concatenate([self.labels, other.labels])
    )


def score(predictions: Predictions) -> dict[str, Any]:
  """All metrics as macro averages, in percent.

  As in the reference, a class counts as predicted where round(sigmoid(logit)) is 1; a probability
  of exactly one half is rounded to 0. Precision, recall and F1 of a class are 0 where they would
  divide by 0.

  Args:
    predictions: of N >= 1 examples.

  Returns:
    `map`, `precision`, `recall`, `f1`, `roc_auc`, and how many classes had no defined value and
    are left out of the mean: `undefined_map` (no positive example) and `undefined_roc_auc`
    (no positive or no negative one). A mean over no class is None.
  """
  logits, labels = predictions.logits, predictions.labels > 0
  if not len(logits):
    raise ValueError('no example to score')
  by_class = list(zip(logits.T, labels.T, strict=True))
  precisions = [average_precision(*pair) for pair in by_class]
  areas = [roc_auc(*pair) for pair in by_class]
  chosen = np.round(_sigmoid(logits)) > 0
  precision, recall, f1 = precision_recall_f1(chosen, labels)
  # Differs from the reference: classes without a defined ROC-AUC are skipped and counted; because
  # one such class would set the whole average to 0.
  return {
    'map': _mean_percent(precisions),
    'precision': _mean_percent(precision),
    'recall': _mean_percent(recall),
    'f1': _mean_percent(f1),
    'roc_auc': _mean_percent(areas),
    'undefined_map': int(np.isnan(precisions).sum()),
    'undefined_roc_auc': int(np.isnan(areas).sum()),
  }


def _sigmoid(x: np.ndarray) -> np.ndarray:
  small = np.exp(-np.abs(x))
  return np.where(x >= 0, 1, small) / (1 + small)


def _mean_percent(values: Sequence[float] | np.ndarray) -> float | None:
  known = np.asarray(values, np.float64)
  known = known[~np.isnan(known)]
  return float(100 * known.mean()) if known.size else None


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
  """Area under the precision-recall steps: sum_n (R_n - R_{n-1}) P_n, in [0, 1].

  n runs over the distinct scores from the largest down; each is taken as a threshold, so equal
  scores enter together. Nothing is interpolated. Equal to scikit-learn's `average_precision_score`.

  Args:
    scores: f[N].
    labels: bool or 0/1 [N].

  Returns:
    The area; NaN without a positive example.
  """
  labels = np.asarray(labels) > 0
  if not labels.any():
    return float('nan')
  order = np.argsort(-scores, kind='stable')
  ranked = scores[order]
  ends = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
  hits = np.cumsum(labels[order])[ends]
  return float(np.sum(np.diff(hits, prepend=0) / labels.sum() * hits / (ends + 1)))


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
  """The chance that a positive example scores above a negative one; ties count one half.

  Args:
    scores: f[N].
    labels: bool or 0/1 [N].

  Returns:
    The area under the ROC curve; NaN without a positive or without a negative example.
  """
  labels = np.asarray(labels) > 0
  positives, negatives = int(labels.sum()), int((~labels).sum())
  if not positives or not negatives:
    return float('nan')
  _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
  # Ranks begin at 1; equal scores share their mean rank.
  ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
  return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def precision_recall_f1(
  chosen: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Precision, recall and F1 by class, in [0, 1]; 0 where undefined.

  Args:
    chosen: bool[N, K].
    labels: bool[N, K].

  Returns:
    Three f64[K].
  """
  hit = np.sum(chosen & labels, axis=0, dtype=np.float64)
  predicted, true = chosen.sum(axis=0), labels.sum(axis=0)
  return (
    hit / np.maximum(predicted, 1),
    hit / np.maximum(true, 1),
    2 * hit / np.maximum(predicted + true, 1),
  )
