import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from pnoc_jax import states
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.updates import c2am

BATCH, SIZE, GRID, CHANNELS = 8, 16, 4, 5
ALPHA, W_HINT, DELTA, SMOOTHING, LR = 0.5, 3.0, 0.4, 0.2, 0.1


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
    total += W_HINT * terms['loss/hint']
  return terms | {'loss/total': total, 'share/foreground': p.mean()}


def _step(mesh, batch):
  tx = optax.sgd(LR)
  update = c2am.make_c2am_update(
    Net(), tx, alpha=ALPHA, w_hint=W_HINT, threshold=DELTA, smoothing=SMOOTHING
  )
  variables = {'params': _params(), 'batch_stats': {}}
  state = arrays.replicate(states.init_state(variables, tx), mesh)
  compiled = compiler.jit(update, mesh, batch_args=(1,))
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
