"""The saliency stage on a few images of several sizes, with one convolution for a network."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine import loop, networks, per_image, settings
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, weights
from pnoc_jax.nn import backbones, layers
from pnoc_jax.parallel import mesh as mesh_lib
from pnoc_jax.stages import saliency
from pnoc_jax.stages.common import maps
from tests.stages import contexts

SIZES = {'one': (21, 30), 'two': (32, 26), 'bare': (20, 20), 'tiny': (9, 31), 'five': (13, 14)}


class Few:
  """Noise with a bright rectangle; `bare` has no class."""

  def __init__(self, split, exclude):
    self.info = info.DatasetInfo('few', ('a', 'b'), 'background', info.color_map(3))
    self.split, self.has_masks = split, False
    self.ids = tuple(name for name in SIZES if name not in exclude)
    self.labels = np.array([[name != 'bare', 0] for name in self.ids], np.float32)

  def __len__(self):
    return len(self.ids)

  def size(self, index):
    return SIZES[self.ids[index]]

  def target(self, index):
    height, width = self.size(index)
    target = np.zeros((height, width), np.uint8)
    if self.labels[index].any():
      target[: height // 2, width // 3 :] = 255
    return target

  def example(self, index):
    rng = np.random.default_rng(list(SIZES).index(self.ids[index]))
    image = rng.integers(0, 120, (*self.size(index), 3)) + self.target(index)[..., None] // 2
    return {'image': image.astype(np.uint8), 'label': self.labels[index]}


class Runtime(Runtime):
  """Stops when it has been asked so many times."""

  stop_after = 10**6
  asked = 0

  def source(self, config, split, *, without=frozenset()):
    del config
    return Few(split, self.quarantined.get(split, frozenset()) | without)


class Net(nn.Module):
  """A 3 x 3 convolution instead of PoolNet."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del train
    logits = layers.Conv(1, 3, name='decoder')(image, valid)
    return layers.zero_invalid(logits, valid)[..., 0]


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setattr(saliency, 'build', lambda config: Net())
  result = config_lib.PipelineConfig()
  ours = result.saliency
  ours.model = settings.ModelConfig()
  ours.tiny, ours.epochs, ours.optim.lr, ours.optim.accumulate = 9, 8, 0.05, 3
  return result


def make_runtime(workdir, *, devices=1, stop_after=10**6):
  mesh = mesh_lib.make_mesh(jax.devices()[:devices])
  run = RuntimeConfig(log_every=1, save_every=1, tensorboard=False)
  runtime = Runtime(workdir, mesh, mesh, run)

  def should_stop():
    runtime.asked += 1
    return runtime.asked >= stop_after

  runtime.should_stop = should_stop
  return runtime


def write_masks(directory):
  source = Few('train', ())
  (directory / 'train').mkdir(parents=True)
  for i, name in enumerate(source.ids):
    images.write_png(directory / 'train' / f'{name}.png', source.target(i))
  return {'saliency_priors': directory}


def read(out):
  return {
    (split, name): images.read_mask(out / split / f'{name}.png')
    for split in ('train', 'val')
    for name in SIZES
  }


def test_maps_of_every_image_are_those_of_the_trained_network(config, tmp_path):
  inputs, out = write_masks(tmp_path / 'masks'), tmp_path / 'saliency'
  facts = contexts.run(saliency.STAGE, config, inputs, out, make_runtime(tmp_path))
  assert facts['images'] == 10
  variables, meta = weights.load(out)
  assert meta['stage'] == 'saliency' and meta['width'] == 128
  source, found = Few('train', ()), read(out)
  apply = jax.jit(Net().apply)
  mean, std = source.info.mean, source.info.std
  for i, name in enumerate(source.ids):
    image, target = source.example(i)['image'], source.target(i)
    grey = found['train', name]
    assert grey.shape == target.shape
    if name == 'tiny':
      continue  # Inferred at twice its size.
    logits = apply(variables, jnp.asarray((image / 255 - mean) / std, jnp.float32)[None])[0]
    expected = 255 / (1 + np.exp(-np.asarray(logits)))
    assert np.abs(grey - expected).max() < 0.51
  # It has learnt, from four images: the one without a class, whose mask is 0, and not the tiny one.
  steps = (out / 'metrics.jsonl').read_text().splitlines()
  assert len(steps) == 32
  salient = source.target(0) > 0
  assert found['train', 'one'][salient].mean() > found['train', 'one'][~salient].mean() + 40


def test_images_one_by_one_train_one_of_eight_devices_as_one_alone(config, tmp_path):
  config.saliency.epochs, found = 1, []
  for devices in (1, 8):
    out = tmp_path / str(devices)
    where = config, write_masks(out / 'masks'), out, make_runtime(tmp_path, devices=devices)
    contexts.check(saliency.STAGE, *where)
    found.append(saliency._train(Net(), contexts.make(saliency.STAGE, *where)))
  jax.tree.map(np.testing.assert_array_equal, *found)


def test_splits_share_their_programs(config, tmp_path, monkeypatch):
  traced, scale_map = [], saliency.predict.scale_map

  def spy(model, variables, image, size):
    traced.append(image.shape)
    return scale_map(model, variables, image, size)

  monkeypatch.setattr(saliency.predict, 'scale_map', spy)
  context = contexts.make(saliency.STAGE, config, {}, tmp_path, make_runtime(tmp_path))
  variables = {'params': {'decoder': {'kernel': np.ones((3, 3, 3, 1), np.float32)}}}
  inferences = saliency._make_inferences(Net(), variables, context)
  for split in ('train', 'val'):
    job = saliency._job(inferences, Few(split, ()), context)
    assert per_image.make(job, context.runtime) == 5
  assert len(traced) == len(set(traced)) > 0


@pytest.mark.parametrize('stop_after', [5, 27])
def test_stopped_anywhere_it_ends_with_the_same_files(config, tmp_path, stop_after):
  inputs = write_masks(tmp_path / 'masks')
  contexts.run(saliency.STAGE, config, inputs, tmp_path / 'whole', make_runtime(tmp_path))
  out = tmp_path / 'parts'
  stopped = make_runtime(tmp_path, stop_after=stop_after)
  with pytest.raises(loop.Interrupted):
    contexts.run(saliency.STAGE, config, inputs, out, stopped)
  assert not all(maps.exists_png(out / 'train' / f'{name}.png') for name in SIZES)
  contexts.run(saliency.STAGE, config, inputs, out, make_runtime(tmp_path))
  for split in ('train', 'val'):
    for name in SIZES:
      expected = (tmp_path / 'whole' / split / f'{name}.png').read_bytes()
      assert (out / split / f'{name}.png').read_bytes() == expected


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (lambda path: path.unlink(), 'two.png: missing'),
    (lambda path: images.write_png(path, np.zeros((32, 27), np.uint8)), r'27x32 px, .* is 26x32'),
    (lambda path: path.write_bytes(path.read_bytes()[:-9]), 'two.png'),
    (lambda path: images.write_png(path, np.zeros((32, 26, 3), np.uint8)), 'mode RGB'),
  ],
)
def test_masks_that_do_not_fit_are_refused_before_work(config, tmp_path, spoil, message):
  inputs = write_masks(tmp_path / 'masks')
  spoil(tmp_path / 'masks' / 'train' / 'two.png')
  where = config, inputs, tmp_path / 'saliency', make_runtime(tmp_path)
  with pytest.raises(UserError, match=message):
    contexts.check(saliency.STAGE, *where)
  with pytest.raises(UserError, match=message):
    contexts.run(saliency.STAGE, *where)
  assert not (tmp_path / 'saliency' / 'train').exists()


def test_images_move_to_the_corner_with_their_targets():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
  target = rng.integers(0, 256, (2, 8, 8), np.uint8)
  box = np.array([[1, 3, 8, 8], [0, 0, 8, 6]], np.int32)
  dataset = Few('train', ()).info
  batch = {'image': image, 'target': target, 'box': box}
  found = saliency.make_prepare(dataset, whole=False)(jax.tree.map(jnp.asarray, batch))
  for i, (y0, x0, y1, x1) in enumerate(box):
    height, width = y1 - y0, x1 - x0
    content = (i, slice(height), slice(width))
    expected = (image[i, y0:y1, x0:x1] / 255 - dataset.mean) / dataset.std
    np.testing.assert_allclose(found['image'][content], expected, atol=1e-5)
    np.testing.assert_allclose(found['target'][content], target[i, y0:y1, x0:x1] / 255, atol=1e-6)
    valid = np.zeros((8, 8), bool)
    valid[:height, :width] = True
    np.testing.assert_array_equal(found['valid'][i], valid)


def test_a_network_sees_its_own_colours():
  config = config_lib.PipelineConfig().saliency
  dataset = Few('train', ()).info
  row = backbones.info('resnet50_caffe')
  assert networks.colours(config.model, dataset).mean == row.mean
  # The mean is of red, green, blue in 0..255, and nothing is divided by a deviation.
  np.testing.assert_allclose(np.array(row.mean) * 255, [122.67892, 116.66877, 104.00699])
  config.model.backbone = 'tf_efficientnet_lite0'
  assert networks.colours(config.model, dataset).std == (0.5, 0.5, 0.5)
  # Its colours are red, green and blue; those of a microscope's four channels are the data set's.
  four = dataclasses.replace(dataset, mean=(0.1,) * 4, std=(0.2,) * 4)
  assert networks.colours(config.model, four) is four
  config.model.backbone = 'resnest50'
  assert networks.colours(config.model, dataset) is dataset
  assert saliency.build(config_lib.PipelineConfig().saliency).backbone.options.before_pool
