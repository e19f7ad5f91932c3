import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.losses import affinity
from pnoc_jax.ops import paths

_RNG = np.random.default_rng(0)


def _loop(edge, labels, num_classes, radius, eps=1e-5):
  """The losses pair by pair: background, foreground, different."""
  r = radius - 1
  sums, counts = np.zeros(3), np.zeros(3)
  for e, one in zip(edge.astype(np.float64), labels):
    for d in paths.directions(radius):
      cells = paths.path(d)
      for y in range(e.shape[0] - r):
        for x in range(r, e.shape[1] - r):
          here, there = one[y, x], one[y + d[0], x + d[1]]
          if max(here, there) > num_classes:
            continue
          a = 1 - max(e[y + p, x + q] for p, q in cells)
          kind = 2 if here != there else int(here > 0)
          sums[kind] -= np.log(1 + eps - a) if kind == 2 else np.log(a + eps)
          counts[kind] += 1
  return sums / (counts + eps)


@pytest.mark.parametrize(('radius', 'size'), [(4, (8, 11)), (10, (12, 21))])
def test_losses_match_a_loop_over_pairs(radius, size):
  edge = _RNG.uniform(size=(2, *size)).astype(np.float32)
  labels = _RNG.choice([0, 0, 1, 2, 255], size=(2, *size))
  expected = _loop(edge, labels, 2, radius)
  found = jax.jit(lambda e, n: affinity.affinity_losses(e, n, num_classes=2, radius=radius))(
    edge, labels
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  total = 0.5 * (0.5 * expected[0] + 0.5 * expected[1]) + 0.5 * expected[2]
  np.testing.assert_allclose(found.total, total, rtol=1e-4)


def test_kinds_that_do_not_occur_cost_nothing():
  edge = jnp.asarray(_RNG.uniform(size=(1, 5, 8)), jnp.float32)

  def loss(edge, labels):
    return affinity.affinity_losses(edge, labels, num_classes=2, radius=4).total

  gradient = jax.jit(jax.value_and_grad(loss))
  for label, free in ((0, False), (255, True)):
    labels = jnp.full(edge.shape, label)
    value, grad = gradient(edge, labels)
    assert (value == 0) == free
    assert np.isfinite(np.asarray(grad)).all()
    assert np.asarray(grad).any() != free


def test_saturated_edges_stay_finite_and_gradients_are_finite_differences():
  edge = _RNG.uniform(0.05, 0.95, size=(1, 6, 9)).astype(np.float32)
  labels = _RNG.choice([0, 1, 2], size=(1, 6, 9))

  def loss(edge):
    return affinity.affinity_losses(edge, labels, num_classes=2, radius=4).total

  grad = np.asarray(jax.jit(jax.grad(loss))(edge))
  h = 1e-6
  for cell in [(0, 0, 3), (0, 2, 5), (0, 3, 8), (0, 5, 4)]:
    values = []
    for sign in (1, -1):
      moved = edge.astype(np.float64)
      moved[cell] += sign * h
      parts = _loop(moved, labels, 2, 4)
      values.append(0.25 * parts[0] + 0.25 * parts[1] + 0.5 * parts[2])
    np.testing.assert_allclose(grad[cell], (values[0] - values[1]) / (2 * h), rtol=1e-3, atol=1e-5)
  closed = jnp.asarray(_RNG.choice([0.0, 1.0], size=edge.shape), jnp.float32)
  assert np.isfinite(loss(closed))
  assert np.isfinite(np.asarray(jax.jit(jax.grad(loss))(closed))).all()
