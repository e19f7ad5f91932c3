"""Records what a wide ResNet-38 in PyTorch computes with seeded weights (tests/nn/test_parity.py).

`pip install torch torchvision timm safetensors && python tools/record_resnet38d_fixture.py`

The network is written here from the description of its paper and the names of the released weights.
It is recorded narrow; the number of parameters of the real one is recorded with it.
"""

import numpy as np
import torch
from record_fixtures import _write, nhwc, seed_weights, seeded_tensors
from torch import nn
from torch.nn import functional

WIDTHS, STEM = (256, 512, 1024, 4096), 64
SMALL_WIDTHS, SMALL_STEM = (8, 12, 16, 32), 4
SIZES = ((41, 33), (64, 48))


def conv(channels: int, width: int, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
  """A convolution that keeps the size, up to its stride; no bias."""
  padding = dilation * (size // 2)
  return nn.Conv2d(channels, width, size, stride, padding, dilation, bias=False)


class Unit(nn.Module):
  """Two 3 x 3 convolutions after normalisation."""

  def __init__(self, channels, inner, width, stride=1, first_dilation=1, dilation=1):
    super().__init__()
    self.bn_branch2a = nn.BatchNorm2d(channels)
    self.conv_branch2a = conv(channels, inner, 3, stride, first_dilation)
    self.bn_branch2b1 = nn.BatchNorm2d(inner)
    self.conv_branch2b1 = conv(inner, width, 3, 1, dilation)
    if channels != width or stride > 1:
      self.conv_branch1 = conv(channels, width, 1, stride)

  def forward(self, x):
    before = functional.relu(self.bn_branch2a(x))
    shortcut = self.conv_branch1(before) if hasattr(self, 'conv_branch1') else x
    y = self.conv_branch2a(before)
    return shortcut + self.conv_branch2b1(functional.relu(self.bn_branch2b1(y)))


class WideUnit(nn.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolutions after normalisation."""

  def __init__(self, channels, width, dilation):
    super().__init__()
    self.bn_branch2a = nn.BatchNorm2d(channels)
    self.conv_branch2a = conv(channels, width // 4, 1)
    self.bn_branch2b1 = nn.BatchNorm2d(width // 4)
    self.conv_branch2b1 = conv(width // 4, width // 2, 3, 1, dilation)
    self.bn_branch2b2 = nn.BatchNorm2d(width // 2)
    self.conv_branch2b2 = conv(width // 2, width, 1)
    self.conv_branch1 = conv(channels, width, 1)

  def forward(self, x):
    before = functional.relu(self.bn_branch2a(x))
    y = functional.relu(self.bn_branch2b1(self.conv_branch2a(before)))
    y = functional.relu(self.bn_branch2b2(self.conv_branch2b1(y)))
    return self.conv_branch1(before) + self.conv_branch2b2(y)


class ResNet38(nn.Module):
  """The network up to its last features."""

  def __init__(self, widths, stem):
    super().__init__()
    w2, w3, w4, w5, w7 = 2 * stem, *widths
    self.conv1a = conv(3, stem)
    plan = {
      'b2': Unit(stem, w2, w2, 2),
      **{f'b2_{k}': Unit(w2, w2, w2) for k in (1, 2)},
      'b3': Unit(w2, w3, w3, 2),
      **{f'b3_{k}': Unit(w3, w3, w3) for k in (1, 2)},
      'b4': Unit(w3, w4, w4, 2),
      **{f'b4_{k}': Unit(w4, w4, w4) for k in (1, 2, 3, 4, 5)},
      'b5': Unit(w4, w5 // 2, w5, 1, 1, 2),
      **{f'b5_{k}': Unit(w5, w5 // 2, w5, 1, 2, 2) for k in (1, 2)},
      'b6': WideUnit(w5, w7 // 2, 4),
      'b7': WideUnit(w7 // 2, w7, 4),
    }
    self.order = list(plan)
    for name, module in plan.items():
      self.add_module(name, module)
    self.bn7 = nn.BatchNorm2d(w7)

  def forward(self, x):
    x, outputs = self.conv1a(x), {}
    ends = {'b3_2': 'layer1', 'b4_5': 'layer2', 'b5_2': 'layer3'}
    for name in self.order:
      x = getattr(self, name)(x)
      if name in ends:
        outputs[ends[name]] = x
    return outputs | {'layer4': functional.relu(self.bn7(x))}


def main() -> None:
  """Records the fixture."""
  with torch.device('meta'):
    count = sum(p.numel() for p in ResNet38(WIDTHS, STEM).parameters())
  model = ResNet38(SMALL_WIDTHS, SMALL_STEM)
  shapes = seed_weights(model)
  model.eval()
  arrays = {'count': np.asarray(count)}
  for height, width in SIZES:
    image = seeded_tensors.image((1, height, width, 3))
    with torch.no_grad():
      outputs = model(torch.from_numpy(image).permute(0, 3, 1, 2))
    arrays |= {f'{height}x{width}/{k}': nhwc(v) for k, v in outputs.items()}
  settings = {
    'arch': 'resnet38d',
    'output_stride': 8,
    'widths': SMALL_WIDTHS,
    'stem_width': SMALL_STEM,
  }
  _write('resnet38d_small', arrays, shapes, settings)


if __name__ == '__main__':
  main()
