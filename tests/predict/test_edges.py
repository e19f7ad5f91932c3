"""Edges and walks of padded batches equal those of each image alone, on any grid."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax.ops import resize
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import edges
from tests.ops import dense_walk

# Odd sizes, one of them a strip.
SIZES = np.array([[23, 37], [31, 9]], np.int32)
BUCKET = (32, 40)
WALK = {'radius': 3, 'beta': 4.0, 'exp_times': 4}


class Slopes(nn.Module):
  """Logits that depend on direction and position: a 3 x 3 convolution and a mean over the image."""

  stride: int

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    assert not train
    if valid is None:
      valid = np.ones(image.shape[:3], bool)
    image = image * valid[..., None]
    mean = image.sum((1, 2, 3)) / valid.sum((1, 2))
    x = nn.Conv(1, (3, 3), strides=self.stride, padding=1, name='edges')(image)[..., 0]
    return x + mean[:, None, None]


@pytest.fixture(scope='module')
def batch():
  """f32[2, 32, 40, 3], zero outside of the content."""
  image = np.zeros((2, *BUCKET, 3), np.float32)
  for x, (height, width) in zip(image, SIZES, strict=True):
    x[:height, :width] = np.random.default_rng(height).normal(size=(height, width, 3))
  return image


@pytest.mark.parametrize('stride', [2, 4])
def test_edges_of_a_padded_batch_are_those_of_each_image(batch, stride, mesh):
  model = Slopes(stride)
  variables = model.init(jax.random.key(0), batch)
  padded = jax.jit(lambda v, x, n: edges.edges(model, v, x, n, stride=stride))
  found = np.asarray(padded(variables, batch, SIZES))
  for row, (height, width) in enumerate(SIZES):
    alone = batch[row : row + 1, :height, :width]
    logits = np.asarray(model.apply(variables, alone))[0]
    mirrored = np.asarray(model.apply(variables, alone[:, :, ::-1]))[0]
    expected = 1 / (1 + np.exp(-(logits + mirrored[:, ::-1]) / 2))
    h, w = expected.shape
    np.testing.assert_allclose(found[row, :h, :w], expected, rtol=1e-4, atol=1e-5)
    assert (found[row, h:] == 1).all()
    assert (found[row, :, w:] == 1).all()
  # Over all devices: the same.
  spread = compiler.jit(
    lambda v, x, n: edges.edges(model, v, x, n, stride=stride),
    mesh,
    ins=(compiler.REPLICATED, compiler.BATCH, compiler.BATCH),
    outs=compiler.BATCH,
  )
  eight = spread(variables, np.tile(batch, (4, 1, 1, 1)), np.tile(SIZES, (4, 1)))
  np.testing.assert_allclose(eight[:2], found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('stride', [2, 4])
def test_walks_of_a_padded_batch_are_those_of_each_image(stride):
  rng = np.random.default_rng(0)
  quarters, cells = -(-SIZES // 4), -(-SIZES // stride)
  low = rng.uniform(size=(2, 8, 10, 2)).astype(np.float32)
  low[1, ..., 1] = 0  # Only fills up.
  edge = rng.uniform(size=(2, BUCKET[0] // stride, BUCKET[1] // stride)).astype(np.float32)
  walk = jax.jit(lambda low, e, n: edges.walk(low, e, n, stride=stride, shape=BUCKET, **WALK)[0])
  found = np.asarray(walk(low, edge, SIZES))
  assert found.shape == (2, *BUCKET, 2)
  for row, (height, width) in enumerate(SIZES):
    scores = low[row, : quarters[row, 0], : quarters[row, 1]]
    h, w = (int(n) for n in cells[row])
    scores = np.asarray(resize.bilinear(scores, (h, w)))
    alone = dense_walk.dense_walk(scores, edge[row, :h, :w], **WALK).astype(np.float32)
    large = np.asarray(resize.bilinear(alone, (stride * h, stride * w)))[:height, :width]
    np.testing.assert_allclose(
      found[row, :height, :width], large / large.max(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found[row].max(), 1, rtol=1e-6)
    assert not found[row, height:].any()
    assert not found[row, :, width:].any()
  assert not found[1, ..., 1].any()
