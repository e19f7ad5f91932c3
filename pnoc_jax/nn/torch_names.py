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
_PREFIX = re.compile(r'(module\.)?(backbone\.|model\.)?')
# ImageNet's head, and counters of batches.
_IGNORED = re.compile(r'fc\.(weight|bias)|.*\.num_batches_tracked|num_batches_tracked')
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
    tensors: torch names to arrays in torch's layouts; `module.`, `backbone.` and `model.` before
      the names are ignored, so are `fc.*` and `num_batches_tracked`.
    family: the backbone's family.

  Returns:
    Our arrays by name, `params/backbone/stem/conv1/kernel`, with `params/classifier/kernel` where
    there is a `classifier.weight`; and the torch names that fit nothing.
  """
  ours, unknown = {}, []
  for torch_name, value in tensors.items():
    short = _PREFIX.match(torch_name)
    name = torch_name[short.end() :]
    if _IGNORED.fullmatch(name) or _ALIASES.fullmatch(name):
      continue
    if name == 'classifier.weight':
      ours['params/classifier/kernel'] = _to_hwio(value)
      continue
    ours_name = our_name(name, family)
    if ours_name is None or ours_name in ours:
      unknown.append(torch_name)
      continue
    value = _to_hwio(value)
    if family in _BGR and ours_name == 'params/stem/conv1/kernel':
      value = value[:, :, ::-1]
    collection, _, path = ours_name.partition('/')
    ours[f'{collection}/backbone/{path}'] = value
  return ours, unknown


def _to_hwio(value: np.ndarray) -> np.ndarray:
  """Returns a convolution's OIHW as HWIO (grouped ones too); vectors stay as they are."""
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
