import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.ops.crf import hashing, lattice


def _oracle(features: np.ndarray, values: np.ndarray) -> np.ndarray:
  """The lattice point by point, with a dictionary of corners, in float64."""
  n, d = features.shape
  # E of Adams et al., section 3.1: an orthogonal basis of the plane, scaled to the blur's width.
  basis = np.zeros((d + 1, d))
  for i in range(d):
    basis[: i + 1, i] = 1
    basis[i + 1, i] = -(i + 1)
    basis[:, i] *= math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 1) * (i + 2))
  grid, places = {}, []
  for f, value in zip(features, values, strict=True):
    x = basis @ f
    zero = np.round(x / (d + 1)).astype(int) * (d + 1)
    order = sorted(range(d + 1), key=lambda i, r=x - zero: -r[i])
    surplus = zero.sum() // (d + 1)
    # Too many were rounded up (or down): those that were rounded the furthest move back.
    for i in order[d + 1 - surplus :] if surplus > 0 else order[:-surplus]:
      zero[i] -= int(np.sign(surplus)) * (d + 1)
    rest = x - zero
    order = sorted(range(d + 1), key=lambda i, r=rest: -r[i])
    assert zero.sum() == 0 and rest[order[0]] - rest[order[-1]] <= d + 1 + 1e-9
    # Corner r: the r smallest coordinates stay r above the multiple, the others d + 1 - r below;
    # its weight is the gap between neighbours in the order.
    for r in range(d + 1):
      corner = zero + r
      corner[order[d + 1 - r :]] -= d + 1
      gap = rest[order[d - r]] - rest[order[d + 1 - r]] if r else d + 1 - np.ptp(rest)
      places.append((tuple(corner), gap / (d + 1)))
      grid[tuple(corner)] = grid.get(tuple(corner), 0) + places[-1][1] * value
  for axis in range(d + 1):
    step = np.ones(d + 1, int)
    step[axis] = -d
    grid = {
      at: v + 0.5 * sum(grid.get(tuple(np.add(at, s * step)), 0) for s in (-1, 1))
      for at, v in grid.items()
    }
  parts = np.array([weight * grid[at] for at, weight in places])
  return parts.reshape(n, d + 1, -1).sum(1) / (1 + 2.0**-d)


def _points(n, d, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(0, 4, (n, d)).astype(np.float32), rng.normal(size=(n, 3)).astype(np.float32)


def _apply(features, values, valid):
  return lattice.apply(lattice.make(features, (4.0,) * features.shape[1], valid), values)


def test_filter_and_its_transpose_equal_the_construction_point_by_point():
  features, values = _points(200, 5)
  other = np.random.default_rng(2).normal(size=values.shape).astype(np.float32)
  # Points that take no part are as if they did not exist.
  valid = np.random.default_rng(1).uniform(size=200) < 0.8

  @jax.jit
  def both(features, values, other, valid):
    result, backward = jax.vjp(lambda v: _apply(features, v, valid), values)
    return result, backward(other)[0]

  result, back = map(np.asarray, both(features, values, other, valid))
  np.testing.assert_allclose(result[valid], _oracle(features[valid], values[valid]), atol=2e-5)
  assert not result[~valid].any() and not back[~valid].any()
  np.testing.assert_allclose(np.vdot(result, other), np.vdot(values, back), rtol=1e-4)
  nothing, _ = both(features, values, other, np.zeros(200, bool))
  assert not np.asarray(nothing).any()


def test_batch_equals_the_construction_point_by_point():
  features, values = (np.stack(x) for x in zip(_points(120, 2), _points(120, 2, 1), strict=True))
  one_by_one = lattice.one_by_one(lambda values, *others: _apply(others[0], values, others[1]))
  result = jax.jit(jax.vmap(one_by_one))(values, features, np.ones((2, 120), bool))
  expected = [_oracle(f, v) for f, v in zip(features, values, strict=True)]
  np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize('radix', [(7, 2**29, 7, 7), (7, 7, 7, 7)], ids=['hashed', 'direct'])
def test_table_finds_every_name(radix):
  rng = np.random.default_rng(0)
  digits = rng.integers(0, 7, (1500, 4))
  valid = rng.uniform(size=1500) < 0.8
  names = [jnp.asarray(word) for word in hashing.pack(list(digits.T), radix)]
  assert len(names) == (3 if radix[1] > 7 else 1)
  number = jax.jit(hashing.number, static_argnums=(2, 3))
  ids, count, table = number(names, valid, 2000, math.prod(radix))
  assert table.direct == (radix[1] == 7)
  expected = {}
  for entry in np.flatnonzero(valid):
    expected.setdefault(tuple(digits[entry]), 1 + len(expected))
  assert count == 1 + len(expected)
  np.testing.assert_array_equal(
    ids, [expected[tuple(name)] if v else 0 for name, v in zip(digits, valid, strict=True)]
  )
  wanted = np.array(list(itertools.product(range(7), repeat=4)))
  words = [jnp.asarray(word) for word in hashing.pack(list(wanted.T), radix)]
  found = jax.jit(hashing.find)(table, words)
  np.testing.assert_array_equal(found, [expected.get(tuple(name), 0) for name in wanted])


def test_pack_refuses_a_digit_that_is_too_large():
  with pytest.raises(ValueError, match='3000000000 values'):
    hashing.pack([0], [3_000_000_000])
