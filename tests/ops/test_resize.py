import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnoc_jax.io import images
from pnoc_jax.ops import resize

_SIZES = [((5, 7), (9, 4)), ((3, 1), (8, 6)), ((6, 8), (1, 3)), ((4, 4), (4, 4))]


def _image(h, w, c=2):
  return np.random.default_rng(h * 31 + w).normal(size=(h, w, c)).astype(np.float32)


def _sample(x, size, source, kernel, taps):
  """The oracle: one pixel after the other, as torch's documentation defines it."""
  h, w, c = x.shape
  out = np.zeros((*size, c))
  for i in range(size[0]):
    for j in range(size[1]):
      y, z = source(i, h, size[0]), source(j, w, size[1])
      for dy in taps:
        for dx in taps:
          py, px = int(np.floor(y)) + dy, int(np.floor(z)) + dx
          weight = kernel(y - py) * kernel(z - px)
          out[i, j] += weight * x[np.clip(py, 0, h - 1), np.clip(px, 0, w - 1)]
  return out


def _half_pixel(i, old, new):
  return (i + 0.5) * old / new - 0.5


def _triangle(d):
  return max(0.0, 1.0 - abs(d))


def _bilinear(x, size):
  return _sample(x, size, lambda *a: max(_half_pixel(*a), 0.0), _triangle, (0, 1))


def _aligned(x, size):
  return _sample(
    x, size, lambda i, o, n: i * (o - 1) / (n - 1) if n > 1 else 0.0, _triangle, (0, 1)
  )


def _cubic(d, a=-0.75):
  d = abs(d)
  if d <= 1:
    return (a + 2) * d**3 - (a + 3) * d**2 + 1
  return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


@pytest.mark.parametrize(('old', 'new'), _SIZES)
def test_bilinear_and_bicubic_match_the_definition(old, new):
  x = _image(*old)
  np.testing.assert_allclose(resize.bilinear(jnp.asarray(x), new), _bilinear(x, new), atol=2e-6)
  result = resize.bilinear(jnp.asarray(x), new, align_corners=True)
  np.testing.assert_allclose(result, _aligned(x, new), atol=2e-6)
  expected = _sample(x, new, _half_pixel, _cubic, (-1, 0, 1, 2))
  np.testing.assert_allclose(resize.bicubic(jnp.asarray(x), new), expected, atol=5e-6)


def test_hand_values():
  row = jnp.array([1.0, 2.0, 4.0])[None, :, None]
  result = resize.bilinear(row, (1, 6))[0, :, 0]
  np.testing.assert_allclose(result, [1, 1.25, 1.75, 2.5, 3.5, 4], rtol=1e-6)
  result = resize.bilinear(row, (1, 5), align_corners=True)[0, :, 0]
  np.testing.assert_allclose(result, [1, 1.5, 2, 3, 4], rtol=1e-6)
  # No antialias: half the size takes the mean of two pixels, a third the middle one.
  result = resize.bilinear(jnp.arange(6.0)[None, :, None], (1, 2))[0, :, 0]
  np.testing.assert_allclose(result, [1, 4], rtol=1e-6)


def test_bilinear_keeps_dtypes_and_leading_axes():
  x = jnp.asarray(_image(4, 5))
  stacked = resize.bilinear(jnp.stack([x, 2 * x])[None], (7, 3))
  np.testing.assert_allclose(stacked[0, 1], 2 * resize.bilinear(x, (7, 3)), rtol=1e-5)
  assert resize.bilinear(x.astype(jnp.bfloat16), (2, 2)).dtype == jnp.bfloat16
  assert resize.bilinear(jnp.ones((2, 2, 1), jnp.uint8), (4, 4)).dtype == jnp.float32


@pytest.mark.parametrize(('old', 'new'), [*_SIZES, ((500, 375), (31, 1000))])
def test_nearest_takes_the_floor(old, new):
  x = np.arange(old[0] * old[1]).reshape(*old, 1)
  rows = [int(np.floor(i * old[0] / new[0])) for i in range(new[0])]
  columns = [int(np.floor(i * old[1] / new[1])) for i in range(new[1])]
  np.testing.assert_array_equal(resize.nearest(jnp.asarray(x), new), x[rows][:, columns])


@pytest.mark.parametrize(('old', 'new'), [*_SIZES, ((512, 64), (128, 32)), ((37, 22), (10, 9))])
def test_nearest_centre_is_pillows(old, new):
  x = np.random.default_rng(0).integers(0, 256, old).astype(np.uint8)
  found = resize.nearest_centre(jnp.asarray(x)[..., None], new)[..., 0]
  np.testing.assert_array_equal(found, images.resize_nearest(x, new))


_resize_valid = {
  align_corners: jax.jit(
    jax.vmap(
      lambda *a, align_corners=align_corners: resize.bilinear_valid(
        *a, shape=(12, 13), align_corners=align_corners
      )
    )
  )
  for align_corners in (False, True)
}


@settings(deadline=None, max_examples=40)
@given(
  st.tuples(st.integers(1, 8), st.integers(1, 9)),
  st.tuples(st.integers(1, 12), st.integers(1, 13)),
  st.booleans(),
)
def test_bilinear_valid_equals_bilinear_on_the_cut_out(old, new, align_corners):
  padded = np.stack([_image(8, 9)] * 2)
  # The second example has other sizes: under vmap each has its own.
  olds, news = np.array([old, (3, 4)], np.int32), np.array([new, (12, 5)], np.int32)
  result = np.array(_resize_valid[align_corners](padded, olds, news))
  for x, (h, w), size, out in zip(padded, olds, news, result, strict=True):
    content = (slice(size[0]), slice(size[1]))
    expected = (_aligned if align_corners else _bilinear)(x[:h, :w], size)
    np.testing.assert_allclose(out[content], expected, atol=2e-6)
    out[content] = 0
    assert not out.any()
