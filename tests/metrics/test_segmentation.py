"""Counts and scores of label maps against a per-class loop."""

import numpy as np
import pytest

from pnoc_jax.metrics import segmentation


def _loop(prediction, target, num_classes):
  """T, P, TP one class at a time; predictions of 255 match nothing but their pixels stay."""
  keep = target < 255
  rows = []
  for c in range(num_classes):
    truth, guess = (target == c) & keep, (prediction == c) & keep
    rows.append((truth.sum(), guess.sum(), (truth & guess).sum()))
  return np.array(rows).T


def _random_maps(seed, num_classes=4, size=(9, 13)):
  generator = np.random.default_rng(seed)
  labels = np.array([*range(num_classes), 255])
  return generator.choice(labels, size), generator.choice(labels, size)


def test_counts_equal_the_loop_over_classes_and_merge_by_adding():
  pairs = [_random_maps(seed) for seed in range(3)]
  counts = [segmentation.count(p, t, num_classes=4) for p, t in pairs]
  for (prediction, target), one in zip(pairs, counts, strict=True):
    expected = _loop(prediction, target, 4)
    np.testing.assert_array_equal([one.true, one.predicted, one.hit], expected)
  total = counts[0] + counts[1] + counts[2]
  stacked = [np.concatenate(maps) for maps in zip(*pairs, strict=True)]
  np.testing.assert_array_equal(total.hit, _loop(*stacked, 4)[2])


def test_scores_follow_the_definitions():
  # 10 true, 8 predicted, 6 hit of class 1; the rest background; class 2 never occurs.
  counts = segmentation.Counts(np.array([90, 10, 0]), np.array([92, 8, 0]), np.array([88, 6, 0]))
  result = segmentation.score(counts, ['background', 'cat', 'dog'])
  assert result['iou']['cat'] == pytest.approx(100 * 6 / 12)
  assert result['iou']['background'] == pytest.approx(100 * 88 / 94)
  assert result['iou']['dog'] == 0
  assert result['miou'] == pytest.approx(np.mean(list(result['iou'].values())))
  assert result['miou_fg'] == pytest.approx(25)
  assert result['fp_class']['cat'] == pytest.approx(100 * 2 / 12)
  assert result['fn_class']['cat'] == pytest.approx(100 * 4 / 12)
  assert (result['fp'], result['fn']) == pytest.approx((100 / 12, 100 * 2 / 12))


def test_another_size_is_refused():
  prediction, target = np.zeros((2, 3), int), np.zeros((5, 7), int)
  with pytest.raises(ValueError, match=r'\(2, 3\), but the mask is \(5, 7\)'):
    segmentation.count(prediction, target, num_classes=2)


def test_nearest_resize_takes_the_floor():
  x = np.arange(7)[None] + np.zeros((3, 1), int)
  np.testing.assert_array_equal(segmentation.resize_nearest(x, (1, 4))[0], [0, 1, 3, 5])
  np.testing.assert_array_equal(
    segmentation.resize_nearest(x[:, :3], (6, 6))[0], [0, 0, 1, 1, 2, 2]
  )


def test_labels_out_of_range_are_refused():
  with pytest.raises(ValueError, match='target holds labels'):
    segmentation.count(np.zeros((2, 2), int), np.full((2, 2), 7), num_classes=3)


def test_confusions_hold_the_counts_and_predicted_void():
  generator = np.random.default_rng(0)
  target, prediction = generator.choice(np.array([0, 1, 2, 255]), (2, 8, 9))
  found = segmentation.confuse(prediction, target, num_classes=3)
  for true in range(3):
    for column, value in enumerate((0, 1, 2, 255)):
      expected = np.sum((target == true) & (prediction == value))
      assert found.matrix[true, column] == expected
  counts = segmentation.count(prediction, target, num_classes=3)
  twice = (found + found).counts
  for name in ('true', 'predicted', 'hit'):
    np.testing.assert_array_equal(2 * getattr(counts, name), getattr(twice, name))


def test_an_image_is_scored_over_the_classes_that_it_has():
  generator = np.random.default_rng(0)
  target = generator.choice([0, 2, 7, 255], (30, 40)).astype(np.uint8)
  labels = generator.choice([0, 2, 9], (30, 40)).astype(np.int32)
  counts = segmentation.count(labels, target, num_classes=12)
  expected = segmentation.iou(counts)[[0, 2, 7, 9]].mean()
  assert segmentation.image_iou(labels, target) == pytest.approx(expected)
  assert segmentation.image_iou(target, target) == 1
  assert np.isnan(segmentation.image_iou(labels, np.full_like(target, 255)))
  # What is predicted void is missed.
  labels = np.where(target == 2, 255, target)
  assert segmentation.image_iou(labels, target) == pytest.approx(2 / 3)
  with pytest.raises(ValueError, match='but the mask is'):
    segmentation.image_iou(labels[1:], target)
