import functools

import jax
import numpy as np
import pytest

from pnoc_jax.ops import random_walk
from tests.ops import dense_walk

_RNG = np.random.default_rng(0)


def _problem(height, width, classes=3, smooth=True):
  scores = _RNG.uniform(size=(height, width, classes)).astype(np.float32)
  edge = _RNG.uniform(size=(height, width)) ** (3 if smooth else 1)
  return scores, edge.astype(np.float32)


@functools.cache
def _walk(**options):
  return jax.jit(functools.partial(random_walk.random_walk, **options))


@pytest.mark.parametrize('form', list(random_walk.Form))
@pytest.mark.parametrize(
  ('size', 'options'),
  [
    ((17, 23), {'radius': 5, 'beta': 10.0, 'exp_times': 8}),
    # Smaller than the radius; a single step; edges that hold nothing back.
    ((3, 9), {'radius': 5, 'beta': 8.0, 'exp_times': 5}),
    ((7, 6), {'radius': 3, 'beta': 10.0, 'exp_times': 0}),
    ((12, 9), {'radius': 4, 'beta': 1.0, 'exp_times': 10}),
  ],
)
def test_walk_is_the_squared_matrix(size, options, form):
  scores, edge = _problem(*size)
  expected = dense_walk.dense_walk(scores, edge, **options)
  found = np.asarray(_walk(form=form, **options)(scores, edge))
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=5e-4, atol=1e-6 * expected.max())
  np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def test_closed_edges_part_the_map():
  scores, edge = _problem(8, 11)
  edge[:, 5], edge[:, 6] = 1, 1
  scores[:, 7:] = 0
  found = np.asarray(_walk()(scores, edge))
  np.testing.assert_array_equal(found[:, 5:], 0)
  assert (found[:, :5] > 0).all()


def test_padded_and_batched_equal_alone():
  sizes = [(6, 9), (8, 5), (8, 9)]
  problems = [_problem(*size) for size in sizes]
  scores, edge = np.full((3, 8, 9, 3), np.nan, np.float32), np.full((3, 8, 9), np.nan, np.float32)
  valid = np.zeros((3, 8, 9), bool)
  for i, (h, w) in enumerate(sizes):
    scores[i, :h, :w], edge[i, :h, :w] = problems[i]
    valid[i, :h, :w] = True
  mapped = jax.jit(jax.vmap(lambda s, e, v: random_walk.random_walk(s, e, valid=v)))
  batched = jax.jit(lambda s, e, v: random_walk.random_walk(s, e, valid=v))
  for function in (mapped, batched):
    found = np.asarray(function(scores, edge, valid))
    assert not found[~valid].any()
    for i, (h, w) in enumerate(sizes):
      alone = _walk()(*problems[i])
      np.testing.assert_allclose(found[i, :h, :w], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('form', list(random_walk.Form))
def test_gradients_are_finite_differences_of_the_dense_walk(form):
  options = {'radius': 3, 'beta': 4.0, 'exp_times': 4}
  scores, edge = _problem(5, 6, 2)
  weight = _RNG.normal(size=scores.shape)

  def loss(scores, edge):
    return (random_walk.random_walk(scores, edge, form=form, **options) * weight).sum()

  grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(scores, edge)

  def dense(scores, edge):
    return (dense_walk.dense_walk(scores, edge, **options) * weight).sum()

  h = 1e-6
  for cell in [(0, 0), (2, 3), (4, 5), (1, 5)]:
    for argument, index in ((0, (*cell, 1)), (1, cell)):
      values = []
      for sign in (1, -1):
        moved = [scores.astype(np.float64), edge.astype(np.float64)]
        moved[argument][index] += sign * h
        values.append(dense(*moved))
      finite = (values[0] - values[1]) / (2 * h)
      np.testing.assert_allclose(grads[argument][index], finite, rtol=1e-3, atol=1e-4)


def test_chebyshev_coefficients_expand_the_power():
  s = np.linspace(-1, 1, 101)
  for steps, count in ((1, 2), (2, 3), (7, 8), (256, 81)):
    c = random_walk.chebyshev_coefficients(steps)
    assert len(c) == count
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(s, c), s**steps, atol=2e-6)


def test_a_radius_without_neighbours_is_refused():
  with pytest.raises(ValueError, match='radius is 1; from 2 on a cell has a neighbour'):
    random_walk.random_walk(np.ones((3, 4, 1)), np.zeros((3, 4)), radius=1, exp_times=1)
  with pytest.raises(ValueError, match='radius is 0'):
    random_walk.random_walk(np.ones((3, 4, 1)), np.zeros((3, 4)), radius=0, exp_times=1)
