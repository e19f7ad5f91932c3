import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnoc_jax.ops import puzzle


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 3]))
def test_merge_inverts_tile(batch, height, width, n):
  x = np.arange(batch * height * width * n * n * 2).reshape(batch, height * n, width * n, 2)
  tiles = puzzle.tile(x, pieces=n * n)
  assert tiles.shape == (batch * n * n, height, width, 2)
  np.testing.assert_array_equal(puzzle.merge(tiles, pieces=n * n), x)
  np.testing.assert_array_equal(puzzle.tile(puzzle.merge(tiles, pieces=n * n), pieces=n * n), tiles)


def test_tiles_of_an_image_follow_each_other_row_by_row():
  x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
  expected = [x[b, y : y + 2, z : z + 3] for b in range(2) for y in (0, 2) for z in (0, 3)]
  np.testing.assert_array_equal(puzzle.tile(jnp.asarray(x)), expected)


def test_what_does_not_divide_is_refused():
  with pytest.raises(ValueError, match='5 x 4'):
    puzzle.tile(jnp.zeros((1, 5, 4, 3)))
  with pytest.raises(ValueError, match='square'):
    puzzle.tile(jnp.zeros((1, 4, 4, 3)), pieces=3)
  with pytest.raises(ValueError, match='batch of 6'):
    puzzle.merge(jnp.zeros((6, 2, 2, 3)))
