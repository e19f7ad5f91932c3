"""Converts PyTorch weights of torchvision, timm and the official ResNeSt to our names and layouts.

A torch tensor `layer3.0.conv2.bn1.running_var` becomes `batch_stats/layer3/block0/conv2/bn1/var`.
Every tensor is either converted, ignored by a rule below, or returned as unknown.
"""

import re
from collections.abc import Mapping

import numpy as np

from pnoc_jax.nn import backbones

# Networks that were trained on images in the order blue, green, red.
_BGR = (backbones.Family.RESNET_CAFFE,)
# What checkpoints of whole classifiers put before the backbone's names.
_PREFIX = re.compile(r'(module\.)?(backbone\.|model\.|encoder_q\.)?')
# ImageNet's head or MoCo's, counters of batches, and what MoCo compares with.
_IGNORED = re.compile(
  r'fc\.(\d\.)?(weight|bias)|(.*\.)?num_batches_tracked|encoder_k\..*|queue(_ptr)?'
)
# Names of a head that is a 1 x 1 convolution without bias.
_HEADS = ('classifier.weight', 'fc8.weight')
# Checkpoints of PuzzleCAM and its descendants hold the backbone twice: `model.*` and `stage1.*`.
_ALIASES = re.compile(r'stage[1-5]\..*')

_MODULES = {
  backbones.Family.RESNET_BASIC: (
    (r'(conv1|bn1)', r'stem/\1'),
    (r'layer([1-4])\.(\d+)\.((?:conv|bn)[12])', r'layer\1/block\2/\3'),
    (r'layer([1-4])\.(\d+)\.downsample\.0', r'layer\1/block\2/shortcut_conv'),
    (r'layer([1-4])\.(\d+)\.downsample\.1', r'layer\1/block\2/shortcut_bn'),
  ),
  backbones.Family.RESNET: (
    (r'(conv1|bn1)', r'stem/\1'),
    (r'layer([1-4])\.(\d+)\.((?:conv|bn)[123])', r'layer\1/block\2/\3'),
    (r'layer([1-4])\.(\d+)\.downsample\.0', r'layer\1/block\2/shortcut_conv'),
    (r'layer([1-4])\.(\d+)\.downsample\.1', r'layer\1/block\2/shortcut_bn'),
  ),
  backbones.Family.RESNEST: (
    (r'conv1\.0', r'stem/conv1'),
    (r'conv1\.1', r'stem/bn1'),
    (r'conv1\.3', r'stem/conv2'),
    (r'conv1\.4', r'stem/bn2'),
    (r'conv1\.6', r'stem/conv3'),
    (r'bn1', r'stem/bn3'),
    (r'layer([1-4])\.(\d+)\.(conv1|bn1|conv3|bn3)', r'layer\1/block\2/\3'),
    (r'layer([1-4])\.(\d+)\.conv2\.(conv|bn0|fc1|bn1|fc2)', r'layer\1/block\2/conv2/\3'),
    (r'layer([1-4])\.(\d+)\.downsample\.1', r'layer\1/block\2/shortcut_conv'),
    (r'layer([1-4])\.(\d+)\.downsample\.2', r'layer\1/block\2/shortcut_bn'),
  ),
}
_MODULES[backbones.Family.RESNET_CAFFE] = _MODULES[backbones.Family.RESNET]

# Of the wide ResNet-38: in a block, and the block itself.
_PREACTIVATED = (
  (r'(bn|conv)_branch2a', r'\g<1>1'),
  (r'(bn|conv)_branch2b1', r'\g<1>2'),
  (r'(bn|conv)_branch2b2', r'\g<1>3'),
  (r'conv_branch1', 'shortcut_conv'),
)
_WIDE = {
  'b2': 'stem/block0',
  **{f'b2_{k}': f'stem/block{k}' for k in (1, 2)},
  'b3': 'layer1/block0',
  **{f'b3_{k}': f'layer1/block{k}' for k in (1, 2)},
  'b4': 'layer2/block0',
  **{f'b4_{k}': f'layer2/block{k}' for k in range(1, 6)},
  'b5': 'layer3/block0',
  **{f'b5_{k}': f'layer3/block{k}' for k in (1, 2)},
  'b6': 'layer4/block0',
  'b7': 'layer4/block1',
}
_MODULES[backbones.Family.RESNET38D] = (
  ('conv1a', 'stem/conv1'),
  ('bn7', 'layer4/block1/bn4'),
  *(
    (rf'{block}\.{pattern}', f'{path}/{replacement}')
    for block, path in _WIDE.items()
    for pattern, replacement in _PREACTIVATED
  ),
)
_CONV = {'weight': 'params/{}/kernel', 'bias': 'params/{}/bias'}
_NORM = {
  'weight': 'params/{}/scale',
  'bias': 'params/{}/bias',
  'running_mean': 'batch_stats/{}/mean',
  'running_var': 'batch_stats/{}/var',
}


def our_name(torch_name: str, family: backbones.Family) -> str | None:
  """Returns our name of a torch tensor without prefix, or None if the family has no such tensor."""
  module, _, leaf = torch_name.rpartition('.')
  for pattern, replacement in _MODULES[family]:
    match = re.fullmatch(pattern, module)
    if match:
      path = match.expand(replacement)
      leaves = _NORM if re.search(r'bn\d?$', path) else _CONV
      return leaves[leaf].format(path) if leaf in leaves else None
  return None


def from_torch(
  tensors: Mapping[str, np.ndarray], family: backbones.Family
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Converts a state dict.

  Args:
    tensors: torch names to arrays in torch's layouts; `module.`, `backbone.`, `model.` and
      `encoder_q.` (MoCo) before the names are ignored, so are `fc.*` and `num_batches_tracked`.
    family: the backbone's family.

  Returns:
    Our arrays by name, `params/backbone/stem/conv1/kernel`, with `params/classifier/kernel` where
    there is a `classifier.weight` (or `fc8.weight`); and the torch names that fit nothing, or
    something that another name has given already.
  """
  ours, unknown = {}, []
  for torch_name, value in tensors.items():
    short = _PREFIX.match(torch_name)
    name = torch_name[short.end() :]
    if _IGNORED.fullmatch(name) or _ALIASES.fullmatch(name):
      continue
    path = 'params/classifier/kernel' if name in _HEADS else _in_backbone(our_name(name, family))
    if path is None or path in ours:
      unknown.append(torch_name)
      continue
    value = _to_hwio(value)
    if family in _BGR and path == 'params/backbone/stem/conv1/kernel':
      value = value[:, :, ::-1]
    ours[path] = value
  return ours, unknown


def _in_backbone(name: str | None) -> str | None:
  """Returns `params/backbone/a/b` for the name `params/a/b`."""
  return name and name.replace('/', '/backbone/', 1)


def _to_hwio(value: np.ndarray) -> np.ndarray:
  """Returns a convolution's OIHW as HWIO (grouped ones too); vectors stay as they are."""
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
