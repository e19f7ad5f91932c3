"""Records what PyTorch computes of DeepLabV3+, its loss and its optimiser, for tests.

`pip install torch torchvision timm safetensors && python tools/record_deeplab_fixture.py`

`deeplab.npz` is for tests/nn/test_deeplab.py: logits of DeepLabV3+ on a small ResNeSt, with either
normalisation. `segmentation_step.npz` is for tests/losses/test_segmentation.py: the loss with
label smoothing, and two steps of Nesterov SGD. Recorded with torch 2.13.0 (CPU).
"""

import json

import numpy as np
import record_fixtures
import seeded_tensors
import torch
from torch import nn
from torch.nn import functional

CLASSES, WIDTH, LOW_WIDTH = 5, 16, 8
SMALL = {'blocks': (1, 1, 1, 2), 'widths': (4, 8, 8, 16), 'stem_width': 4}
VOID = 255


def normalization(kind: str, channels: int) -> nn.Module:
  """Four groups of channels, or the batch."""
  return nn.GroupNorm(4, channels) if kind == 'group' else nn.BatchNorm2d(channels)


class Atrous(nn.Module):
  """A branch of the pyramid."""

  def __init__(self, kind, channels, width, dilation):
    super().__init__()
    size = 1 if dilation is None else 3
    dilation = dilation or 1
    pad = dilation if size == 3 else 0
    self.atrous_conv = nn.Conv2d(channels, width, size, padding=pad, dilation=dilation, bias=False)
    self.bn = normalization(kind, width)

  def forward(self, x):
    return functional.relu(self.bn(self.atrous_conv(x)))


class Pyramid(nn.Module):
  """Atrous spatial pyramid pooling."""

  def __init__(self, kind, channels, width, dilations):
    super().__init__()
    for i, dilation in enumerate((None, *dilations)):
      setattr(self, f'aspp{i + 1}', Atrous(kind, channels, width, dilation))
    self.global_avg_pool = nn.Sequential(
      nn.AdaptiveAvgPool2d((1, 1)),
      nn.Conv2d(channels, width, 1, bias=False),
      normalization(kind, width),
      nn.ReLU(),
    )
    self.conv1 = nn.Conv2d(5 * width, width, 1, bias=False)
    self.bn1 = normalization(kind, width)
    self.dropout = nn.Dropout(0.5)

  def forward(self, x):
    pooled = functional.interpolate(
      self.global_avg_pool(x), size=x.shape[2:], mode='bilinear', align_corners=True
    )
    branches = [getattr(self, f'aspp{i}')(x) for i in range(1, 5)]
    x = self.conv1(torch.cat([*branches, pooled], dim=1))
    return self.dropout(functional.relu(self.bn1(x)))


class Decoder(nn.Module):
  """The decoder."""

  def __init__(self, kind, low_channels, width, low_width, num_classes):
    super().__init__()
    self.conv1 = nn.Conv2d(low_channels, low_width, 1, bias=False)
    self.bn1 = normalization(kind, low_width)
    self.classifier = nn.Sequential(
      nn.Conv2d(width + low_width, width, 3, padding=1, bias=False),
      normalization(kind, width),
      nn.ReLU(),
      nn.Dropout(0.5),
      nn.Conv2d(width, width, 3, padding=1, bias=False),
      normalization(kind, width),
      nn.ReLU(),
      nn.Dropout(0.1),
      nn.Conv2d(width, num_classes, 1),
    )

  def forward(self, x, low):
    low = functional.relu(self.bn1(self.conv1(low)))
    x = functional.interpolate(x, size=low.shape[2:], mode='bilinear', align_corners=True)
    return self.classifier(torch.cat([x, low], dim=1))


class DeepLab(nn.Module):
  """Pyramid and decoder on the features of layer1 and layer4."""

  def __init__(self, kind, channels, *, width, low_width, num_classes, dilations=(6, 12, 18)):
    super().__init__()
    low, high = channels
    self.aspp = Pyramid(kind, high, width, dilations)
    self.decoder = Decoder(kind, low, width, low_width, num_classes)

  def forward(self, low, high, size):
    logits = self.decoder(self.aspp(high), low)
    return functional.interpolate(logits, size=size, mode='bilinear', align_corners=True)


def record_network() -> None:
  """Writes deeplab.npz."""
  image = seeded_tensors.image((2, 65, 97, 3))
  backbone = record_fixtures.ResNeSt(
    SMALL['blocks'], SMALL['widths'], SMALL['stem_width'], (1, 2, 2, 1), (1, 1, 1, 2)
  )
  meta = {'arch': 'resnest50', **SMALL, 'output_stride': 16}
  meta['shapes'] = record_fixtures.seed_weights(backbone)
  backbone.eval()
  arrays = {}
  with torch.no_grad():
    features = record_fixtures.stage_outputs(backbone, image)
    low, high = features['layer1'], features['layer4']
    for kind in ('group', 'batch'):
      head = DeepLab(
        kind,
        (low.shape[1], high.shape[1]),
        width=WIDTH,
        low_width=LOW_WIDTH,
        num_classes=CLASSES,
      )
      meta[f'{kind}_shapes'] = record_fixtures.seed_weights(head)
      logits = head.eval()(low, high, image.shape[1:3])
      # Every third pixel, to keep the file small.
      arrays[kind] = logits.numpy().transpose(0, 2, 3, 1)[:, ::3, ::3]
  full = DeepLab('group', (256, 2048), width=256, low_width=48, num_classes=21)
  meta['head_parameters'] = sum(x.numel() for x in full.parameters())
  _write('deeplab', arrays, meta)


def record_step() -> None:
  """Writes segmentation_step.npz."""
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (2, 6, 7, CLASSES)).astype(np.float32)
  labels = rng.integers(0, CLASSES, (2, 6, 7))
  labels[rng.random(labels.shape) < 0.3] = VOID
  arrays = {'logits': logits, 'labels': labels.astype(np.uint8)}
  for smoothing in (0.0, 0.1):
    z = torch.tensor(logits.transpose(0, 3, 1, 2), requires_grad=True)
    loss = functional.cross_entropy(
      z, torch.from_numpy(labels), ignore_index=VOID, label_smoothing=smoothing
    )
    loss.backward()
    arrays[f'loss/{smoothing}'] = loss.detach().numpy()
    arrays[f'grad/{smoothing}'] = z.grad.numpy().transpose(0, 2, 3, 1)
  names = ('backbone/kernel', 'backbone/bias', 'decoder/kernel', 'decoder/bias')
  params = [torch.tensor(rng.normal(size=3), dtype=torch.float32) for _ in names]
  groups = [
    {'params': [x.requires_grad_()], 'lr': 0.007 * rate, 'weight_decay': decay}
    for x, rate, decay in zip(params, (1, 2, 10, 20), (0.1, 0, 0.1, 0), strict=True)
  ]
  sgd = torch.optim.SGD(groups, lr=0.007, momentum=0.9, nesterov=True)
  for step in range(3):
    for name, x in zip(names, params, strict=True):
      arrays[f'params{step}/{name}'] = x.detach().numpy().copy()
      x.grad = torch.tensor(rng.normal(size=3), dtype=torch.float32)
      arrays[f'grads{step}/{name}'] = x.grad.numpy().copy()
    sgd.step()
  _write('segmentation_step', arrays, {})


def _write(name: str, arrays: dict[str, np.ndarray], meta: dict) -> None:
  file = record_fixtures._FIXTURES / f'{name}.npz'
  np.savez_compressed(file, meta=np.asarray(json.dumps(meta)), **arrays)
  print(f'{file.name}: {file.stat().st_size / 1024:.0f} KB')


if __name__ == '__main__':
  record_network()
  record_step()
