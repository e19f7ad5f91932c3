"""EfficientNet-Lite under every network, and its sizes."""

import jax
import jax.numpy as jnp
import pytest

from pnoc_jax.nn import (
  affinity_net,
  backbones,
  c2am,
  classifier,
  deeplab,
  efficientnet_lite,
  poolnet,
)

SMALL = efficientnet_lite.make_row('small', width=0.5, depth=0.5)
IMAGE = jax.ShapeDtypeStruct((2, 65, 94, 3), jnp.float32)


def _backbone(**options):
  return backbones.make_backbone(SMALL, backbones.Options(**options))


@pytest.mark.parametrize(
  ('network', 'shape'),
  [
    (classifier.Classifier(_backbone(), 4), (2, 5, 6, 4)),
    (deeplab.DeepLab(_backbone(), 4, width=8, low_width=4), (2, 65, 94, 4)),
    # Edges are on layer1's grid, a quarter of the image, whatever the stem's is.
    (affinity_net.AffinityNet(_backbone(), _backbone().plan, width=8), (2, 17, 24)),
    (c2am.C2AM(_backbone()), (2, 5, 6, 1)),
    (poolnet.PoolNet(_backbone(before_pool=True), width=8), (2, 65, 94)),
  ],
  ids=['classifier', 'deeplab', 'affinity', 'c2am', 'poolnet'],
)
def test_it_is_a_backbone_of_every_network(network, shape):
  found, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), IMAGE)
  assert getattr(found, 'logits', found).shape == shape


def test_the_features_are_those_of_the_last_convolution():
  features, _ = jax.eval_shape(_backbone().init_with_output, jax.random.key(0), IMAGE)[0]
  assert {name: x.shape[-1] for name, x in features.items()} == SMALL.channels
  assert features['layer4'].shape == (2, 5, 6, 1280)


def test_widths_are_rounded_and_neither_stem_nor_head_is_scaled():
  lite4 = backbones.info('tf_efficientnet_lite4')
  assert lite4.channels == {
    'stem': 24,
    'layer1': 32,
    'layer2': 56,
    'layer3': 160,
    'layer4': 1280,
  }
  shapes = jax.eval_shape(
    backbones.make_backbone(lite4).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )['params']
  assert shapes['stem']['conv1']['kernel'].shape == (3, 3, 3, 32)
  assert shapes['layer4']['part1']['block0']['conv3']['kernel'].shape[-1] == 448
  assert 'block1' not in shapes['layer4']['part1']


def test_a_stage_that_keeps_its_grid_dilates_after_its_first_block():
  backbone = _backbone(output_stride=16)
  stage = SMALL.make_stage(SMALL, backbone.options, 3, 56)
  assert [part['first']['dilation'] for part in stage.parts] == [1, 2]
  assert [part['rest']['dilation'] for part in stage.parts] == [2, 2]
  assert all(part['first'].get('stride', 1) == 1 for part in stage.parts)
  eighth = SMALL.make_stage(SMALL, _backbone(output_stride=8).options, 3, 56)
  assert [part['first']['dilation'] for part in eighth.parts] == [2, 4]
