"""Converts PyTorch weights of a backbone to our names and layouts, by the names in its row.

A torch tensor `layer3.0.conv2.bn1.running_var` becomes `batch_stats/layer3/block0/conv2/bn1/var`.
Every tensor is either converted, ignored by a rule below, or returned as unknown.
"""

import re
from collections.abc import Mapping

import numpy as np

from pnoc_jax.nn import trunk

# What checkpoints of whole classifiers put before the backbone's names.
_PREFIX = re.compile(r'(module\.)?(backbone\.|model\.|encoder_q\.)?')
# The head of ImageNet's or MoCo's classifier, counters of batches, and MoCo's second network.
_IGNORED = re.compile(
  r'fc\.(\d\.)?(weight|bias)|(.*\.)?num_batches_tracked|encoder_k\..*|queue(_ptr)?'
)
# Names of a head that is a 1 x 1 convolution without bias.
_HEADS = ('classifier.weight', 'fc8.weight')
# Checkpoints of PuzzleCAM and its descendants hold the backbone twice: `model.*` and `stage1.*`.
_ALIASES = re.compile(r'stage[1-5]\..*')

_CONV = {'weight': 'params/{}/kernel', 'bias': 'params/{}/bias'}
_NORM = {
  'weight': 'params/{}/scale',
  'bias': 'params/{}/bias',
  'running_mean': 'batch_stats/{}/mean',
  'running_var': 'batch_stats/{}/var',
}


def our_name(torch_name: str, row: trunk.Row) -> str | None:
  """Returns our name of a torch tensor without prefix, or None if the backbone has no such one."""
  module, _, leaf = torch_name.rpartition('.')
  for pattern, replacement in row.torch_names:
    match = re.fullmatch(pattern, module)
    if match:
      path = match.expand(replacement)
      leaves = _NORM if re.search(r'bn\d?$', path) else _CONV
      return leaves[leaf].format(path) if leaf in leaves else None
  return None


def from_torch(
  tensors: Mapping[str, np.ndarray], row: trunk.Row
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Converts a state dict.

  Args:
    tensors: torch names to arrays in torch's layouts; `module.`, `backbone.`, `model.` and
      `encoder_q.` (MoCo) before the names are ignored, so are `fc.*` and `num_batches_tracked`.
    row: the backbone.

  Returns:
    Our arrays by name, `params/backbone/stem/conv1/kernel`, with `params/classifier/kernel` where
    there is a `classifier.weight` (or `fc8.weight`); and the torch names that are unknown, or that
    mean an array which another name has given already.
  """
  ours, unknown = {}, []
  for torch_name, value in tensors.items():
    name = _PREFIX.sub('', torch_name, count=1)
    if any(re.fullmatch(p, name) for p in (_IGNORED, _ALIASES, row.torch_ignored)):
      continue
    path = 'params/classifier/kernel' if name in _HEADS else _in_backbone(our_name(name, row))
    if path is None or path in ours:
      unknown.append(torch_name)
      continue
    value = _to_hwio(value)
    if row.bgr and path == 'params/backbone/stem/conv1/kernel':
      value = value[:, :, ::-1]
    ours[path] = value
  return ours, unknown


def _in_backbone(name: str | None) -> str | None:
  """Returns `params/backbone/a/b` for the name `params/a/b`."""
  return name and name.replace('/', '/backbone/', 1)


def _to_hwio(value: np.ndarray) -> np.ndarray:
  """Returns a convolution's OIHW as HWIO (grouped ones too); vectors stay as they are."""
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
