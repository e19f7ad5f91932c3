"""Classification metrics against their definitions spelled out in loops."""

import numpy as np
import pytest

from pnoc_jax.metrics import classification


def _average_precision(scores, labels):
  area, recall = 0.0, 0.0
  for threshold in sorted(set(scores), reverse=True):
    chosen = scores >= threshold
    hits = (chosen & labels).sum()
    area += (hits / labels.sum() - recall) * hits / chosen.sum()
    recall = hits / labels.sum()
  return area


def _roc_auc(scores, labels):
  wins = [np.sign(p - n) / 2 + 0.5 for p in scores[labels] for n in scores[~labels]]
  return np.mean(wins)


def _predictions(seed=0, n=40, k=5):
  generator = np.random.default_rng(seed)
  logits = generator.integers(-3, 4, (n, k)).astype(np.float32)  # Many ties, many exact zeros.
  return classification.Predictions(logits, generator.random((n, k)) < 0.4)


def test_every_metric_equals_its_definition():
  x = _predictions()
  result = classification.score(x)
  columns = list(zip(x.logits.T, x.labels.T, strict=True))
  assert result['map'] == pytest.approx(100 * np.mean([_average_precision(*c) for c in columns]))
  assert result['roc_auc'] == pytest.approx(100 * np.mean([_roc_auc(*c) for c in columns]))
  chosen = np.round(1 / (1 + np.exp(-x.logits))) == 1
  precisions, recalls, f1s = [], [], []
  for guess, truth in zip(chosen.T, x.labels.T, strict=True):
    precision = (guess & truth).sum() / guess.sum()
    recall = (guess & truth).sum() / truth.sum()
    precisions.append(precision)
    recalls.append(recall)
    f1s.append(2 * precision * recall / (precision + recall))
  assert result['precision'] == pytest.approx(100 * np.mean(precisions))
  assert result['recall'] == pytest.approx(100 * np.mean(recalls))
  assert result['f1'] == pytest.approx(100 * np.mean(f1s))


def test_average_precision_of_a_known_ranking():
  # scikit-learn's documented example: 0.83.
  scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
  assert classification.average_precision(scores, labels) == pytest.approx(5 / 6)
  assert classification.roc_auc(scores, labels) == pytest.approx(0.75)


def test_classes_without_a_value_are_counted_and_left_out():
  x = _predictions()
  labels = x.labels.copy()
  labels[:, 0], labels[:, 1] = False, True
  result = classification.score(classification.Predictions(x.logits, labels))
  rest = classification.score(classification.Predictions(x.logits[:, 2:], labels[:, 2:]))
  assert (result['undefined_map'], result['undefined_roc_auc']) == (1, 2)
  assert result['roc_auc'] == pytest.approx(rest['roc_auc'])
  none = classification.score(classification.Predictions(x.logits, np.zeros_like(labels)))
  assert none['map'] is None and none['recall'] == 0


def test_parts_merge_by_adding():
  whole = _predictions(n=30)
  parts = [classification.Predictions(whole.logits[i::3], whole.labels[i::3]) for i in range(3)]
  assert classification.score(parts[0] + parts[1] + parts[2]) == pytest.approx(
    classification.score(whole)
  )
