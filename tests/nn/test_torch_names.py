"""Names of foreign checkpoints."""

import numpy as np

from pnoc_jax.nn import backbones, torch_names

RESNEST = backbones.Family.RESNEST


def test_names():
  expected = {
    'conv1.0.weight': 'params/stem/conv1/kernel',
    'bn1.running_var': 'batch_stats/stem/bn3/var',
    'layer1.0.conv2.conv.weight': 'params/layer1/block0/conv2/conv/kernel',
    'layer3.12.conv2.fc2.bias': 'params/layer3/block12/conv2/fc2/bias',
    'layer2.0.downsample.2.weight': 'params/layer2/block0/shortcut_bn/scale',
    'layer2.0.downsample.0.weight': None,
    'layer2.0.bn2.weight': None,
    'layer5.0.conv1.weight': None,
  }
  assert {name: torch_names.our_name(name, RESNEST) for name in expected} == expected


def test_checkpoints_of_whole_classifiers():
  kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
  head = np.zeros((5, 2, 1, 1), np.float32)
  for prefix in ('', 'module.', 'backbone.', 'model.', 'module.backbone.'):
    tensors = {
      f'{prefix}conv1.0.weight': kernel,
      f'{prefix}fc.weight': head,
      f'{prefix}bn1.num_batches_tracked': np.zeros(()),
      'stage1.0.0.weight': kernel,
      'classifier.weight': head,
      'decoder.weight': head,
    }
    ours, unknown = torch_names.from_torch(tensors, RESNEST)
    assert set(ours) == {'params/backbone/stem/conv1/kernel', 'params/classifier/kernel'}
    assert unknown == ['decoder.weight']
    found = ours['params/backbone/stem/conv1/kernel']
    assert found.shape == (2, 2, 3, 2) and found[1, 0, 2, 1] == kernel[1, 2, 1, 0]
