import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.losses import area

# Two images of 2 x 2 cells and two classes; the second image has the second class alone.
CAM = np.stack(
  [
    np.stack([[[4.0, 2.0], [-1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]], -1),
    np.stack([[[9.0, 9.0], [9.0, 9.0]], [[0.0, 8.0], [2.0, -3.0]]], -1),
  ]
).astype(np.float32)
LABEL = np.array([[1, 1], [0, 1]], np.float32)


def test_it_is_the_mean_of_present_maps_over_their_maxima():
  # (4 + 2) / 4 / 4, 1, and (8 + 2) / 8 / 4; what is negative counts as nothing.
  expected = (0.375 + 1.0 + 0.3125) / 3
  np.testing.assert_allclose(area.area_loss(CAM, LABEL), expected, rtol=1e-5)
  assert area.area_loss(CAM, np.zeros_like(LABEL)) == 0


def test_its_gradient_moves_weak_cells_of_present_classes_alone():
  grads = np.asarray(jax.grad(area.area_loss)(jnp.asarray(CAM), LABEL))
  np.testing.assert_array_equal(grads[1, ..., 0], 0)  # Absent.
  assert grads[0, 0, 1, 0] > 0  # Weak: it shall fall.
  assert grads[0, 1, 0, 0] == 0  # Negative.
  assert grads[0, 0, 0, 0] < 0  # The maximum: with it all others are divided.


def test_another_number_of_classes_is_an_error():
  with pytest.raises(AssertionError):
    area.area_loss(CAM, np.ones((2, 3), np.float32))
