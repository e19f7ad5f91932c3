"""What a training needs, from shapes alone."""

import pathlib

import jax
import pytest
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine import memory, networks, settings
from pnoc_jax.stages.common import stage
from pnoc_jax.updates import pnoc
from tests.configs import tiny
from tests.stages import contexts, label_maps

DATASET = info.DatasetInfo('x', tuple('abc'), 'b', info.color_map(4))
STAGES = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}


def _need(name, config, *, devices=2, largest=0):
  return STAGES[name].memory(config, DATASET, memory.Load(devices, largest))


class _Scale(nn.Module):
  @nn.compact
  def __call__(self, image, *, train):
    return image * self.param('w', nn.initializers.ones, (3,))


def test_activations_are_what_the_backward_pass_keeps():
  dataset = info.DatasetInfo('x', ('a',), 'b', info.color_map(2))
  # d/dw of w * image needs the image; d/dimage needs w alone.
  assert memory.kept_an_image(_Scale(), dataset, (6, 5, 3)) == 6 * 5 * 3 * 4
  assert memory.kept_an_image(_Scale(), dataset, (6, 5, 3), by_image=True) == 0


def test_memory_follows_the_method_the_optimiser_and_the_devices():
  config, need = tiny.get_config(), {}
  for method in pnoc.METHODS:
    config.generator.method = method
    need[method] = _need('generator', config)
  vanilla, full = need['vanilla'], need['pnoc']
  model = networks.build(config.generator.model, 3)
  params = networks.abstract_variables(model, DATASET)['params']
  size = sum(4 * x.size for x in jax.tree.leaves(params))
  assert vanilla.gradients == size and vanilla.optimizer == 2 * size  # Adam.
  assert need['puzzle'].activations == 2 * vanilla.activations
  assert need['poc'].activations > need['puzzle'].activations
  assert full.activations == need['poc'].activations and full.optimizer == 4 * size
  assert full.count == 2 * vanilla.count
  config.generator.method, config.generator.leak_noc_grad = 'pnoc', True
  assert _need('generator', config).optimizer == 5 * size  # Sums of what leaks to the noc.
  config.generator.leak_noc_grad = False
  half = _need('generator', config, devices=4)
  assert half.activations == full.activations // 2 and half.state == full.state
  config.generator.model.remat = True
  less = _need('generator', config)
  assert less.activations < full.activations and less.state == full.state


def test_the_classifier_trains_as_a_vanilla_generator():
  config = tiny.get_config()
  config.generator.method = 'vanilla'
  assert _need('classifier', config) == _need('generator', config)


def test_a_network_that_sees_whole_images_needs_memory_for_the_largest():
  config = tiny.get_config()
  square = _need('saliency', config, devices=1, largest=99)
  assert config.saliency.transform.crop == 32
  config.saliency.transform.crop = 0
  assert _need('saliency', config, devices=1, largest=32) == square


@pytest.mark.parametrize('name', STAGES)
def test_a_stage_that_trains_says_what_it_needs(name):
  """A training has an optimiser and a title."""
  entry = STAGES[name]
  trains = hasattr(getattr(config_lib.PipelineConfig(), name), 'optim')
  assert issubclass(entry.config, settings.TrainingConfig) == trains
  assert (entry.memory is not None) == bool(entry.training_title) == trains


def _work(name, config, size, classes=1):
  """Of the first thing that a stage does, of images of one size."""
  context = contexts.make(STAGES[name], config, {}, pathlib.Path(), label_maps.make_runtime('.'))
  (need, *_) = STAGES[name].work(context, memory.Images(size, classes))
  return need


def test_large_photographs_are_told_before_work(monkeypatch):
  """12 megapixels at a time: fused maps count on the device, and images and maps on the host."""
  config, size = tiny.get_config(), (3000, 4000)
  config.priors.scales, config.priors.batch_size = (1.0,), 8
  monkeypatch.setattr(memory, 'host_bytes', lambda: 16 << 30)
  need, more = (_work('priors', config, size, classes) for classes in (1, 4))
  pixels = size[0] * size[1]
  assert need.host >= pixels * (5 * 3 + 3 * 4) and more.host >= need.host + 3 * 3 * 4 * pixels
  assert more.device >= 2 * 2 * 4 * 4 * pixels  # Maps of all classes are read and written.
  fitting = need.fitting(1)
  assert 1 <= fitting < 8
  said = need.describe(fitting)
  assert f'up to 4000x3000 px: each in work needs about {need.device / 2**30:.1f} GiB' in said
  assert f'so {fitting} at a time in place of 8' in said
  assert 'not even one may fit. Take smaller scales' in need.describe(0)


def test_an_image_that_is_small_is_not_looked_at(monkeypatch):
  monkeypatch.setattr(memory.jax, 'make_jaxpr', None)
  config = tiny.get_config()
  for name in ('priors', 'saliency_priors', 'saliency', 'random_walk', 'predictions'):
    need = _work(name, config, (32, 32))
    assert need.fitting(1) >= need.at_once


@pytest.mark.parametrize('name', ['pseudo_masks', 'random_walk'])
def test_crf_and_walk_are_estimated(monkeypatch, name):
  monkeypatch.setattr(memory, 'host_bytes', lambda: 4 << 30)
  config, size = tiny.get_config(), (1500, 2000)
  one, four = (sum(_work(name, config, size, classes)[1:3]) for classes in (1, 4))
  assert 1500 * 2000 * 60 < one < four < 1500 * 2000 * 6000
