import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax.nn import c2am
from pnoc_jax.ops import resize
from pnoc_jax.predict import c2am as saliency

STRIDE, MULTIPLE = 4, 8
# Odd sizes, one of them a strip; each image at two scales.
NATIVE = np.array([[23, 37], [31, 9]], np.int32)
SCALES = (1.0, 1.5)


class Trunk(nn.Module):
  """Two convolutions of stride 2 that stand for both stages; exact on padded images."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del train
    x = image
    for name in ('one', 'two'):
      x = x if valid is None else jnp.where(valid[..., None], x, 0.0)
      x = nn.relu(nn.Conv(4, (3, 3), strides=2, padding=1, name=name)(x))
      valid = None if valid is None else valid[:, ::2, ::2]
    features = {'layer4': x, 'layer3': x[..., :2]}
    return features, None if valid is None else dict.fromkeys(features, valid)


@pytest.fixture(scope='module')
def network():
  model = c2am.C2AM(Trunk())
  shapes = jax.eval_shape(model.init, jax.random.key(3), jnp.zeros((1, 16, 16, 3)))
  rng = np.random.default_rng(3)
  variables = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
  variables['batch_stats'] = {'head': {'norm': {'mean': np.zeros(1), 'var': np.ones(1)}}}
  variables['params']['head']['norm']['scale'] = np.float32([1.0])
  # A map of both signs.
  variables['params']['head']['norm']['bias'] = jnp.float32([0.1])
  return model, variables


@pytest.fixture(scope='module')
def images():
  """f32[H, W, 3] of each image at each scale."""
  rng = np.random.default_rng(1)
  sizes = [[np.round(size * scale).astype(int) for size in NATIVE] for scale in SCALES]
  return [[rng.normal(size=(*size, 3)).astype(np.float32) for size in row] for row in sizes]


@pytest.fixture(scope='module')
def logits(network, images):
  """f32[2, h, w, 1] of each image and its mirror image at each scale, each without padding."""
  model, variables = network
  forward = jax.jit(lambda x: model.apply(variables, x, train=False).logits)
  return [[np.asarray(forward(np.stack([x, x[:, ::-1]]))) for x in row] for row in images]


def _plain(logits, *, activation, inverted):
  """The definition, image by image."""
  results = []
  for number, native in enumerate(NATIVE):
    large, maps = 16 * ((native - 1) // 16 + 1), []
    for row in logits:
      assert (row[number] > 0).any()
      assert (row[number] < 0).any()
      active = activation(-row[number] if inverted else row[number])
      summed = active[0] + active[1][:, ::-1]
      maps.append(np.asarray(resize.bilinear(summed, tuple(large)))[: native[0], : native[1], 0])
    mean = np.mean(maps, axis=0)
    results.append(mean / (mean.max() + 1e-5))
  return results


def _padded(network, images, **options):
  """The package, both images in one batch of padded shapes."""
  model, variables = network

  def shape(sizes):
    return tuple(int(-(-n // MULTIPLE) * MULTIPLE) for n in np.max(sizes, axis=0))

  scale = jax.jit(
    lambda batch, size: saliency.scale_map(
      model, variables, batch, size, output_stride=STRIDE, **options
    )
  )
  maps, sizes = [], []
  for row in images:
    size = np.array([x.shape[:2] for x in row], np.int32)
    batch = np.zeros((len(row), *shape(size), 3), np.float32)
    for place, image in zip(batch, row, strict=True):
      place[: image.shape[0], : image.shape[1]] = image
    maps.append(scale(batch, size))
    sizes.append(size)
  fuse = jax.jit(
    lambda maps, sizes: saliency.fuse_maps(
      maps, sizes, NATIVE, output_stride=STRIDE, shape=shape(NATIVE)
    )
  )
  return np.asarray(fuse(maps, sizes))


@pytest.mark.parametrize(
  ('options', 'activation'),
  [
    ({}, lambda x: np.maximum(x, 0)),
    ({'inverted': True}, lambda x: np.maximum(x, 0)),
    ({'activation': saliency.Activation.SIGMOID}, lambda x: 1 / (1 + np.exp(-x))),
  ],
  ids=['relu', 'inverted', 'sigmoid'],
)
def test_padded_equals_unpadded(network, images, logits, options, activation):
  found = _padded(network, images, **options)
  inverted = options.get('inverted', False)
  expected = _plain(logits, activation=activation, inverted=inverted)
  for number, plain in enumerate(expected):
    height, width = NATIVE[number]
    np.testing.assert_allclose(found[number, :height, :width], plain, atol=1e-5)
    # What is not image is empty.
    assert not found[number, height:].any()
    assert not found[number, :, width:].any()
  assert 0 <= found.min() < found.max() < 1


def test_scales_are_averaged():
  """The mean of a map and itself is the map; its maximum is so small that eps shows."""
  rng = np.random.default_rng(0)
  one = jnp.asarray(rng.uniform(0, 1e-5, (1, 4, 4, 1)), jnp.float32)
  size = np.array([[16, 16]], np.int32)
  grids = {'output_stride': STRIDE, 'shape': (16, 16)}
  alone = saliency.fuse_maps([one], [size], size, **grids)
  twice = saliency.fuse_maps([one, one], [size, size], size, **grids)
  np.testing.assert_allclose(twice, alone, rtol=1e-6)
  assert 0.3 < alone.max() < 0.6
