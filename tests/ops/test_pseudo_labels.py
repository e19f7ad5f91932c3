import jax.numpy as jnp
import numpy as np

from pnoc_jax.ops import pseudo_labels

_RNG = np.random.default_rng(0)


def test_argmax_against_a_constant_and_against_a_map():
  scores = jnp.array([[0.3, 0.1], [0.31, 0.0], [0.5, 0.5], [0.0, 0.9], [0.0, 0.0]])[None]
  # Equal scores: the lower number.
  assert pseudo_labels.argmax_labels(scores, 0.3).tolist() == [[0, 1, 1, 2, 0]]
  background = jnp.array([[0.2, 0.4, 0.4, 0.95, 0.0]])
  assert pseudo_labels.argmax_labels(scores, background).tolist() == [[1, 0, 1, 0, 0]]


def test_saliency_becomes_the_background_score():
  saliency = jnp.array([0.0, 0.3, 0.5, 1.0])
  np.testing.assert_allclose(pseudo_labels.salient_background(saliency), [1, 0.7, 0.5, 0])
  # Where everything is salient the classes decide, however low; where nothing is, background.
  scores = jnp.full((4, 1), 0.55)
  found = pseudo_labels.argmax_labels(scores, pseudo_labels.salient_background(saliency))
  assert found.tolist() == [0, 0, 1, 1]


def test_affinity_labels_leave_open_what_the_thresholds_dispute():
  foreground = jnp.array([0, 0, 1, 2])
  background = jnp.array([0, 1, 1, 0])
  assert pseudo_labels.affinity_labels(foreground, background).tolist() == [0, 255, 1, 2]


def test_salient_affinity_labels_leave_open_what_has_no_class():
  salient = jnp.array([False, True, True, False])
  masked = pseudo_labels.mask_labels(jnp.array([2, 0, 1, 0]), salient)
  assert masked.tolist() == [0, 0, 1, 0]
  # The CRF may spread a class beyond the salient pixels.
  refined = jnp.array([2, 0, 1, 0])
  assert pseudo_labels.salient_affinity_labels(refined, salient).tolist() == [2, 255, 1, 0]


def test_numbers_of_the_data_set():
  keys = jnp.array([0, 7, 20])
  labels = jnp.array([[0, 1, 2], [255, 2, 0]])
  assert pseudo_labels.to_classes(labels, keys).tolist() == [[0, 7, 20], [255, 20, 0]]


def test_walk_is_divided_by_the_maximum_of_each_image():
  walk = _RNG.uniform(size=(3, 4, 5, 2)).astype(np.float32)
  walk[1] = 0
  found = np.asarray(pseudo_labels.normalize_walk(jnp.asarray(walk)))
  for i in (0, 2):
    np.testing.assert_allclose(found[i], walk[i] / walk[i].max(), rtol=1e-6)
  np.testing.assert_array_equal(found[1], 0)
