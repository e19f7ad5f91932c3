import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from pnoc_jax import states
from pnoc_jax.nn import classifier
from pnoc_jax.ops import resize
from pnoc_jax.predict import cams

STRIDE, CLASSES, MULTIPLE = 4, 5, 8
# Odd sizes, one of them a strip; each image at two scales.
NATIVE = np.array([[23, 37], [31, 9]], np.int32)
SCALES = (1.0, 1.5)
PICKED = np.array([[3, 1], [0, 4]], np.int32)


@pytest.fixture(scope='module')
def network():
  """Stem and two stages of a narrow ResNeSt, with statistics that are not the initial ones."""
  backbone = networks.make_backbone(
    'resnest_tiny', output_stride=8, last_stage='layer2', widths=(4, 4, 4, 4), stem_width=4
  )
  model = classifier.Classifier(backbone, CLASSES)
  draw = jax.jit(lambda key: states.init_variables(model, key, (32, 32, 3)))
  variables = draw(jax.random.key(0))
  rng = np.random.default_rng(0)
  variables['batch_stats'] = jax.tree.map(
    lambda x: rng.uniform(0.2, 1.0, x.shape).astype(np.float32), variables['batch_stats']
  )
  return model, variables


@pytest.fixture(scope='module')
def images():
  """f32[H, W, 3] of each image at each scale."""
  rng = np.random.default_rng(1)
  sizes = [[np.round(size * scale).astype(int) for size in NATIVE] for scale in SCALES]
  return [[rng.normal(size=(*size, 3)).astype(np.float32) for size in row] for row in sizes]


def _plain(network, images):
  """The definition, image by image, without padding: (low, high, logits) of every image."""
  model, variables = network
  forward = jax.jit(lambda x: model.apply(variables, x, train=False))
  results = []
  for number, native in enumerate(NATIVE):
    small = (native - 1) // 4 + 1
    large = 16 * ((native - 1) // 16 + 1)
    low = high = 0
    logits = None
    for row in images:
      both = np.stack([row[number], row[number][:, ::-1]])
      cam = np.asarray(forward(both))
      logits = cam[0].mean((0, 1)) if logits is None else logits
      positive = np.maximum(cam, 0)
      summed = (positive[0] + positive[1][:, ::-1])[..., PICKED[number]]
      low = low + np.asarray(resize.bilinear(summed, tuple(small)))
      up = np.asarray(resize.bilinear(summed, tuple(large)))
      high = high + up[: native[0], : native[1]]
    results.append((low / (low.max((0, 1)) + 1e-5), high / (high.max((0, 1)) + 1e-5), logits))
  return results


def _padded(network, images, extra=0):
  """The package, both images in one batch of padded shapes."""
  model, variables = network

  def shape(sizes):
    return tuple(int(-(-n // MULTIPLE) * MULTIPLE + extra) for n in np.max(sizes, axis=0))

  maps, sizes, logits = [], [], None
  for row in images:
    size = np.array([x.shape[:2] for x in row], np.int32)
    batch = np.zeros((len(row), *shape(size), 3), np.float32)
    for place, image in zip(batch, row, strict=True):
      place[: image.shape[0], : image.shape[1]] = image
    found, scores = jax.jit(
      lambda batch, size: cams.scale_cams(model, variables, batch, size, output_stride=STRIDE)
    )(batch, size)
    maps.append(found)
    sizes.append(size)
    logits = scores if logits is None else logits
  low, high = jax.jit(
    lambda maps, sizes: cams.fuse_cams(
      maps, sizes, NATIVE, PICKED, output_stride=STRIDE, shape=shape(NATIVE)
    )
  )(maps, sizes)
  return np.asarray(low), np.asarray(high), np.asarray(logits)


@pytest.fixture(scope='module')
def padded(network, images):
  return _padded(network, images)


def test_padded_equals_unpadded(network, images, padded):
  low, high, logits = padded
  for number, (low_plain, high_plain, logits_plain) in enumerate(_plain(network, images)):
    (height, width), (rows, columns) = NATIVE[number], low_plain.shape[:2]
    np.testing.assert_allclose(low[number, :rows, :columns], low_plain, atol=1e-5)
    np.testing.assert_allclose(high[number, :height, :width], high_plain, atol=1e-5)
    np.testing.assert_allclose(logits[number], logits_plain, atol=1e-5)
    # What is not image is empty.
    assert not low[number, rows:].any()
    assert not low[number, :, columns:].any()
    assert not high[number, height:].any()
    assert not high[number, :, width:].any()


def test_the_bucket_does_not_matter(network, images, padded):
  wide = _padded(network, images, extra=16)
  for found, expected in zip(wide, padded, strict=True):
    common = tuple(slice(n) for n in expected.shape)
    np.testing.assert_allclose(found[common], expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(), expected.sum(), rtol=1e-5)


def test_each_map_is_over_its_own_maximum(padded):
  for maps in padded[:2]:
    largest = maps.max((1, 2))
    # One that is nowhere positive stays 0.
    assert np.all((np.abs(largest - 1) < 1e-2) | (largest == 0))
    assert np.sum(largest > 0) >= 3
    assert maps.min() >= 0


def test_classes_are_gathered_per_image():
  maps = [jnp.asarray(np.random.default_rng(0).random((2, 4, 6, CLASSES)), jnp.float32)]
  size = np.array([[16, 24], [16, 24]], np.int32)
  every = np.tile(np.arange(CLASSES, dtype=np.int32), (2, 1))
  fuse = {'output_stride': STRIDE, 'shape': (16, 24)}
  low_all, high_all = cams.fuse_cams(maps, [size], size, every, **fuse)
  low, high = cams.fuse_cams(maps, [size], size, PICKED, **fuse)
  for row, classes in enumerate(PICKED):
    np.testing.assert_allclose(low[row], low_all[row][..., classes], rtol=1e-6)
    np.testing.assert_allclose(high[row], high_all[row][..., classes], rtol=1e-6)


def test_without_flip_the_maps_are_those_of_the_image(network, images):
  model, variables = network
  image = images[0][0][:16, :32][None]
  size = np.array([[16, 32]], np.int32)
  found, _ = cams.scale_cams(model, variables, image, size, output_stride=STRIDE, flip=False)
  cam = cams.raw_cams(model, variables, image)
  np.testing.assert_allclose(found, np.maximum(cam, 0), atol=1e-6)
