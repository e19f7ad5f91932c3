"""What a training needs, from shapes alone."""

import jax
import numpy as np
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine import networks, settings
from pnoc_jax.runs import estimates
from pnoc_jax.stages import generator
from tests.configs import tiny


class _Scale(nn.Module):
  @nn.compact
  def __call__(self, image, *, train):
    return image * self.param('w', nn.initializers.ones, (3,))


def test_activations_are_what_the_backward_pass_keeps():
  dataset = info.DatasetInfo('x', ('a',), 'b', info.color_map(2))
  # d/dw of w * image needs the image; d/dimage needs w alone.
  assert estimates.kept_an_image(_Scale(), dataset, (6, 5, 3)) == 6 * 5 * 3 * 4
  assert estimates.kept_an_image(_Scale(), dataset, (6, 5, 3), by_image=True) == 0


def test_memory_follows_the_method_the_optimiser_and_the_devices():
  config = tiny.get_config()
  dataset = info.DatasetInfo('x', tuple('abc'), 'b', info.color_map(4))
  need = {}
  for method in generator.Method:
    config.generator.method = method
    need[method.value] = estimates.memory('generator', config, dataset, devices=2)
  vanilla, pnoc = need['vanilla'], need['pnoc']
  model = networks.build(config.generator.model, 3)
  params = networks.abstract_variables(model, dataset)['params']
  size = sum(4 * x.size for x in jax.tree.leaves(params))
  assert vanilla.gradients == size and vanilla.optimizer == 2 * size  # Adam.
  assert need['puzzle'].activations == 2 * vanilla.activations
  assert need['poc'].activations > need['puzzle'].activations
  assert pnoc.activations == need['poc'].activations and pnoc.optimizer == 4 * size
  assert pnoc.count == 2 * vanilla.count
  half = estimates.memory('generator', config, dataset, devices=4)
  assert half.activations == pnoc.activations // 2 and half.state == pnoc.state
  config.generator.model.remat = True
  less = estimates.memory('generator', config, dataset, devices=2)
  assert less.activations < pnoc.activations and less.state == pnoc.state


def test_a_network_that_sees_whole_images_needs_memory_for_the_largest():
  config = tiny.get_config()
  dataset = info.DatasetInfo('x', tuple('abc'), 'b', info.color_map(4))
  square = estimates.memory('saliency', config, dataset, devices=1, largest=99)
  assert config.saliency.transform.crop == 32
  config.saliency.transform.crop = 0
  assert estimates.memory('saliency', config, dataset, devices=1, largest=32) == square


def test_room_on_the_disk_counts_maps_of_the_splits_that_have_them():
  config = tiny.get_config()
  labels, sizes = np.array([[1, 1, 0], [0, 0, 1]]), np.array([[10, 20], [30, 10]])
  maps = 2 * 200 + 300
  found = {
    name: estimates.product_bytes(name, config, 'train', labels, sizes)
    for name in ('priors', 'random_walk', 'pseudo_masks', 'classifier')
  }
  assert found == {
    'priors': int(maps * 2.25 * 0.55),
    'random_walk': int(maps * 2 * 0.67),
    'pseudo_masks': int(500 * 0.03),
    'classifier': 0,
  }
  assert estimates.product_bytes('priors', config, 'test', labels, sizes) == 0
  assert [estimates.readable(x) for x in (900, 1536, 5 << 30, 3e12)] == [
    '900 bytes', '1.5 KiB', '5 GiB', '2.73 TiB'
  ]  # fmt: skip


def test_a_config_of_stages_is_known_by_their_names():
  assert set(estimates.TRAINED) == {
    name for name in config_lib.PipelineConfig.__slots__
    if hasattr(getattr(config_lib.PipelineConfig(), name), 'optim')
  }  # fmt: skip
  assert settings.as_dict(info.DatasetConfig())['source'] == 'files'
