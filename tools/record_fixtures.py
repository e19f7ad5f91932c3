"""Records what PyTorch computes with seeded weights, for tests/nn/test_parity.py.

`pip install torch torchvision timm safetensors && python tools/record_fixtures.py`

A fixture holds activations and the torch names and shapes of the weights; the weights themselves
come from `tests/seeded_tensors.py` on both sides. Recorded with torch 2.13.0 (CPU) and the model
definitions of torchvision 0.29.2 and timm 1.0.31.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT / 'tests'))

import seeded_tensors  # noqa: E402

_FIXTURES = _ROOT / 'tests' / 'fixtures'
_KEPT = 24  # Channels of a stage that a fixture keeps, evenly spread.


class SplitAttention(nn.Module):
  """ResNeSt's split attention, radix 2, written from the paper and the released state dicts."""

  def __init__(self, planes: int, dilation: int):
    super().__init__()
    inner = max(planes // 2, 32)
    self.conv = nn.Conv2d(
      planes, 2 * planes, 3, padding=dilation, dilation=dilation, groups=2, bias=False
    )
    self.bn0 = nn.BatchNorm2d(2 * planes)
    self.fc1 = nn.Conv2d(planes, inner, 1)
    self.bn1 = nn.BatchNorm2d(inner)
    self.fc2 = nn.Conv2d(inner, 2 * planes, 1)

  def forward(self, x):
    u = functional.relu(self.bn0(self.conv(x)))
    first, second = u.chunk(2, 1)
    gap = (first + second).mean((2, 3), keepdim=True)
    a = self.fc2(functional.relu(self.bn1(self.fc1(gap))))
    a = a.view(a.shape[0], 2, -1, 1, 1).softmax(1)
    return a[:, 0] * first + a[:, 1] * second


class ResNeStBlock(nn.Module):
  """The official block, whose dilated first blocks keep a stride-1 average pool."""

  def __init__(self, channels, planes, stride, dilation, is_first, project):
    super().__init__()
    self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(planes)
    self.conv2 = SplitAttention(planes, dilation)
    self.pool = nn.AvgPool2d(3, stride, 1) if stride > 1 or is_first else nn.Identity()
    self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(4 * planes)
    self.downsample = nn.Identity()
    if project:
      pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
      conv = nn.Conv2d(channels, 4 * planes, 1, bias=False)
      self.downsample = nn.Sequential(pool, conv, nn.BatchNorm2d(4 * planes))

  def forward(self, x):
    y = self.pool(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
    return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNeSt(nn.Module):
  """The official ResNeSt with any widths, strides and dilations of layer1 to layer4."""

  def __init__(self, blocks, widths, stem, strides, dilations):
    super().__init__()
    convs = [nn.Conv2d(i, o, 3, s, 1, bias=False) for i, o, s in _stem_plan(stem)]
    norms = [nn.BatchNorm2d(stem), nn.BatchNorm2d(stem)]
    self.conv1 = nn.Sequential(
      convs[0], norms[0], nn.ReLU(), convs[1], norms[1], nn.ReLU(), convs[2]
    )
    self.bn1 = nn.BatchNorm2d(2 * stem)
    channels = 2 * stem
    for i in range(4):
      # The released code's rule: a first block has dilation 1 for 1 and 2, and 2 for 4.
      first = {1: 1, 2: 1, 4: 2}[dilations[i]]
      project = strides[i] > 1 or channels != 4 * widths[i]
      stage = [ResNeStBlock(channels, widths[i], strides[i], first, i > 0, project)]
      channels = 4 * widths[i]
      for _ in range(1, blocks[i]):
        stage.append(ResNeStBlock(channels, widths[i], 1, dilations[i], False, False))
      setattr(self, f'layer{i + 1}', nn.Sequential(*stage))

  def forward(self, x):
    x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
    for name in ('layer1', 'layer2', 'layer3', 'layer4'):
      x = getattr(self, name)(x)
    return x


def _stem_plan(stem: int) -> list[tuple[int, int, int]]:
  """Input channels, output channels and stride of the stem's convolutions."""
  return [(3, stem, 2), (stem, stem, 1), (stem, 2 * stem, 1)]


def seed_weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
  """Gives a model the seeded weights; returns names and shapes of its tensors, without the head."""
  state = model.state_dict()
  shapes = {
    name: tuple(t.shape)
    for name, t in state.items()
    if not name.startswith('fc.') and not name.endswith('num_batches_tracked')
  }
  for name, shape in shapes.items():
    state[name] = torch.from_numpy(seeded_tensors.tensor(name, shape))
  model.load_state_dict(state)
  return shapes


def stage_outputs(model: nn.Module, image: np.ndarray) -> dict[str, torch.Tensor]:
  """Returns layer1 to layer4 of images f32[B, H, W, 3], by hooks."""
  outputs, hooks = {}, []
  for name in ('layer1', 'layer2', 'layer3', 'layer4'):
    keep = lambda _, __, y, name=name: outputs.__setitem__(name, y)  # noqa: E731
    hooks.append(getattr(model, name).register_forward_hook(keep))
  model(torch.from_numpy(image).permute(0, 3, 1, 2))
  for hook in hooks:
    hook.remove()
  return outputs


def nhwc(x: torch.Tensor) -> np.ndarray:
  """Returns some channels of NCHW as NHWC."""
  channels = np.linspace(0, x.shape[1] - 1, min(_KEPT, x.shape[1])).astype(int)
  return x.detach().numpy()[:, channels].transpose(0, 2, 3, 1)


def record(name: str, model: nn.Module, sizes: Sequence[tuple[int, int]], **settings: Any) -> None:
  """Writes a fixture of evaluation-mode activations at several image sizes."""
  shapes = seed_weights(model)
  model.eval()
  arrays = {}
  with torch.no_grad():
    for height, width in sizes:
      outputs = stage_outputs(model, seeded_tensors.image((1, height, width, 3)))
      arrays |= {f'{height}x{width}/{k}': nhwc(v) for k, v in outputs.items()}
  _write(name, arrays, shapes, settings)


def record_training(name: str, model: nn.Module, **settings: Any) -> None:
  """Writes a fixture of one training-mode pass: output, running statistics and gradients."""
  shapes = seed_weights(model)
  model.train()
  image = seeded_tensors.image((8, 33, 37, 3))
  y = model(torch.from_numpy(image).permute(0, 3, 1, 2))
  y.square().mean().backward()
  arrays = {'output': y.detach().numpy().transpose(0, 2, 3, 1)}
  for key, value in model.state_dict().items():
    if '.running_' in key and key.startswith(('bn1.', 'layer1.0.', 'layer4.1.')):
      arrays[f'state/{key}'] = value.numpy()
  for key, value in model.named_parameters():
    if key.startswith(('conv1.0.', 'layer2.0.', 'layer4.1.conv2.')):
      arrays[f'grad/{key}'] = value.grad.numpy()
  _write(name, arrays, shapes, settings)


def _write(
  name: str, arrays: dict[str, np.ndarray], shapes: dict[str, Any], settings: dict[str, Any]
) -> None:
  meta = json.dumps({'shapes': shapes, **settings})
  file = _FIXTURES / f'{name}.npz'
  np.savez_compressed(file, meta=np.asarray(meta), **arrays)
  print(f'{file.relative_to(_ROOT)}: {file.stat().st_size / 1024:.0f} KB')


def _import_torchvision() -> ModuleType:
  """Imports torchvision's models; they need none of the compiled operators that it may lack."""
  register = torch.library.register_fake
  torch.library.register_fake = lambda *_, **__: lambda function: function
  try:
    import torchvision.models
  finally:
    torch.library.register_fake = register
  return torchvision.models


def main() -> None:
  """Records every fixture."""
  _FIXTURES.mkdir(exist_ok=True)
  models = _import_torchvision()
  import timm

  sizes = [(65, 97)]
  for arch in ('resnet18', 'resnet50'):
    record(arch, getattr(models, arch)(), sizes, arch=arch, output_stride=32)
  for arch in ('resnest14', 'resnest26', 'resnest50'):
    record(arch, timm.create_model(f'{arch}d'), sizes, arch=arch, output_stride=32)
  # timm's dilated form is another one (no average pool in dilated first blocks), so that of the
  # released code is written out above; at output stride 32 both are the same function.
  blocks, widths, stem = (1, 1, 1, 2), (4, 8, 8, 16), 4
  small = {'arch': 'resnest50', 'blocks': blocks, 'widths': widths, 'stem_width': stem}
  for output_stride, strides, dilations, small_sizes in (
    (16, (1, 2, 2, 1), (1, 1, 1, 2), [(65, 97)]),
    (8, (1, 2, 1, 1), (1, 1, 2, 4), [(64, 64)]),
  ):
    model = ResNeSt(blocks, widths, stem, strides, dilations)
    name = f'resnest_small_os{output_stride}'
    record(name, model, small_sizes, **small, output_stride=output_stride)
  model = ResNeSt(blocks, widths, stem, (1, 2, 2, 1), (1, 1, 1, 2))
  record_training('resnest_small_train', model, **small, output_stride=16)
  _check_against_timm(timm)


def _check_against_timm(timm: ModuleType) -> None:
  """Stops if the ResNeSt written out here is not timm's at output stride 32."""
  theirs = timm.create_model('resnest26d')
  ours = ResNeSt((2, 2, 2, 2), (64, 128, 256, 512), 32, (1, 2, 2, 2), (1, 1, 1, 1))
  seed_weights(theirs.eval())
  seed_weights(ours.eval())
  image = seeded_tensors.image((1, 65, 97, 3))
  with torch.no_grad():
    a, b = stage_outputs(theirs, image), stage_outputs(ours, image)
  for name in a:
    torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-4)


if __name__ == '__main__':
  main()
