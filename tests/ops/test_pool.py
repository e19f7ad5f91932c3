import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pnoc_jax.ops import pool

_SHAPE = (2, 11, 9, 2)
_X = np.random.default_rng(0).normal(size=_SHAPE).astype(np.float32)
_average = {
  window: jax.jit(lambda x, sizes, window=window: pool.average(x, sizes, window=window))
  for window in (2, 4)
}
_adaptive = {
  cells: jax.jit(lambda x, sizes, cells=cells: pool.adaptive_average(x, sizes, cells=cells))
  for cells in (1, 3)
}
_sizes = st.tuples(st.integers(1, 11), st.integers(1, 9))


def _windows(n, window):
  if n < window:
    return [slice(0, n)]
  return [slice(i * window, (i + 1) * window) for i in range(n // window)]


def _cells(n, cells):
  return [
    slice(int(np.floor(i * n / cells)), int(np.ceil((i + 1) * n / cells))) for i in range(cells)
  ]


def _means(x, rows, columns):
  return np.array([[x[r, c].mean((0, 1)) for c in columns] for r in rows])


@settings(deadline=None, max_examples=30)
@given(_sizes, st.sampled_from([2, 4]))
def test_average_drops_what_fills_no_window(size, window):
  sizes = np.array([size, (11, 9)], np.int32)
  found, content = _average[window](_X, sizes)
  for x, (h, w), y, (rows, columns) in zip(_X, sizes, found, content, strict=True):
    expected = _means(x[:h, :w], _windows(h, window), _windows(w, window))
    assert expected.shape[:2] == (rows, columns)
    np.testing.assert_allclose(y[:rows, :columns], expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(_sizes, st.sampled_from([1, 3]))
def test_adaptive_average_matches_the_definition(size, cells):
  sizes = np.array([size, (11, 9)], np.int32)
  found = _adaptive[cells](_X, sizes)
  for x, (h, w), y in zip(_X, sizes, found, strict=True):
    np.testing.assert_allclose(y, _means(x[:h, :w], _cells(h, cells), _cells(w, cells)), atol=1e-6)


def test_without_sizes_everything_counts():
  full = np.array([(11, 9)] * 2, np.int32)
  y, content = pool.average(_X, window=4)
  assert content is None
  np.testing.assert_allclose(y, _average[4](_X, full)[0], atol=1e-6)
  np.testing.assert_allclose(pool.adaptive_average(_X, cells=3), _adaptive[3](_X, full), atol=1e-6)


def test_dtypes_stay_and_sums_are_in_float32():
  x = jnp.ones((1, 40, 40, 1), jnp.bfloat16)
  for found in (pool.average(x, window=40)[0], pool.adaptive_average(x, cells=1)):
    assert found.dtype == jnp.bfloat16
    # In bfloat16 a sum of ones ends at 256.
    np.testing.assert_array_equal(found, 1)
