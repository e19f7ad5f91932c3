"""The one-pass sweep against an argmax per threshold."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pnoc_jax.metrics import segmentation, thresholds


def _argmax_loop(keys, high, target, num_classes, values):
  """The reference's way: a constant map before the others, argmax, counts; once a threshold."""
  counts = []
  for theta in values:
    maps = np.concatenate(
      [np.full((1, *high.shape[1:]), theta, np.float32), high], dtype=np.float32
    )
    labels = keys[np.argmax(maps, axis=0)]
    counts.append(segmentation.count(labels, target, num_classes=num_classes))
  return [np.stack([getattr(c, name) for c in counts]) for name in ('true', 'predicted', 'hit')]


def _assert_equal_counts(sums, expected):
  found = thresholds.counts(sums)
  for x, y in zip((found.true, found.predicted, found.hit), expected, strict=True):
    np.testing.assert_array_equal(x, y)


def _example(seed, dtype, num_classes=5):
  """Maps many of whose values lie exactly on a threshold, tie with another map, or next to one."""
  generator = np.random.default_rng(seed)
  k = generator.integers(1, num_classes)
  keys = np.sort(generator.choice(np.arange(1, num_classes), k, replace=False)).astype(np.int32)
  exact = np.arange(0.05, 0.81, 0.05).astype(np.float32)
  near = [exact, np.nextafter(exact, np.float32(0)), np.nextafter(exact, np.float32(1)), [0, 1]]
  pool = np.concatenate([*near, generator.random(20, np.float32)]).astype(dtype)
  high = generator.choice(pool, (k, 8, 11))
  target = generator.choice(np.array([*range(num_classes), 255], np.uint8), (8, 11))
  return np.append(np.int32(0), keys), high, target


def test_thresholds_are_those_of_the_reference():
  expected = np.arange(0.05, 0.81, 0.05)
  np.testing.assert_array_equal(np.float32(thresholds.THRESHOLDS), expected.astype(np.float32))
  np.testing.assert_allclose(thresholds.GRID_THRESHOLDS, np.arange(0.10, 0.46, 0.05))


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.integers(0, 10**6), st.sampled_from([np.float32, np.float16]))
def test_one_pass_equals_an_argmax_per_threshold(seed, dtype):
  keys, high, target = _example(seed, dtype)
  sums = thresholds.sweep(keys, high, target, num_classes=5)
  _assert_equal_counts(sums, _argmax_loop(keys, high, target, 5, thresholds.THRESHOLDS))


def test_images_merge_by_adding_and_the_best_threshold_is_reported():
  examples = [_example(seed, np.float32) for seed in range(4)]
  total = thresholds.init_sums(5)
  expected = 0
  for keys, high, target in examples:
    total += thresholds.sweep(keys, high, target, num_classes=5)
    expected += np.array(_argmax_loop(keys, high, target, 5, thresholds.THRESHOLDS))
  _assert_equal_counts(total, expected)
  true, predicted, hit = expected
  mious = 100 * (hit / (true + predicted - hit + 1e-10)).mean(axis=1)
  result = thresholds.best_score(total, ['background', 'a', 'b', 'c', 'd'])
  np.testing.assert_allclose(result['mious'], mious)
  assert result['miou'] == pytest.approx(mious.max()) == pytest.approx(max(result['mious']))
  assert result['threshold'] == thresholds.THRESHOLDS[int(np.argmax(mious))]
  assert result['images'] == 4
  with pytest.raises(ValueError, match='do not add'):
    total + thresholds.init_sums(4)


def test_a_map_of_another_size_is_refused():
  keys, high, target = np.array([0, 2]), np.ones((1, 4, 4), np.float16), np.full((8, 8), 2)
  with pytest.raises(ValueError, match='but the mask is'):
    thresholds.sweep(keys, high, target, num_classes=3)


def test_grid_sweep_equals_the_definition():
  generator = np.random.default_rng(0)
  cam = generator.normal(size=(3, 4, 5, 2)).astype(np.float32)
  label = np.array([[1, 0], [1, 1], [0, 1]], np.float32)
  mask = generator.choice(np.array([0, 1, 2, 255], np.uint8), (3, 32, 40))
  expected = 0
  for i in range(3):
    maps = np.maximum(cam[i], 0)
    maps = maps / (maps.max(axis=(0, 1)) + np.float32(1e-5)) * label[i]
    coarse = mask[i][::8, ::8]
    expected += np.array(
      _argmax_loop(np.arange(3), maps.transpose(2, 0, 1), coarse, 3, thresholds.GRID_THRESHOLDS)
    )
  _assert_equal_counts(thresholds.grid_sweep(cam, label, mask), expected)


def test_padding_and_filling_rows_do_not_enter_the_grid_scores():
  generator = np.random.default_rng(1)
  cam = generator.random((1, 4, 4, 2), np.float32)
  mask = generator.choice(np.array([0, 1, 2], np.uint8), (1, 16, 16))
  label = np.ones((1, 2), np.float32)
  alone = thresholds.grid_sweep(cam, label, mask)
  wide = np.full((2, 4, 6, 2), 9, np.float32)
  wide[:1, :, 1:5] = cam
  wide_mask = np.zeros((2, 16, 24), np.uint8)
  wide_mask[:1, :, 4:20] = mask
  box = np.array([[0, 4, 16, 20], [0, 0, 16, 24]], np.int32)
  padded = thresholds.grid_sweep(
    wide, np.ones((2, 2)), wide_mask, box=box, weight=np.array([1.0, 0.0])
  )
  np.testing.assert_array_equal(padded.histogram, alone.histogram)
  assert padded.images == 1
