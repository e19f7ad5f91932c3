"""Converts PyTorch weights to our names and layouts, and ours to PyTorch's, by a backbone's row.

A torch tensor `layer3.0.conv2.bn1.running_var` becomes `batch_stats/layer3/block0/conv2/bn1/var`.
Every tensor is either converted, ignored by a rule below, or returned as unknown.
"""

import functools
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

# Our names of a module's tensors. A parameter of the network itself, such as `cls_token`, is a
# module whose one tensor has no name.
_CONV = {
  'weight': 'params/{}/kernel',
  'bias': 'params/{}/bias',
  'gamma': 'params/{}/gamma',
  '': 'params/{}',
}
_NORM = {
  'weight': 'params/{}/scale',
  'bias': 'params/{}/bias',
  'running_mean': 'batch_stats/{}/mean',
  'running_var': 'batch_stats/{}/var',
}
_IS_NORM = re.compile(r'.*(bn|norm)\d?')

# Modules of DeepLabV3+ after the backbone: ours, and those of the field's PyTorch implementations.
HEAD = {
  'aspp/point/conv': 'aspp.aspp1.atrous_conv',
  'aspp/point/norm': 'aspp.aspp1.bn',
  **{f'aspp/atrous{i}/conv': f'aspp.aspp{i + 2}.atrous_conv' for i in range(8)},
  **{f'aspp/atrous{i}/norm': f'aspp.aspp{i + 2}.bn' for i in range(8)},
  'aspp/pool/conv': 'aspp.global_avg_pool.1',
  'aspp/pool/norm': 'aspp.global_avg_pool.2',
  'aspp/join/conv': 'aspp.conv1',
  'aspp/join/norm': 'aspp.bn1',
  'decoder/low/conv': 'decoder.conv1',
  'decoder/low/norm': 'decoder.bn1',
  'decoder/mix0/conv': 'decoder.classifier.0',
  'decoder/mix0/norm': 'decoder.classifier.1',
  'decoder/mix1/conv': 'decoder.classifier.4',
  'decoder/mix1/norm': 'decoder.classifier.5',
  'decoder/classifier': 'decoder.classifier.8',
  'classifier': 'classifier',
}


_FIRST = 'params/backbone/stem/conv1/kernel'


def our_name(torch_name: str, row: trunk.Row) -> str | None:
  """Returns our name of a torch tensor without prefix, or None if the backbone has no such one."""
  module, _, leaf = torch_name.rpartition('.')
  if not module:
    module, leaf = leaf, ''
  for pattern, replacement in row.torch_names:
    match = re.fullmatch(pattern, module)
    if match:
      path = match.expand(replacement)
      leaves = _NORM if _IS_NORM.fullmatch(path) else _CONV
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
    value = to_ours(value)
    ours[path] = value[:, :, ::-1] if row.bgr and path == _FIRST else value
  return ours, unknown


def _in_backbone(name: str | None) -> str | None:
  """Returns `params/backbone/a/b` for the name `params/a/b`."""
  return name and name.replace('/', '/backbone/', 1)


def to_ours(value: np.ndarray) -> np.ndarray:
  """Returns a convolution's OIHW as HWIO (grouped ones too), and a matrix with inputs first."""
  if value.ndim == 2:
    return value.T
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def to_torch(arrays: Mapping[str, np.ndarray], row: trunk.Row) -> dict[str, np.ndarray]:
  """Converts a classifier's or DeepLabV3+'s variables to a state dict: the inverse of `from_torch`.

  Args:
    arrays: ours by name, `params/backbone/stem/conv1/kernel`.
    row: the backbone.

  Returns:
    Arrays in torch's layouts. The backbone's have the first names that its row knows, after
    `backbone.`; the heads' are `classifier.weight`, or `aspp.*` and `decoder.*` (`HEAD`).

  Raises:
    KeyError: an array has no name there.
  """
  found = {}
  for name, value in arrays.items():
    if row.bgr and name == _FIRST:
      value = value[:, :, ::-1]
    found[_torch_name(name, row)] = _to_theirs(value)
  return found


def _torch_name(name: str, row: trunk.Row) -> str:
  """Returns the torch name of one of our arrays, `params/backbone/...` or of a head."""
  part, prefix = ('/backbone/', 'backbone.') if '/backbone/' in name else ('/', '')
  bare = name.replace(part, '/', 1)
  for leaf, form in (*_NORM.items(), *_CONV.items()):
    before, after = form.split('{}')
    if not (bare.startswith(before) and bare.endswith(after)):
      continue
    path = bare[len(before) : len(bare) - len(after)]
    modules = _modules(path, row) if prefix else filter(None, [HEAD.get(path)])
    for module in modules:
      torch_name = f'{module}.{leaf}' if leaf else module
      if not prefix or our_name(torch_name, row) == bare:
        return prefix + torch_name
  raise KeyError(f'{name} has no name in PyTorch')


def _modules(path: str, row: trunk.Row) -> list[str]:
  """Returns the torch modules that a rule of the row may mean by one of our paths."""
  found = []
  for pattern, replacement in row.torch_names:
    inverse, template = _invert(pattern, replacement)
    match = inverse.fullmatch(path)
    if match:
      found.append(template.format(**match.groupdict()))
  return found


@functools.cache
def _invert(pattern: str, replacement: str) -> tuple[re.Pattern[str], str]:
  """Returns what matches the results of a replacement, and the text that the pattern matched."""
  groups, template, depth = [], '', 0
  for token in re.findall(r'\\.|.', pattern):
    if token == '(':
      depth += 1
      if depth == 1:
        groups.append('')
        template += f'{{g{len(groups)}}}'
        continue
    if depth:
      depth -= token == ')'
      if depth:
        groups[-1] += token
    else:
      template += token.removeprefix('\\')
  inverse = ''
  for literal, short, long in re.findall(r'([^\\]*)(?:\\(\d)|\\g<(\d+)>|$)', replacement):
    inverse += re.escape(literal)
    if short or long:
      number = int(short or long)
      inverse += f'(?P<g{number}>{groups[number - 1]})'
  return re.compile(inverse), template


def _to_theirs(value: np.ndarray) -> np.ndarray:
  """The inverse of `to_ours`."""
  if value.ndim == 2:
    return value.T
  return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
