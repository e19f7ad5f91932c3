"""What a training needs, from shapes alone."""

import jax
import pytest
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine import memory, networks, settings
from pnoc_jax.stages.common import stage
from pnoc_jax.updates import pnoc
from tests.configs import tiny

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
  config.generator.method = 'pnoc'
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
