import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import platforms
from pnoc_jax.ops import cam

_X = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)


def test_logits_are_the_mean_of_the_valid_cells():
  np.testing.assert_allclose(cam.logits(jnp.asarray(_X)), _X.mean((1, 2)), atol=1e-6)
  valid = np.zeros((2, 4, 5), bool)
  valid[0, :3, :2] = True
  padded = np.where(valid[..., None], _X, np.nan)
  result = np.asarray(cam.logits(jnp.asarray(padded), jnp.asarray(valid)))
  np.testing.assert_allclose(result[0], _X[0, :3, :2].mean((0, 1)), atol=1e-6)
  # Nothing valid: 0 rather than 0 / 0.
  np.testing.assert_array_equal(result[1], 0)


def test_normalize_max_rectifies_and_divides():
  x = _X.copy()
  x[1, :, :, 2] = -1
  positive = np.maximum(x, 0)
  expected = positive / (positive.max((1, 2), keepdims=True) + 1e-5)
  result = cam.normalize_max(jnp.asarray(x), axis=(1, 2))
  np.testing.assert_allclose(result, expected, atol=1e-6)
  assert not np.asarray(result)[1, :, :, 2].any()


def test_flip_mirrors_within_the_width():
  np.testing.assert_array_equal(cam.flip(jnp.asarray(_X)), _X[:, :, ::-1])
  result = np.asarray(cam.flip(jnp.asarray(_X), jnp.array([3, 5])))
  np.testing.assert_array_equal(result[0, :, :3], _X[0, :, 2::-1])
  np.testing.assert_array_equal(result[0, :, 3:], _X[0, :, 3:])
  np.testing.assert_array_equal(result[1], _X[1, :, ::-1])


@pytest.mark.parametrize('kind', ['cpu', 'tpu'])
@pytest.mark.parametrize('columns', [1, 13, 16])
def test_flip_of_any_width_is_a_copy(columns, kind):
  width = np.arange(columns + 1, dtype=np.int32)
  x = np.random.default_rng(0).normal(size=(len(width), 2, columns, 3)).astype(np.float32)
  flip = jax.jit(lambda x, width: cam.flip(x, width))
  with platforms.traced_for(kind):
    found, text = np.asarray(flip(x, width)), flip.lower(x, width).as_text()
  for ours, image, w in zip(found, x, width, strict=True):
    np.testing.assert_array_equal(ours, np.concatenate([image[:, :w][:, ::-1], image[:, w:]], 1))
  assert ('gather' in text) == (kind == 'cpu')
