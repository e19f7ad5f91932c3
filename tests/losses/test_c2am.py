"""The losses of C2AM and C2AM-H against their formulas, and steps of them on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from pnoc_jax import states
from pnoc_jax.losses import c2am
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH as SPLIT
from pnoc_jax.parallel.compile import REPLICATED
from pnoc_jax.updates import update

BATCH, SIZE, GRID, CHANNELS = 8, 16, 4, 5
ALPHA, LAMBDA_H, DELTA, SMOOTHING, LR = 0.5, 3.0, 0.4, 0.2, 0.1
_RNG = np.random.default_rng(0)


def _cosines(a, b):
  a, b = a.astype(np.float64), b.astype(np.float64)
  a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
  return np.clip(a @ b.T, 0.0005, 0.9995)


def _vectors(n=6, channels=5):
  # Some cosines below the lower bound, most above.
  return (_RNG.normal(size=(n, channels)) + 0.4).astype(np.float32)


@pytest.mark.parametrize('alpha', [0.25, 1.0])
def test_positive_loss_weighs_by_rank(alpha):
  v = _vectors()
  cosines = _cosines(v, v)
  total = 0.0
  for i, row in enumerate(cosines):
    # The vector itself is the most similar.
    order = sorted(range(len(row)), key=lambda j: (-row[j], j))
    assert order[0] == i
    for j, value in enumerate(row):
      total += np.exp(-alpha * (order.index(j) - 1)) * -np.log(value)
  found = c2am.positive_loss(jnp.asarray(v), alpha=alpha)
  np.testing.assert_allclose(found, total / len(v) ** 2, rtol=1e-4)


def test_negative_loss_counts_every_pair():
  v_b, v_f = _vectors(), _vectors()
  expected = -np.log(1 - _cosines(v_b, v_f)).mean()
  found = c2am.negative_loss(jnp.asarray(v_b), jnp.asarray(v_f))
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_total_is_the_sum_of_its_parts():
  v_f, v_b = jnp.asarray(_vectors()), jnp.asarray(_vectors())
  total, parts = c2am.c2am_loss(v_f, v_b, alpha=0.5)
  np.testing.assert_allclose(parts['loss/foreground'], c2am.positive_loss(v_f, alpha=0.5))
  np.testing.assert_allclose(parts['loss/background'], c2am.positive_loss(v_b, alpha=0.5))
  np.testing.assert_allclose(parts['loss/contrast'], c2am.negative_loss(v_b, v_f))
  np.testing.assert_allclose(total, sum(parts.values()), rtol=1e-6)


def test_equal_opposite_and_vanishing_vectors_stay_finite():
  one = np.ones((1, 4), np.float32)
  v = jnp.asarray(np.concatenate([one, one, -one, 0 * one]))

  def loss(v_f, v_b):
    return c2am.c2am_loss(v_f, v_b)[0]

  # In bfloat16 0.9995 is 1: the losses must not be computed there.
  gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  for dtype in (jnp.float32, jnp.bfloat16):
    value, grads = gradients(v.astype(dtype), v.astype(dtype))
    assert np.isfinite(value)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in grads)


def test_gradients_are_finite_differences():
  v_f, v_b = _vectors(), _vectors()

  def loss(v_f, v_b):
    return c2am.c2am_loss(v_f, v_b)[0]

  value = jax.jit(loss)
  grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(v_f, v_b)
  h = 1e-3
  for argument in (0, 1):
    # Along the gradient, where float32 tells the two values apart.
    direction = np.asarray(grads[argument])
    direction = direction / np.linalg.norm(direction)
    values = []
    for sign in (1, -1):
      moved = [v_f, v_b]
      moved[argument] = moved[argument] + sign * h * direction
      values.append(value(*moved))
    finite = (values[0] - values[1]) / (2 * h)
    np.testing.assert_allclose((grads[argument] * direction).sum(), finite, rtol=1e-2)


def test_hint_loss_is_the_mean_over_hinted_cells():
  logits = _RNG.normal(size=(2, 3, 4, 1)).astype(np.float32)
  hint = _RNG.uniform(size=(2, 3, 4, 1)).astype(np.float32)
  hint[0, 0, 0] = 0.4
  valid = np.ones((2, 3, 4), bool)
  valid[1, :, 2:] = False
  for smoothing, target in ((0.0, 1.0), (0.1, 0.95)):
    for mask in (None, valid):
      p = 1 / (1 + np.exp(-logits.astype(np.float64)))
      losses = -target * np.log(p) - (1 - target) * np.log(1 - p)
      chosen = (hint >= np.float32(0.4)) & (True if mask is None else mask[..., None])
      found = c2am.hint_loss(
        jnp.asarray(logits), jnp.asarray(hint), threshold=0.4, smoothing=smoothing, valid=mask
      )
      np.testing.assert_allclose(found, losses[chosen].mean(), rtol=1e-5)


def test_hint_loss_without_hints_is_zero_with_zero_gradient():
  logits = jnp.asarray(_RNG.normal(size=(2, 3, 4, 1)), jnp.float32)
  value, grad = jax.value_and_grad(c2am.hint_loss)(logits, jnp.full(logits.shape, 0.39))
  assert value == 0
  assert not np.asarray(grad).any()


class Net(nn.Module):
  """Means of 4 x 4 pixels, two dense layers: the interface of `nn.c2am`."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    x = image.reshape(len(image), GRID, 4, GRID, 4, 3).mean((2, 4))
    x = jnp.tanh(nn.Dense(CHANNELS, use_bias=False, name='backbone')(x)) + 0.5
    logits = nn.Dense(1, use_bias=False, name='head')(x)
    p = nn.sigmoid(logits)
    return c2am_nn.Disentangled((p * x).mean((1, 2)), ((1 - p) * x).mean((1, 2)), logits)


def _params(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'backbone': {'kernel': rng.normal(size=(3, CHANNELS)).astype(np.float32)},
    'head': {'kernel': rng.normal(size=(CHANNELS, 1)).astype(np.float32)},
  }


def _batch():
  rng = np.random.default_rng(1)
  image = rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
  # Smooth enough that some cells are hinted, and some are not.
  hint = np.kron(rng.uniform(size=(BATCH, 4, 4)), np.ones((4, 4)))[..., None]
  hint += rng.uniform(-0.1, 0.1, hint.shape)
  return {'image': image, 'hint': hint.clip(0, 1).astype(np.float32)}


def _cubic(hint):
  """torch's bicubic to a quarter: a new centre lies between pixels 1 and 2 of its four."""
  taps = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
  for axis in (1, 2):
    blocks = np.moveaxis(hint, axis, -1).reshape(*np.moveaxis(hint, axis, -1).shape[:-1], GRID, 4)
    hint = np.moveaxis(blocks @ taps, -1, axis)
  return hint


def _positive(v):
  v = v / np.linalg.norm(v, axis=1, keepdims=True)
  cosine = np.clip(v @ v.T, 0.0005, 0.9995)
  rank = np.argsort(np.argsort(-cosine, 1, kind='stable'), 1, kind='stable') - 1
  return -(np.exp(-ALPHA * rank) * np.log(cosine)).mean()


def _oracle(params, batch, *, hinted):
  """The loss in float64, spelled out."""
  image = batch['image'].astype(np.float64)
  x = image.reshape(BATCH, GRID, 4, GRID, 4, 3).mean((2, 4))
  x = np.tanh(x @ params['backbone']['kernel']) + 0.5
  z = (x @ params['head']['kernel'])[..., 0]
  p = 1 / (1 + np.exp(-z))[..., None]
  v_f, v_b = (p * x).mean((1, 2)), ((1 - p) * x).mean((1, 2))
  unit_f, unit_b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (v_f, v_b))
  contrast = -np.log(1 - np.clip(unit_b @ unit_f.T, 0.0005, 0.9995)).mean()
  terms = {
    'loss/foreground': _positive(v_f),
    'loss/background': _positive(v_b),
    'loss/contrast': contrast,
  }
  total = sum(terms.values())
  if hinted:
    chosen = _cubic(batch['hint'].astype(np.float64)[..., 0]) >= DELTA
    target, q = 1 - SMOOTHING / 2, p[..., 0]
    entropy = -target * np.log(q) - (1 - target) * np.log(1 - q)
    assert 0 < chosen.mean() < 1
    terms |= {'loss/hint': entropy[chosen].mean(), 'share/hinted': chosen.mean()}
    total += LAMBDA_H * terms['loss/hint']
  return terms | {'loss/total': total, 'share/foreground': p.mean()}


def _step(mesh, batch):
  tx = optax.sgd(LR)
  terms = c2am.Terms(alpha=ALPHA, lambda_h=LAMBDA_H, threshold=DELTA, smoothing=SMOOTHING)
  loss = functools.partial(c2am.network_loss, model=Net(), terms=terms)
  variables = {'params': _params(), 'batch_stats': {}}
  state = arrays.replicate(states.init_state(variables, tx), mesh)
  compiled = compiler.jit(update.make_update(loss, tx), mesh, ins=(REPLICATED, SPLIT))
  state, metrics = compiled(state, arrays.to_global(batch, mesh))
  return arrays.to_host((state, metrics))


@pytest.mark.parametrize('hinted', [True, False], ids=['c2amh', 'c2am'])
def test_a_step_goes_down_the_papers_loss(one_device, hinted):
  batch = _batch()
  if not hinted:
    del batch['hint']
  state, metrics = _step(one_device, batch)
  expected = _oracle(_params(), batch, hinted=hinted)
  assert metrics.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
  assert state.step == 1
  # The oracle's slope along the step is that of a gradient of the step's length.
  step = jax.tree.map(lambda new, old: (new - old).astype(np.float64), state.params, _params())
  length = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(step)))
  h, values = 1e-5 / length, []
  for sign in (1, -1):
    moved = jax.tree.map(lambda p, d, sign=sign: p + sign * h * d, _params(), step)
    values.append(_oracle(moved, batch, hinted=hinted)['loss/total'])
  slope = (values[0] - values[1]) / (2 * h * length)
  np.testing.assert_allclose(slope, -length / LR, rtol=1e-3)


def test_pairs_are_those_of_the_global_batch(mesh, one_device):
  found, expected = (_step(m, _batch()) for m in (mesh, one_device))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def test_without_a_hinted_cell_it_is_c2am(one_device):
  batch = _batch()
  batch['hint'] = np.zeros_like(batch['hint'])
  state, metrics = _step(one_device, batch)
  del batch['hint']
  plain, expected = _step(one_device, batch)
  assert metrics['loss/hint'] == 0
  np.testing.assert_allclose(metrics['loss/total'], expected['loss/total'], rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.params, plain.params
  )
