import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax.nn import layers
from pnoc_jax.ops import resize
from pnoc_jax.predict import segmentation

LABELS = 3
# Odd sizes, one of them a strip; each image at two scales.
NATIVE = np.array([[13, 22], [19, 5]], np.int32)
SCALES = (1.0, 1.5)


class Net(nn.Module):
  """A convolution: what a network must do with `valid` is tested with the networks."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    assert not train
    x = layers.Conv(LABELS, 3, use_bias=True, name='conv')(image, valid)
    return layers.zero_invalid(x, valid)


@pytest.fixture(scope='module')
def network():
  rng = np.random.default_rng(0)
  conv = {'kernel': rng.normal(size=(3, 3, 3, LABELS)), 'bias': rng.normal(size=LABELS)}
  return Net(), {'params': {'conv': {k: v.astype(np.float32) for k, v in conv.items()}}}


@pytest.fixture(scope='module')
def images():
  """f32[H, W, 3] of each image at each scale."""
  rng = np.random.default_rng(1)
  sizes = [[np.round(size * scale).astype(int) for size in NATIVE] for scale in SCALES]
  return [[rng.normal(size=(*size, 3)).astype(np.float32) for size in row] for row in sizes]


def _plain(network, images, *, flip):
  """The definition, image by image, without padding."""
  model, variables = network
  results = []
  for number, native in enumerate(NATIVE):
    total = 0
    for row in images:
      logits = model.apply(variables, row[number][None])[0]
      total += resize.bilinear(logits, tuple(native))
      if flip:
        mirrored = model.apply(variables, row[number][None, :, ::-1])[0]
        total += resize.bilinear(mirrored, tuple(native))[:, ::-1]
    results.append(np.asarray(jax.nn.softmax(total / len(images))))
  return results


def _padded(network, images, *, flip, extra=0):
  """The package, both images in one batch of padded shapes."""
  model, variables = network
  batches, sizes = [], []
  for row in images:
    size = np.array([x.shape[:2] for x in row], np.int32)
    batch = np.zeros((len(row), *(size.max(0) + 3 + extra), 3), np.float32)
    for place, image in zip(batch, row, strict=True):
      place[: image.shape[0], : image.shape[1]] = image
    batches.append(batch)
    sizes.append(size)
  shape = tuple(int(n) + extra for n in NATIVE.max(0))
  run = jax.jit(
    lambda *arguments: segmentation.probabilities(
      model, variables, *arguments, shape=shape, flip=flip
    )
  )
  return np.asarray(run(batches, sizes, NATIVE))


@pytest.mark.parametrize(('flip', 'extra'), [(True, 0), (True, 7), (False, 0)])
def test_padded_equals_unpadded(network, images, flip, extra):
  found = _padded(network, images, flip=flip, extra=extra)
  for number, expected in enumerate(_plain(network, images, flip=flip)):
    height, width = NATIVE[number]
    np.testing.assert_allclose(found[number, :height, :width], expected, atol=1e-5)


def test_an_image_and_its_mirror_image_have_mirrored_probabilities(network, images):
  straight = _padded(network, images, flip=True)
  mirrored = _padded(network, [[x[:, ::-1] for x in row] for row in images], flip=True)
  for number, (height, width) in enumerate(NATIVE):
    content = straight[number, :height, :width]
    np.testing.assert_allclose(mirrored[number, :height, :width], content[:, ::-1], atol=1e-5)


def test_logits_are_the_network_s(network):
  model, variables = network
  image = jnp.ones((1, 4, 4, 3))
  np.testing.assert_array_equal(
    segmentation.logits(model, variables, image), model.apply(variables, image)
  )
