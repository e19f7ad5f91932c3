"""Scores of saliency against loops over pixels and thresholds."""

import numpy as np

from pnoc_jax.metrics import saliency, thresholds


def _masks(seed=0, size=(7, 9)):
  generator = np.random.default_rng(seed)
  return generator, generator.choice(np.array([0, 0, 2, 4, 255], np.uint8), size)


def test_the_sweep_equals_a_cut_at_every_threshold():
  generator, mask = _masks()
  found = np.float32(generator.integers(0, 256, mask.shape)) / 255
  counts = thresholds.counts(saliency.sweep(found, mask))
  for i, theta in enumerate(thresholds.THRESHOLDS):
    known = mask != 255
    cut = found > np.float32(theta)
    assert counts.hit[i].tolist() == [
      np.sum(~cut & known & (mask == 0)),
      np.sum(cut & known & (mask > 0)),
    ]
    assert counts.predicted[i, 1] == np.sum(cut & known)
    assert counts.true[i, 1] == np.sum(known & (mask > 0))


def test_what_is_salient_takes_its_true_class_or_one_of_the_image():
  generator, mask = _masks(1, (40, 40))
  salient = generator.random(mask.shape) < 0.7
  labels = saliency.draw_classes(
    salient, mask, num_classes=6, generator=np.random.default_rng((0, 1))
  )
  assert not labels[~salient | (mask == 255)].any()
  classed = salient & (mask > 0) & (mask < 255)
  np.testing.assert_array_equal(labels[classed], mask[classed])
  drawn = labels[salient & (mask == 0)]
  assert set(drawn) == {2, 4} and 0.4 < np.mean(drawn == 2) < 0.6
  again = saliency.draw_classes(
    salient, mask, num_classes=6, generator=np.random.default_rng((0, 1))
  )
  np.testing.assert_array_equal(labels, again)


def test_a_mask_without_classes_draws_from_all():
  empty, every = np.zeros((30, 30), np.uint8), np.ones((30, 30), bool)
  generator = np.random.default_rng(0)
  labels = saliency.draw_classes(every, empty, num_classes=4, generator=generator)
  assert set(labels.ravel()) == {1, 2, 3}


def test_priors_compete_with_what_is_not_salient():
  keys = np.array([0, 3, 5])
  high = np.array([[[0.5, 0.2, 0.9]], [[0.4, 0.3, 0.9]]], np.float16)
  found = np.array([[0.5, 0.9, 1.0]], np.float32)
  # A tie is background's; the larger prior wins; of equal ones, the first.
  assert saliency.label_priors(keys, high, found).tolist() == [[0, 5, 3]]
