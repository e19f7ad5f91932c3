"""The loss of the saliency network, and steps of it with Adam as torch has it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pnoc_jax import states
from pnoc_jax.losses import poolnet
from pnoc_jax.nn import layers
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.updates import update


def test_loss_is_the_sum_over_valid_pixels_and_the_mean_over_images():
  rng = np.random.default_rng(0)
  z = rng.normal(0, 3, (2, 4, 5))
  target = rng.integers(0, 256, z.shape) / 255
  valid = rng.random(z.shape) < 0.7
  p = 1 / (1 + np.exp(-z))
  losses = -target * np.log(p) - (1 - target) * np.log(1 - p)
  arrays = jnp.asarray(z, jnp.float32), jnp.asarray(target, jnp.float32)
  np.testing.assert_allclose(poolnet.saliency_loss(*arrays), losses.sum() / 2, rtol=1e-5)
  found = poolnet.saliency_loss(*arrays, valid=jnp.asarray(valid))
  np.testing.assert_allclose(found, losses[valid].sum() / 2, rtol=1e-5)


def test_extreme_logits_and_garbage_in_the_padding_stay_finite():
  z = jnp.array([[[1e4, -1e4, jnp.nan]]])
  target = jnp.array([[[0.0, 1.0, 0.5]]])
  valid = jnp.array([[[True, True, False]]])
  loss = lambda z: poolnet.saliency_loss(z, target, valid=valid)  # noqa: E731
  np.testing.assert_allclose(loss(z), 2e4, rtol=1e-6)
  np.testing.assert_allclose(jax.grad(loss)(z.at[..., 2].set(0.0)), [[[1.0, -1.0, 0.0]]])


class Net(nn.Module):
  """A 3 x 3 convolution."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    assert train
    return layers.Conv(1, 3, use_bias=True, name='decoder')(image, valid)[..., 0]


def _state(tx):
  rng = np.random.default_rng(1)
  kernel = jnp.asarray(rng.normal(0.0, 0.3, (3, 3, 3, 1)), jnp.float32)
  params = {'decoder': {'kernel': kernel, 'bias': jnp.zeros(1)}}
  return states.init_state({'params': params, 'batch_stats': {}}, tx)


def _batch():
  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)
  target = rng.random((2, 9, 8)).astype(np.float32)
  valid = np.zeros((2, 9, 8), bool)
  valid[0], valid[1, :5, :4] = True, True
  return {'image': image, 'target': target, 'valid': valid}


def _step(tx):
  return jax.jit(update.make_update(functools.partial(poolnet.network_loss, model=Net()), tx))


def _optimizer(accumulate):
  # As the stage's default, with a decay that shows.
  return optimizer.make_optimizer(
    _state(optax.identity()).params,
    descent=optimizer.Descent(optimizer.Rule.ADAM),
    schedule=schedules.constant(0.01),
    groups=[optimizer.Group('.*', weight_decay=0.5)],
    accumulate=accumulate,
    grad_mean=True,
  )


def test_single_images_accumulated_are_the_batch():
  batch = _batch()
  together, _ = _step(_optimizer(1))(_state(_optimizer(1)), batch)
  step, state = _step(_optimizer(2)), _state(_optimizer(2))
  losses = []
  for i, (height, width) in enumerate(((9, 8), (5, 4))):
    # Alone, the second image needs no mask.
    alone = {n: x[i : i + 1, :height, :width] for n, x in batch.items() if n != 'valid'}
    state, metrics = step(state, alone)
    losses.append(float(metrics['loss/total']))
    np.testing.assert_allclose(metrics['loss/pixel'], losses[-1] / (height * width), rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, together.params
  )


def test_the_decay_of_adam_is_in_the_gradient():
  """torch.optim.Adam(weight_decay=...), not AdamW."""
  tx = _optimizer(1)
  state, batch = _state(tx), _batch()
  step = _step(tx)

  def loss(params, batch):
    z = Net().apply({'params': params}, batch['image'], batch['valid'], train=True)
    entropy = optax.sigmoid_binary_cross_entropy(z, batch['target'])
    return jnp.where(batch['valid'], entropy, 0).sum() / 2

  gradient = jax.jit(jax.grad(loss))
  p = jax.tree.map(np.asarray, state.params)
  m = v = jax.tree.map(np.zeros_like, p)
  for t in (1, 2, 3):
    state, _ = step(state, batch)
    g = jax.tree.map(lambda g, p: np.asarray(g) + 0.5 * p, gradient(p, batch), p)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    p = jax.tree.map(
      lambda p, m, v, t=t: p - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8),
      p,
      m,
      v,
    )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, p)
