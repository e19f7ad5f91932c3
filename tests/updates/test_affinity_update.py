"""One step of AffinityNet against a loop over pairs, differentiated by finite differences."""

import jax
import numpy as np
from flax import linen as nn

from pnoc_jax import states
from pnoc_jax.io import images
from pnoc_jax.ops import paths
from pnoc_jax.optim import optimizer
from pnoc_jax.updates import affinity

RADIUS, CLASSES, STRIDE, LR, DECAY, EPS = 3, 2, 4, 0.5, 0.01, 1e-5


class Edges(nn.Module):
  """Edges that are a linear function of every fourth pixel."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    image = image * self.param('backbone', nn.initializers.ones, ())
    return nn.Dense(1, name='edges')(image[:, ::STRIDE, ::STRIDE])[..., 0]


def _loss(kernel, bias, image, labels):
  """The mean losses over the pairs of the batch: background, foreground, different; and in all."""
  r = RADIUS - 1
  sums, counts = np.zeros(3), np.zeros(3)
  for x, one in zip(image[:, ::STRIDE, ::STRIDE].astype(np.float64), labels, strict=True):
    edge = 1 / (1 + np.exp(-(x @ kernel + bias)))
    grid = images.resize_nearest(one, edge.shape)
    for d in paths.directions(RADIUS):
      for y in range(edge.shape[0] - r):
        for z in range(r, edge.shape[1] - r):
          here, there = int(grid[y, z]), int(grid[y + d[0], z + d[1]])
          if 255 in (here, there):
            continue
          a = 1 - max(edge[y + p, z + q] for p, q in paths.path(d))
          kind = 2 if here != there else int(here > 0)
          sums[kind] -= np.log(1 + EPS - a) if kind == 2 else np.log(a + EPS)
          counts[kind] += 1
  parts = sums / (counts + EPS)
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
  update = jax.jit(
    affinity.make_affinity_update(model, tx, num_classes=CLASSES, radius=RADIUS),
  )
  state, metrics = update(states.init_state(variables, tx), batch)

  kernel = np.asarray(params['edges']['kernel'], np.float64)[:, 0]
  bias = float(params['edges']['bias'][0])

  def total(weights):
    return _loss(weights[:3], weights[3], batch['image'], batch['target'])[1]

  parts, expected = _loss(kernel, bias, batch['image'], batch['target'])
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
  assert int(state.step) == 1
