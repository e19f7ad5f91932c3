import jax.numpy as jnp
import numpy as np

from pnoc_jax.ops import normalize

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalize_is_exact_inside_the_box_and_zero_outside():
  image = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
  box = np.array([[1, 2, 5, 8], [0, 0, 6, 3]], np.int32)
  expected = np.zeros(image.shape)
  for b, (y0, x0, y1, x1) in enumerate(box):
    inside = (b, slice(y0, y1), slice(x0, x1))
    expected[inside] = (image[inside] / 255 - _MEAN) / _STD
  result = normalize.normalize(jnp.asarray(image), jnp.asarray(box), mean=_MEAN, std=_STD)
  np.testing.assert_allclose(result, expected, atol=1e-6)
  valid = normalize.box_valid(jnp.asarray(box), (6, 8))
  np.testing.assert_array_equal(np.asarray(result == 0).all(-1), ~np.asarray(valid))


def test_content_moves_to_the_corner_where_its_size_says_what_it_is():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 6, 8, 3), np.uint8)
  box = np.array([[1, 2, 5, 8], [0, 4, 6, 7]], np.int32)
  size = box[:, 2:] - box[:, :2]
  moved = np.asarray(normalize.move_to_corner(jnp.asarray(image), jnp.asarray(box)))
  valid = np.asarray(normalize.size_valid(jnp.asarray(size), (6, 8)))
  for b, ((y0, x0, y1, x1), (h, w)) in enumerate(zip(box, size, strict=True)):
    np.testing.assert_array_equal(moved[b, :h, :w], image[b, y0:y1, x0:x1])
    expected = np.zeros((6, 8), bool)
    expected[:h, :w] = True
    np.testing.assert_array_equal(valid[b], expected)
