"""The maps that a training keeps of a few images: which, of what, and by which program."""

import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.readers import shapes
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import measure
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import images
from pnoc_jax.stages import generator
from pnoc_jax.stages.common import map_history
from tests.stages import contexts

COUNT, SIZE, CLASSES = 14, 16, len(shapes.CLASSES)


class Network(nn.Module):
  """The map of each class is a sum of the colours."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    return image @ self.param('weights', nn.initializers.ones, (3, CLASSES))


class Source(shapes.ShapesSource):
  """Of the images of `shapes` every other one has a label."""

  def __init__(self, *, masks):
    super().__init__(info.ShapesConfig(size=SIZE, train=COUNT), 'train')
    self.labels[1::2] = 0
    self.has_masks = masks


@pytest.fixture
def make(one_device, tmp_path, monkeypatch):
  """Makes the measurement of a training whose epochs have 3 steps; notes compiled programs."""
  programs = []
  original = measure.make_forward

  def spy(*arguments):
    programs.append(original(*arguments))
    return programs[-1]

  monkeypatch.setattr(measure, 'make_forward', spy)

  def build(*, masks, batch_size=2, **fields):
    source, config = Source(masks=masks), config_lib.PipelineConfig()
    ours = config.generator
    ours.batch_size, ours.eval_size, ours.epochs = batch_size, SIZE, 4
    for name, value in fields.items():
      setattr(ours, name, value)
    runtime = Runtime(tmp_path, one_device, one_device, config.runtime)
    monkeypatch.setattr(runtime, 'source', lambda *_, **__: source)
    context = contexts.make(generator.STAGE, config, {}, tmp_path, runtime)
    examples = pipeline.Examples(source)
    return generator._make_measure(ours, Network(), examples, context), source

  return build, programs


def _variables(seed):
  weights = np.random.default_rng(seed).normal(size=(3, CLASSES)).astype(np.float32)
  return {'params': {'weights': weights}}


def _kept(directory):
  return {str(x.relative_to(directory)): x.read_bytes() for x in directory.rglob('*.png')}


def test_maps_of_the_same_images_are_kept_after_each_epoch_without_any_mask(make, tmp_path):
  build, programs = make
  measured, source = build(masks=False)
  for epoch in (1, 2):
    assert measured(3 * epoch, _variables(epoch)) is None
  # Of the 7 images with a label six, in three batches of two.
  names = [source.ids[i] for i in (0, 2, 4, 8, 10, 12)]
  kept = _kept(tmp_path / 'maps')
  assert sorted(kept) == sorted(f'{e:04d}/train/{x}.png' for e in (1, 2) for x in names)
  mean, std = np.array(info.IMAGENET_MEAN), np.array(info.IMAGENET_STD)
  for epoch in (1, 2):
    for index in (0, 12):
      image = (source.example(index)['image'] / 255 - mean) / std
      cam = np.maximum(image @ _variables(epoch)['params']['weights'], 0)
      cam = (cam / (cam.max((0, 1)) + 1e-5))[..., source.labels[index] > 0].max(-1)
      path = map_history.path(tmp_path, epoch, 'train', source.ids[index])
      np.testing.assert_allclose(images.read_mask(path), 255 * cam, atol=1.01)
  # What a run that was killed writes again is the same.
  measured(6, _variables(2))
  assert _kept(tmp_path / 'maps') == kept
  assert [x.traces for x in programs] == [1]


def test_a_measurement_and_the_maps_share_a_program(make, tmp_path):
  build, programs = make
  measured, _ = build(masks=True, batch_size=4)
  assert 0 <= measured(3, _variables(1))['eval/miou'] <= 100
  assert len(_kept(tmp_path / 'maps')) == map_history.IMAGES
  assert [x.traces for x in programs] == [1]


def test_a_training_that_is_not_measured_keeps_no_maps(make):
  measured, _ = make[0](masks=True, eval_every=0)
  assert measured is None


@pytest.mark.parametrize('largest', [64, 96])
def test_images_are_squeezed_where_the_training_does_so(make, monkeypatch, largest):
  transform = transforms.TransformConfig(min_size=64, max_size=largest, crop=64)
  measured, _ = make[0](masks=False, transform=transform)
  seen, original = [], transforms.valid

  def spy(*arguments, **options):
    seen.append(options['squeeze'])
    return original(*arguments, **options)

  monkeypatch.setattr(transforms, 'valid', spy)
  measured(3, _variables(1))
  assert seen == [largest == 64] * 6


def test_a_map_that_is_0_everywhere_stays_so():
  cam = np.full((2, 2, 3), -1.0, np.float32)
  cam[0, 1, 2] = 5
  np.testing.assert_array_equal(map_history.largest(cam, np.array([1.0, 1, 0])), 0)
  np.testing.assert_array_equal(map_history.largest(cam, np.eye(3)[2]), [[0, 255], [0, 0]])
