import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np

from pnoc_jax import trees
from pnoc_jax.nn import affinity_net
from pnoc_jax.ops import resize

_RNG = np.random.default_rng(0)
_STRIDES = {'stem': 4, 'layer1': 4, 'layer2': 8, 'layer3': 16, 'layer4': 16}


class Pixels(nn.Module):
  """A backbone with one parameter: every stage is every stride-th pixel."""

  plan: tuple = ((1, 1), (2, 1), (2, 1), (1, 2))

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    assert not train
    image = image * self.param('gain', nn.initializers.ones, ())
    features = {name: image[:, ::s, ::s] for name, s in _STRIDES.items()}
    if valid is None:
      return features, None
    return features, {name: valid[:, ::s, ::s] for name, s in _STRIDES.items()}


def _init(model, image):
  """Variables with random scales and biases, too."""
  template = jax.eval_shape(model.init, jax.random.key(0), image)
  return jax.tree.map(lambda x: _RNG.normal(0.5, 0.5, x.shape).astype(np.float32), template)


def _oracle(params, image, groups=4):
  parts, edges = [], params['edges']
  for name, stride in _STRIDES.items():
    x = image[:, ::stride, ::stride].astype(np.float64) * params['backbone']['gain']
    x = x @ edges[f'conv_{name}']['kernel'][0, 0]
    batch, height, width, channels = x.shape
    g = x.reshape(batch, height * width, groups, channels // groups)
    mean, var = g.mean((1, 3), keepdims=True), g.var((1, 3), keepdims=True)
    x = ((g - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    x = x * edges[f'norm_{name}']['scale'] + edges[f'norm_{name}']['bias']
    # Enlarged first, then rectified and cut.
    factor = stride // 4
    x = np.asarray(resize.bilinear(jnp.asarray(x, jnp.float32), (factor * height, factor * width)))
    rows, columns = -(-image.shape[1] // 4), -(-image.shape[2] // 4)
    parts.append(np.maximum(x, 0)[:, :rows, :columns])
  x = np.concatenate(parts, -1) @ edges['out']['kernel'][0, 0]
  return (x + edges['out']['bias'])[..., 0]


def test_edges_match_the_released_form():
  # Sizes of which every stride leaves a remainder.
  image = _RNG.normal(size=(2, 37, 21, 3)).astype(np.float32)
  model = affinity_net.AffinityNet(Pixels(), Pixels.plan, width=8)
  variables = _init(model, image)
  found = jax.jit(model.apply)(variables, image)
  assert found.shape == (2, 10, 6)
  np.testing.assert_allclose(found, _oracle(variables['params'], image), rtol=1e-3, atol=1e-4)


class FinerStem(Pixels):
  """A backbone whose stem has twice the rows and columns of layer1."""

  plan: tuple = ((2, 1), (2, 1), (2, 1), (1, 2))

  def __call__(self, image, valid=None, *, train=False):
    features, valids = super().__call__(image, valid)
    features['stem'] = jnp.repeat(jnp.repeat(features['stem'], 2, 1), 2, 2)
    if valids is not None:
      valids['stem'] = jnp.repeat(jnp.repeat(valids['stem'], 2, 1), 2, 2)
    return features, valids


def test_a_finer_stem_is_averaged():
  image = _RNG.normal(size=(2, 37, 21, 3)).astype(np.float32)
  valid = np.zeros((2, 37, 21), bool)
  valid[:, :30, :20] = True
  plain, finer = (
    affinity_net.AffinityNet(kind(), kind.plan, width=8) for kind in (Pixels, FinerStem)
  )
  variables = _init(plain, image)
  for seen in (None, valid):
    expected = jax.jit(plain.apply)(variables, image, seen)
    np.testing.assert_allclose(jax.jit(finer.apply)(variables, image, seen), expected, atol=1e-4)


def test_padded_equals_alone():
  sizes = [(37, 21), (18, 40)]
  padded = _RNG.normal(size=(2, 40, 40, 3)).astype(np.float32)
  valid = np.zeros((2, 40, 40), bool)
  for i, (h, w) in enumerate(sizes):
    valid[i, :h, :w] = True
  model = affinity_net.AffinityNet(Pixels(), Pixels.plan, width=8)
  variables = _init(model, padded)
  apply = jax.jit(model.apply)
  found = np.asarray(apply(variables, padded, valid))
  for i, (h, w) in enumerate(sizes):
    alone = apply(variables, padded[i : i + 1, :h, :w])[0]
    rows, columns = alone.shape
    np.testing.assert_allclose(found[i, :rows, :columns], alone, rtol=1e-4, atol=1e-4)
    assert not found[i, rows:].any()
    assert not found[i, :, columns:].any()


def test_no_gradient_enters_the_backbone():
  image = _RNG.normal(size=(1, 16, 16, 3)).astype(np.float32)
  model = affinity_net.AffinityNet(Pixels(), Pixels.plan, width=8)
  params = _init(model, image)['params']

  @jax.jit
  @jax.grad
  def gradient(params):
    return jnp.square(model.apply({'params': params}, image)).sum()

  grads = trees.flatten_names(gradient(params))
  assert not grads.pop('backbone/gain').any()
  assert all(np.asarray(g).any() for g in grads.values())


def test_on_a_real_backbone():
  backbone = networks.make_backbone('resnest50', dtype=jnp.bfloat16)
  model = affinity_net.AffinityNet(backbone, backbone.plan)
  image = jnp.zeros((2, 65, 94, 3))
  edge, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), image))
  assert edge.shape == (2, 17, 24)
  assert edge.dtype == jnp.float32
  names = trees.flatten_names(variables['params'])
  own = {n: x.shape for n, x in names.items() if not n.startswith('backbone/')}
  channels = {'stem': 64, 'layer1': 256, 'layer2': 512, 'layer3': 1024, 'layer4': 2048}
  expected = {'edges/out/kernel': (1, 1, 160, 1), 'edges/out/bias': (1,)}
  for name, count in channels.items():
    expected[f'edges/conv_{name}/kernel'] = (1, 1, count, 32)
    expected[f'edges/norm_{name}/scale'] = expected[f'edges/norm_{name}/bias'] = (32,)
  assert own == expected
