import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from pnoc_jax import errors, trees
from pnoc_jax.nn import c2am

_RNG = np.random.default_rng(0)
_CHANNELS = {'layer3': 3, 'layer4': 4}


class Pixels(nn.Module):
  """A backbone without parameters: every stage is every fourth pixel, its channels repeated."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    x = image[:, ::4, ::4]
    features = {
      name: jnp.stack([x[..., i % 3] * (1 + i) for i in range(n)], -1)
      for name, n in _CHANNELS.items()
    }
    valids = None if valid is None else dict.fromkeys(features, valid[:, ::4, ::4])
    return features, valids


def _variables():
  return {
    'params': {
      'head': {
        'conv': {'kernel': _RNG.normal(size=(3, 3, 7, 1)).astype(np.float32) / 5},
        'norm': {'scale': np.float32([1.3]), 'bias': np.float32([-0.2])},
      }
    },
    'batch_stats': {'head': {'norm': {'mean': np.float32([0.1]), 'var': np.float32([0.8])}}},
  }


def _oracle(image, variables, stats=None):
  """(foreground, background, logits) of f64[B, H, W, 3], loop by loop."""
  x = image[:, ::4, ::4].astype(np.float64)
  f = np.concatenate(
    [np.stack([x[..., i % 3] * (1 + i) for i in range(n)], -1) for n in (4, 3)], -1
  )
  batch, height, width, _ = f.shape
  padded = np.pad(f, ((0, 0), (1, 1), (1, 1), (0, 0)))
  head = variables['params']['head']
  kernel = head['conv']['kernel'][..., 0]
  m = np.zeros((batch, height, width))
  for b, y, z in np.ndindex(m.shape):
    m[b, y, z] = (padded[b, y : y + 3, z : z + 3] * kernel).sum()
  mean, var = (m.mean(), m.var()) if stats is None else stats
  m = (m - mean) / np.sqrt(var + 1e-5) * head['norm']['scale'] + head['norm']['bias']
  p = 1 / (1 + np.exp(-m))[..., None]
  return (p * f).mean((1, 2)), ((1 - p) * f).mean((1, 2)), m[..., None]


def test_parts_are_means_weighted_by_the_probability():
  image = _RNG.normal(size=(2, 20, 14, 3)).astype(np.float32)
  model, variables = c2am.C2AM(Pixels()), _variables()
  stats = variables['batch_stats']['head']['norm']
  found = jax.jit(model.apply)(variables, image)
  expected = _oracle(image, variables, (stats['mean'], stats['var']))
  for name, a, b in zip(found._fields, found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)
  # In training: the batch's statistics.
  train = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']))
  found, updated = train(variables, image)
  for name, a, b in zip(found._fields, found, _oracle(image, variables), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)
  assert updated['batch_stats']['head']['norm']['mean'] != stats['mean']


def test_padded_equals_alone():
  image = _RNG.normal(size=(1, 18, 14, 3)).astype(np.float32)
  padded = _RNG.normal(size=(1, 24, 28, 3)).astype(np.float32)
  padded[:, :18, :14] = image
  valid = np.zeros((1, 24, 28), bool)
  valid[:, :18, :14] = True
  model, variables = c2am.C2AM(Pixels()), _variables()
  apply = jax.jit(model.apply)
  alone, found = apply(variables, image), apply(variables, padded, valid)
  np.testing.assert_allclose(found.foreground, alone.foreground, rtol=1e-5)
  np.testing.assert_allclose(found.background, alone.background, rtol=1e-5)
  np.testing.assert_allclose(found.logits[:, :5, :4], alone.logits, rtol=1e-5, atol=1e-6)
  assert not np.asarray(found.logits[:, 5:]).any()
  assert not np.asarray(found.logits[:, :, 4:]).any()


def _shapes(backbone, **options):
  model = c2am.C2AM(backbone, **options)
  image = jnp.zeros((2, 64, 64, 3))
  return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), image))


def test_on_a_real_backbone():
  out, variables = _shapes(networks.make_backbone('resnest50', dtype=jnp.bfloat16))
  assert out.foreground.shape == out.background.shape == (2, 3072)
  assert out.logits.shape == (2, 4, 4, 1)
  assert {leaf.dtype for leaf in out} == {jnp.dtype('float32')}
  names = trees.flatten_names(variables['params'])
  assert {n for n in names if not n.startswith('backbone/')} == {
    'head/conv/kernel',
    'head/norm/scale',
    'head/norm/bias',
  }
  assert names['head/conv/kernel'].shape == (3, 3, 3072, 1)


def test_stages_must_share_a_grid():
  with pytest.raises(errors.UserError, match='smaller output_stride'):
    _shapes(networks.make_backbone('resnet18', output_stride=32))
  trunk = networks.make_backbone('resnet18', last_stage='layer3')
  with pytest.raises(errors.UserError, match=r"\['layer4'\]"):
    _shapes(trunk)
  out, _ = _shapes(trunk, stages=('layer3',))
  assert out.foreground.shape == (2, 256)
