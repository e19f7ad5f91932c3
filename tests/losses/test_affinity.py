"""AffinityNet's loss against a loop over pairs, and a step of it by finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax import states
from pnoc_jax.io import images
from pnoc_jax.losses import affinity
from pnoc_jax.ops import paths
from pnoc_jax.optim import optimizer
from pnoc_jax.updates import update

RADIUS, CLASSES, STRIDE, LR, DECAY = 3, 2, 4, 0.5, 0.01
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


class Edges(nn.Module):
  """Edges that are a linear function of every fourth pixel."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    image = image * self.param('backbone', nn.initializers.ones, ())
    return nn.Dense(1, name='edges')(image[:, ::STRIDE, ::STRIDE])[..., 0]


def _network_loss(kernel, bias, image, labels):
  """The mean losses over the pairs of the batch: background, foreground, different; and in all."""
  edge = 1 / (1 + np.exp(-(image[:, ::STRIDE, ::STRIDE].astype(np.float64) @ kernel + bias)))
  grid = [images.resize_nearest(one, edge.shape[1:]).astype(int) for one in labels]
  parts = _loop(edge, grid, CLASSES, RADIUS)
  return parts, parts @ [0.25, 0.25, 0.5]


def test_a_step_is_that_of_the_loss_over_pairs_and_leaves_the_backbone():
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.normal(size=(2, 32, 40, 3)).astype(np.float32),
    'target': rng.choice([0, 1, 2, 255], size=(2, 32, 40)).astype(np.uint8),
  }
  model = Edges()
  variables = states.init_variables(model, jax.random.key(0), (32, 40, 3))
  params = variables['params']
  params['edges']['bias'] = params['edges']['bias'] - 0.3
  groups = [
    optimizer.Group('backbone', frozen=True),
    optimizer.Group('edges/.*', weight_decay=DECAY),
  ]
  tx = optimizer.make_optimizer(params, schedule=lambda step: LR, groups=groups)
  loss = functools.partial(affinity.network_loss, model=model, num_classes=CLASSES, radius=RADIUS)
  step = jax.jit(update.make_update(loss, tx))
  state, metrics = step(states.init_state(variables, tx), batch)

  kernel = np.asarray(params['edges']['kernel'], np.float64)[:, 0]
  bias = float(params['edges']['bias'][0])

  def total(weights):
    return _network_loss(weights[:3], weights[3], batch['image'], batch['target'])[1]

  parts, expected = _network_loss(kernel, bias, batch['image'], batch['target'])
  np.testing.assert_allclose(metrics['loss/total'], expected, rtol=1e-4)
  for name, part in zip(('background', 'foreground', 'different'), parts, strict=True):
    np.testing.assert_allclose(metrics[f'loss/{name}'], part, rtol=1e-4)
  weights = np.array([*kernel, bias])
  h = 1e-5
  grad = np.array([(total(weights + h * e) - total(weights - h * e)) / (2 * h) for e in np.eye(4)])
  moved = weights - LR * (grad + DECAY * weights)
  found = state.params['edges']
  np.testing.assert_allclose(
    [*found['kernel'][:, 0], found['bias'][0]], moved, rtol=1e-3, atol=1e-4
  )
  np.testing.assert_array_equal(state.params['backbone'], params['backbone'])
  # Nor would an optimiser that does not freeze it have anything to go by.
  grads, _ = jax.jit(jax.grad(loss, has_aux=True))(params, variables['batch_stats'], batch)
  assert grads['backbone'] == 0 and np.asarray(grads['edges']['kernel']).all()
  assert int(state.step) == 1
