"""Records PoolNet's logits in PyTorch, with seeded weights, for tests/nn/test_poolnet.py.

`pip install torch && python tools/record_poolnet_fixture.py`

The network is written from the paper and the names of the released state dict, on Caffe's form of
ResNet-50, narrow. Recorded with torch 2.13.0 (CPU).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT / 'tests'))

import seeded_tensors  # noqa: E402

_FIXTURE = _ROOT / 'tests' / 'fixtures' / 'poolnet.npz'
_SIZES = ((129, 158), (160, 144))
_STEP = 3  # Every third pixel of the logits is kept.
_BLOCKS, _PLANES, _STEM, _WIDTH = (1, 1, 1, 2), (4, 6, 8, 10), 4, 4


def conv(inputs: int, outputs: int, size: int = 1, **options: Any) -> nn.Conv2d:
  """A convolution without bias that keeps the size."""
  options.setdefault('padding', size // 2)
  return nn.Conv2d(inputs, outputs, size, bias=False, **options)


def up(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
  """Bilinear resizing, corners aligned."""
  return functional.interpolate(x, size=size, mode='bilinear', align_corners=True)


class Block(nn.Module):
  """Caffe's bottleneck: the first convolution strides."""

  def __init__(self, inputs, planes, stride, dilation, project):
    super().__init__()
    self.conv1, self.bn1 = conv(inputs, planes, stride=stride), nn.BatchNorm2d(planes)
    self.conv2 = conv(planes, planes, 3, padding=dilation, dilation=dilation)
    self.bn2 = nn.BatchNorm2d(planes)
    self.conv3, self.bn3 = conv(planes, 4 * planes), nn.BatchNorm2d(4 * planes)
    self.downsample = nn.Identity()
    if project:
      shortcut = conv(inputs, 4 * planes, stride=stride)
      self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * planes))

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
  """Caffe's ResNet; layer4 is dilated."""

  def __init__(self):
    super().__init__()
    self.conv1 = conv(3, _STEM, 7, stride=2)
    self.bn1 = nn.BatchNorm2d(_STEM)
    inputs = _STEM
    for i, (count, planes) in enumerate(zip(_BLOCKS, _PLANES, strict=True)):
      stride, dilation = ((1, 1), (2, 1), (2, 1), (1, 2))[i]
      blocks = [Block(inputs, planes, stride, dilation, project=True)]
      inputs = 4 * planes
      blocks += [Block(inputs, planes, 1, dilation, project=False) for _ in range(count - 1)]
      self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))

  def forward(self, x):
    x = functional.relu(self.bn1(self.conv1(x)))
    found = [x]
    x = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for i in range(1, 5):
      x = getattr(self, f'layer{i}')(x)
      found.append(x)
    return found


class Locate(nn.Module):
  """Backbone, pyramid pooling and the guidance of four scales."""

  def __init__(self):
    super().__init__()
    self.resnet = ResNet()
    planes = 4 * _WIDTH
    self.ppms_pre = conv(4 * _PLANES[-1], planes)
    self.ppms = nn.ModuleList(
      nn.Sequential(nn.AdaptiveAvgPool2d(n), conv(planes, planes), nn.ReLU()) for n in (1, 3, 5)
    )
    self.ppm_cat = nn.Sequential(conv(4 * planes, planes, 3), nn.ReLU())
    self.infos = nn.ModuleList(
      nn.Sequential(conv(planes, n * _WIDTH, 3), nn.ReLU()) for n in (4, 2, 2, 1)
    )

  def forward(self, x):
    found = self.resnet(x)
    pre = self.ppms_pre(found[-1])
    levels = [pre] + [up(ppm(pre), pre.shape[2:]) for ppm in self.ppms]
    context = self.ppm_cat(torch.cat(levels, 1))
    infos = [info(up(context, found[3 - k].shape[2:])) for k, info in enumerate(self.infos)]
    return found, infos


class DeepPool(nn.Module):
  """One deep-pool layer."""

  def __init__(self, inputs, outputs, fuse):
    super().__init__()
    self.convs = nn.ModuleList(conv(inputs, inputs, 3) for _ in range(3))
    self.conv_sum = conv(inputs, outputs, 3)
    self.conv_sum_c = conv(outputs, outputs, 3) if fuse else None

  def forward(self, x, other=None, info=None):
    total = x
    for window, layer in zip((2, 4, 8), self.convs, strict=True):
      total = total + up(layer(functional.avg_pool2d(x, window, window)), x.shape[2:])
    total = functional.relu(total)
    if other is None:
      return self.conv_sum(total)
    total = self.conv_sum(up(total, other.shape[2:]))
    return self.conv_sum_c(total + other + info)


class PoolNet(nn.Module):
  """The whole network."""

  def __init__(self):
    super().__init__()
    self.base = Locate()
    inputs = (_STEM, *(4 * n for n in _PLANES))
    widths = tuple(n * _WIDTH for n in (1, 2, 2, 4, 4))
    self.convert = nn.ModuleList(
      nn.Sequential(conv(i, o), nn.ReLU()) for i, o in zip(inputs, widths, strict=True)
    )
    plan = [(4, 4, True), (4, 2, True), (2, 2, True), (2, 1, True), (1, 1, False)]
    self.deep_pool = nn.ModuleList(DeepPool(i * _WIDTH, o * _WIDTH, f) for i, o, f in plan)
    self.score = nn.Conv2d(_WIDTH, 1, 1)

  def forward(self, x):
    size = x.shape[2:]
    found, infos = self.base(x)
    c = [layer(y) for layer, y in zip(self.convert, found, strict=True)][::-1]
    y = c[0]
    for k in range(4):
      y = self.deep_pool[k](y, c[k + 1], infos[k])
    return up(self.score(self.deep_pool[4](y)), size)


def main() -> None:
  """Records the fixture."""
  model = PoolNet().eval()
  state = model.state_dict()
  shapes = {
    name: tuple(value.shape)
    for name, value in state.items()
    if not name.endswith('num_batches_tracked')
  }
  for name, shape in shapes.items():
    state[name] = torch.from_numpy(seeded_tensors.tensor(name, shape))
  model.load_state_dict(state)
  arrays = {}
  with torch.no_grad():
    for height, width in _SIZES:
      # The network sees blue, green, red.
      image = seeded_tensors.image((1, height, width, 3))[..., ::-1].copy()
      logits = model(torch.from_numpy(image).permute(0, 3, 1, 2))
      arrays[f'{height}x{width}'] = logits.numpy()[0, 0, ::_STEP, ::_STEP]
  meta = json.dumps(
    {
      'shapes': shapes,
      'step': _STEP,
      'width': _WIDTH,
      'backbone': {'blocks': _BLOCKS, 'widths': _PLANES, 'stem_width': _STEM},
    }
  )
  np.savez_compressed(_FIXTURE, meta=np.asarray(meta), **arrays)
  print(f'{_FIXTURE.relative_to(_ROOT)}: {_FIXTURE.stat().st_size / 1024:.0f} KB')
  print({name: (float(x.mean()), float(x.std())) for name, x in arrays.items()})


if __name__ == '__main__':
  main()
