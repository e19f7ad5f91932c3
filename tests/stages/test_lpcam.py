"""The stage `priors` with LPCAM, on a network of one convolution, against plain NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.engine import loop, networks, per_image
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.io import images, products, weights
from pnoc_jax.nn import classifier
from pnoc_jax.ops import resize
from pnoc_jax.predict import lpcam as inference
from pnoc_jax.stages import priors
from pnoc_jax.stages.common import lpcam
from tests.stages import contexts

STRIDE, WIDTH, SIZE = 4, 5, 18
SCALES = (1.0, 1.5)


class Backbone(nn.Module):
  """A convolution and its relu, at stride 4: the interface of `nn.trunk`."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del train
    x = nn.relu(nn.Conv(WIDTH, (3, 3), strides=STRIDE, padding=1, name='conv')(image))
    return {'layer1': x}, None if valid is None else {'layer1': valid[:, ::STRIDE, ::STRIDE]}


@pytest.fixture(scope='module')
def source():
  """Images whose sides the stride does not divide."""
  return shapes.ShapesSource(info.ShapesConfig(size=SIZE, train=7), 'train')


@pytest.fixture(scope='module')
def network(source):
  model = classifier.Classifier(Backbone(), source.info.num_classes)
  params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
  params = jax.tree.map(lambda x: 3 * np.asarray(x), params)
  return model, {'params': params, 'batch_stats': {}}


@pytest.fixture
def made(network, source, one_device, monkeypatch, tmp_path):
  """The stage's context."""
  model, variables = network
  monkeypatch.setattr(networks, 'build', lambda *_: model)
  monkeypatch.setattr(networks, 'load', lambda *_: dict(variables))
  monkeypatch.setattr(networks, 'stride', lambda *_: STRIDE)
  config = config_lib.PipelineConfig()
  config.priors = priors.PriorsConfig(
    splits=('train',), scales=SCALES, maps=priors.PriorMaps.LPCAM, batch_size=4, multiple=8
  )
  config.priors.lpcam = lpcam.LpcamConfig(clusters=3, positions=500, steps=4)
  runtime = Runtime(tmp_path, one_device, one_device, RuntimeConfig())
  monkeypatch.setattr(runtime, 'source', lambda *_: source)
  return contexts.make(priors.STAGE, config, {'generator': tmp_path}, tmp_path, runtime)


def _features(network, image):
  """f[h, w, D] of an image u8 and of its mirror image, put back."""
  _, variables = network
  image = (image / np.float32(255) - info.IMAGENET_MEAN) / np.array(info.IMAGENET_STD, np.float32)
  both = np.stack([image, image[:, ::-1]]).astype(np.float32)

  found, _ = Backbone().apply({'params': variables['params']['backbone']}, both)
  return np.asarray(found['layer1'][0]), np.asarray(found['layer1'][1, :, ::-1])


def test_the_sample_has_the_cells_of_both_sides(made, network, source, tmp_path):
  config = made.config
  kernel = np.asarray(inference.classifier_kernel(network[1]))
  share = tmp_path / 'share.safetensors'
  assert lpcam._sample(lpcam._Look(*network, config.priors, made, STRIDE), share)
  found, _ = weights.load(share)
  wanted = {}
  for index in range(len(source)):
    features, mirrored = _features(network, source.example(index)['image'])
    cam = np.maximum(features @ kernel, 0) + np.maximum(mirrored @ kernel, 0)
    for k in np.flatnonzero(source.labels[index]):
      high = cam[..., k] / (cam[..., k].max() + 1e-5) > config.priors.lpcam.threshold
      for side, chosen in (('foreground', high), ('context', ~high)):
        wanted.setdefault((str(k), side), []).append(features[chosen])
  assert {(k, side) for k, sides in found.items() for side in sides} == set(wanted)
  for (k, side), parts in wanted.items():
    points = found[k][side]['points']
    assert points.dtype == np.float16
    ours, theirs = (x[np.lexsort(x.T)] for x in (points, np.float16(np.concatenate(parts))))
    np.testing.assert_allclose(
      ours.astype(np.float32).sum(0), theirs.astype(np.float32).sum(0), rtol=2e-3
    )
    assert len(ours) == len(theirs)


def test_a_signal_leaves_no_sample(made, network, tmp_path):
  made.runtime.should_stop = lambda: True
  with pytest.raises(loop.Interrupted, match='shares that are whole are kept'):
    lpcam.make_vectors(*network, made.config.priors, made, output_stride=STRIDE)
  assert not list(tmp_path.iterdir())


def test_priors_are_the_cosines_summed_over_scales_and_resume(made, network, source, monkeypatch):
  out = made.out
  priors.run(made)
  assert sorted(x.name for x in out.iterdir()) == [lpcam.FILE, 'train']
  found, _ = weights.load(out / lpcam.FILE)
  assert found['vectors'].shape == (WIDTH, 6) and (found['prototypes'][:, 0] > 0).any()
  index = 2
  image, present = source.example(index)['image'], np.flatnonzero(source.labels[index])
  total = 0
  for scale in SCALES:
    side = round(SIZE * scale)
    scaled = images.resize_bicubic(image, (side, side))
    summed = sum(_features(network, scaled))
    unit = summed / np.maximum(np.linalg.norm(summed, axis=-1, keepdims=True), 1e-12)
    maps = np.maximum(unit @ found['vectors'], 0)[..., present]
    total = total + np.asarray(resize.bilinear(maps, (32, 32)))[:SIZE, :SIZE]
  expected = np.moveaxis(total / (total.max((0, 1)) + 1e-5), -1, 0)
  path = per_image.image_path(out, 'train', source.ids[index], '.npz')
  prior = products.read_prior(path, size=(SIZE, SIZE), num_classes=6)
  np.testing.assert_allclose(prior.high, expected, atol=2e-3)

  before = path.read_bytes()
  path.unlink()
  monkeypatch.setattr(lpcam, '_sample', None)
  priors.run(made)
  assert path.read_bytes() == before


def test_samples_of_parts_join_to_that_of_the_whole():
  rng = np.random.default_rng(0)
  chances, points = rng.random(60), np.arange(120.0).reshape(60, 2)
  whole = lpcam.Sample(8)
  whole.add(chances, points)
  order = rng.permutation(60)
  parts = []
  for some in (order[:25], order[25:]):
    parts.append(lpcam.Sample(8))
    for few in np.array_split(some, 4):
      parts[-1].add(chances[few], points[few])
  joined = lpcam.Sample(8)
  for part in parts:
    joined.add(part.chances, part.points)
  np.testing.assert_array_equal(joined.points, points[np.argsort(chances)[:8]])
  np.testing.assert_array_equal(whole.points, joined.points)


def test_faults_are_told():
  config = lpcam.LpcamConfig(clusters=9, positions=8, steps=0)
  assert len(lpcam.faults(config)) == 2
  assert not lpcam.faults(lpcam.LpcamConfig())
