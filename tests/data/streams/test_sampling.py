import numpy as np

from pnoc_jax.data.streams import sampling

# Class 0 in 20 images, 1 in 5, 2 in one, 3 in none.
LABELS = np.zeros((23, 4), np.float32)
LABELS[:20, 0], LABELS[18:23, 1], LABELS[0, 2] = 1, 1, 1


def test_an_image_weighs_as_its_rarest_class_up_to_ten():
  weights = sampling.example_weights(LABELS)
  np.testing.assert_allclose(weights, [10] + [1] * 17 + [4] * 5)
  np.testing.assert_allclose(sampling.example_weights(LABELS, largest=30)[0], 20)
  np.testing.assert_array_equal(sampling.example_weights(np.zeros((2, 4))), 0)


def test_class_weights_have_mean_one():
  weights = sampling.class_weights(LABELS)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(weights, np.array([1, 4, 10, 10]) / 6.25, rtol=1e-6)
