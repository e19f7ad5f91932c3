"""How fast is the same step in PyTorch, on timm's networks? To stand beside benchmarks/step.py.

    pip install torch timm
    python benchmarks/torch_step.py --backbone resnest50 resnest101 --size=512 --batch=16 \\
        --precision=bfloat16 [--compile]

The mathematics is that of pnoc_jax/losses/pnoc.py: a pass over the images and one over their
image-major tiles; a mask of one class, divided by its maximum over the batch and open to gradients,
that fades the image before the noc, whose BatchNorm is frozen; then the noc's own update on the
image without what the generator's old map shows; two SGD optimisers with four parameter groups.
bfloat16 is autocast around the backbone with float32 weights and head, channels_last on CUDA (and
with `--channels_last` on a CPU), TF32 for float32 on CUDA, as XLA's default. `--compile` compiles
the networks with torch.compile. Backbones are ResNeSts and EfficientNet-Lites.

Not the same: below output stride 32, the first block of a dilated stage of timm's ResNeSts has no
stride-1 average pool, which ours (and the released code) has; it is a small part of the time.

The columns are those of step.py, except: GFLOP are counted by torch.utils.flop_counter (matrix
products and convolutions alone; gradients of convolutions in groups as if there were no groups, so
that GFLOP and MFU of EfficientNet-Lites mean nothing); compile s is the first step, warm-up of
libraries included; there is no plan MiB, trace s or cached s, and peak MiB only on CUDA.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
  import timm
  import torch
  from timm.models import resnest, resnet
except (ImportError, RuntimeError) as error:  # A torchvision of another torch raises the latter.
  sys.exit(
    f'This benchmark needs torch, timm and their torchvision, which failed to import: {error}\n'
    'Install them for your device (https://pytorch.org), e.g. `pip install torch timm`.'
  )
from torch import nn
from torch.nn import functional
from torch.utils import flop_counter

from benchmarks import rows
from pnoc_jax.errors import UserError
from pnoc_jax.updates.pnoc import METHODS

_NAMES = {
  'resnest14': 'resnest14d',
  'resnest26': 'resnest26d',
  'resnest50': 'resnest50d',
  'resnest101': 'resnest101e',
  'resnest200': 'resnest200e',
  'resnest269': 'resnest269e',
}
_LITE = tuple(f'tf_efficientnet_lite{size}' for size in range(5))
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_EPS = 1e-5  # Of the mask's denominator.


class _NarrowBlock(resnest.ResNestBottleneck):
  """timm's block at expansion 2, which it has not: for `resnest_tiny`."""

  expansion = 2

  def __init__(self, inplanes, planes, *args, **keywords):
    super().__init__(inplanes, planes, *args, **keywords)
    self.conv3 = nn.Conv2d(planes, 2 * planes, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(2 * planes)


class Classifier(nn.Module):
  """A backbone and a 1 x 1 convolution in float32: images [B, 3, H, W] to maps [B, K, h, w]."""

  def __init__(self, name: str, classes: int, output_stride: int):
    super().__init__()
    common = {'num_classes': 0, 'global_pool': '', 'zero_init_last': False}
    if name in _LITE:
      common.pop('zero_init_last')
    if name == 'resnest_tiny':
      self.backbone = resnet.ResNet(
        _NarrowBlock,
        (1, 1, 1, 1),
        channels=(16, 32, 64, 128),
        stem_type='deep',
        stem_width=8,
        avg_down=True,
        block_args={'radix': 2, 'avd': True, 'avd_first': False},
        # timm counts a stem of stride 4, and without the max pool it has 2.
        output_stride=2 * output_stride,
        **common,
      )
      self.backbone.maxpool = nn.Identity()
    elif name in _NAMES or name in _LITE:
      theirs = _NAMES.get(name, name)
      self.backbone = timm.create_model(theirs, output_stride=output_stride, **common)
    else:
      known = ', '.join(('resnest_tiny', *_NAMES, *_LITE))
      raise UserError(f'timm has no {name!r}; known here: {known}')
    self.classifier = nn.Conv2d(self.backbone.num_features, classes, 1, bias=False)

  def forward(self, image: torch.Tensor) -> torch.Tensor:
    """Images [B, 3, H, W] to raw maps [B, K, h, w]."""
    features = self.backbone.forward_features(image)
    with torch.autocast(image.device.type, enabled=False):
      return self.classifier(features.float())


def tile(x: torch.Tensor) -> torch.Tensor:
  """[B, C, H, W] to image-major quarters [4B, C, H/2, W/2]."""
  b, c, h, w = x.shape
  x = x.reshape(b, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5)
  return x.reshape(4 * b, c, h // 2, w // 2)


def merge(x: torch.Tensor) -> torch.Tensor:
  """[4B, K, h, w] to [B, K, 2h, 2w]: the inverse of `tile`."""
  b, k, h, w = x.shape
  x = x.reshape(b // 4, 2, 2, k, h, w).permute(0, 3, 1, 4, 2, 5)
  return x.reshape(b // 4, k, 2 * h, 2 * w)


def class_mask(cam: torch.Tensor, picked: torch.Tensor, size, dims) -> torch.Tensor:
  """The picked class's map as a mask [B, 1, H, W], divided by its maximum over `dims`."""
  one = functional.relu((cam * picked[:, :, None, None]).sum(1, keepdim=True))
  mask = functional.interpolate(one, size, mode='bilinear', align_corners=False)
  return mask / (mask.amax(dims, keepdim=True) + _EPS)


def loss_fn(cam: torch.Tensor, label: torch.Tensor, smoothing: float = 0.1) -> torch.Tensor:
  """The mean binary cross-entropy of the maps' means with smoothed labels."""
  target = (1 - smoothing) * label + smoothing / 2
  return functional.binary_cross_entropy_with_logits(cam.mean((2, 3)), target)


def make_optimizer(model: Classifier, *, frozen_bn: bool = False) -> torch.optim.Optimizer:
  """SGD with the groups x1, x2 (biases), x10 (head), of what trains."""
  modules = model.named_modules()
  norms = {name for name, module in modules if isinstance(module, nn.BatchNorm2d)}
  groups = {'weight': [], 'bias': [], 'head': []}
  for name, p in model.named_parameters():
    if frozen_bn and name.rpartition('.')[0] in norms:
      p.requires_grad_(False)
      continue
    kind = 'head' if name.startswith('classifier') else name.rpartition('.')[2]
    groups[kind].append(p)
  rates = {'weight': (0.01, 1e-4), 'bias': (0.02, 0.0), 'head': (0.1, 1e-4)}
  return torch.optim.SGD(
    [{'params': groups[k], 'lr': lr, 'weight_decay': wd} for k, (lr, wd) in rates.items()]
  )


class Step:
  """A method's step on one device."""

  def __init__(self, settings: argparse.Namespace, device: torch.device):
    self.method, self.device = METHODS[settings.method], device
    self.lambda_re, self.lambda_cse, self.lambda_noc, self.threshold = 0.0, 0.3, 0.0, 0.2
    make = (settings.backbone, settings.classes, settings.output_stride)
    self.model = self._place(Classifier(*make).train(), settings)
    self.optimizer = make_optimizer(self.model)
    self.noc = self.noc_optimizer = None
    if self.method.judge:
      # Nothing in these networks but BatchNorm knows of training and evaluation.
      self.noc = self._place(Classifier(*make).eval(), settings)
      self.noc_optimizer = make_optimizer(self.noc, frozen_bn=True)
      self.noc_params = [p for p in self.noc.parameters() if p.requires_grad]
    forms = [self.model, self.noc]
    if settings.compile:
      forms = [None if m is None else torch.compile(m, dynamic=False) for m in forms]
    self.forward, self.noc_forward = forms
    self.bfloat16 = settings.precision == 'bfloat16'

  def _place(self, model, settings):
    if settings.remat:
      model.backbone.set_grad_checkpointing()
    return model.to(self.device, memory_format=_memory_format(settings, self.device))

  def _autocast(self):
    return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

  def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Takes one step; returns the losses."""
    mean, std = (torch.tensor(x, device=self.device).view(1, 3, 1, 1) for x in (_MEAN, _STD))
    image = (batch['image'].float() / 255 - mean) / std
    label, picked = batch['label'], None
    if self.noc is not None:
      drawn = torch.multinomial(label, 1)[:, 0]
      picked = functional.one_hot(drawn, label.shape[1]).float()
    cam, losses = self._generator_update(image, label, picked)
    if self.method.noc:
      mask = class_mask(cam, picked, image.shape[2:], (1, 2, 3))
      erased = image * (mask <= self.threshold)
      with self._autocast():
        cam = self.noc_forward(erased)
      losses['loss/noc'] = self.lambda_noc * loss_fn(cam, label)
      self.noc_optimizer.zero_grad(set_to_none=True)
      losses['loss/noc'].backward()
      self.noc_optimizer.step()
    return losses

  def _generator_update(self, image, label, picked):
    with self._autocast():
      cam = self.forward(image)
    losses = {'loss/cls': loss_fn(cam, label)}
    total = losses['loss/cls']
    if self.method.tiles:
      with self._autocast():
        cam_re = merge(self.forward(tile(image)))
      losses['loss/cls_re'] = loss_fn(cam_re, label)
      losses['loss/re'] = ((cam - cam_re).abs() * label[:, :, None, None]).mean()
      total = total + losses['loss/cls_re'] + self.lambda_re * losses['loss/re']
    if picked is not None:
      mask = class_mask(cam, picked, image.shape[2:], (0, 1, 2, 3))
      for p in self.noc_params:  # Only the generator learns from this.
        p.requires_grad_(False)
      with self._autocast():
        judged = self.noc_forward(image * (1 - mask))
      losses['loss/cse'] = loss_fn(judged, label - picked)
      total = total + self.lambda_cse * losses['loss/cse']
    self.optimizer.zero_grad(set_to_none=True)
    total.backward()
    self.optimizer.step()
    for p in self.noc_params if picked is not None else ():
      p.requires_grad_(True)
    return cam.detach(), losses | {'loss/total': total}


def _memory_format(settings, device):
  last = settings.channels_last or device.type == 'cuda'
  return torch.channels_last if last else torch.contiguous_format


def make_batch(settings: argparse.Namespace, device: torch.device) -> dict[str, torch.Tensor]:
  """Returns the synthetic batch on the device, in the networks' memory format."""
  batch = {k: torch.from_numpy(x) for k, x in rows.make_batch(settings).items()}
  image = batch['image'].permute(0, 3, 1, 2).to(device)
  image = image.contiguous(memory_format=_memory_format(settings, device))
  return {'image': image, 'label': batch['label'].to(device)}


def measure(settings: argparse.Namespace) -> dict[str, Any]:
  """Measures one row; see the columns above."""
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  kind = torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  step, batch = Step(settings, device), make_batch(settings, device)

  times, losses, clock = [], {}, rows.CLOCKS[settings.clock]
  # Compiling is part of the first step; without it nothing is to be done before the turn.
  await_before = settings.warmup if settings.compile else 0
  for number in range(settings.warmup + max(settings.steps, 1)):
    if number == await_before:
      rows.await_turn(settings)
    start = clock()
    losses = step(batch)
    if device.type == 'cuda':
      torch.cuda.synchronize()
    times.append(clock() - start)
  peak_bytes = torch.cuda.max_memory_allocated() if device.type == 'cuda' else None
  seconds = rows.median(times[settings.warmup :])
  flop = _count(settings, device, batch)
  peak, origin = rows.peak_flops(settings, kind, _make_matmul(settings, device))
  return {
    'form': f'torch {"compile" if settings.compile else "eager"}{" remat" * settings.remat}',
    'images_per_s': settings.batch / seconds,
    'step_ms': 1e3 * seconds,
    'times_ms': [1e3 * t for t in times[settings.warmup :]],
    'gflop': flop / 1e9,
    'mfu': 100 * flop / seconds / peak,
    'peak_mib': peak_bytes / 2**20 if peak_bytes else None,
    'compile_s': times[0],
    'losses': {name: x.item() for name, x in losses.items()},
    'device': kind,
    'versions': {'torch': torch.__version__, 'timm': timm.__version__},
    'settings': {k: v for k, v in vars(settings).items() if k != 'json'},
    'peak_tflops': peak / 1e12,
    'note': f'{kind}, torch {torch.__version__}, timm {timm.__version__}; peak: {origin}',
  }


def _count(settings, device, batch) -> int:
  """FLOPs of a step: eager, without remat, so that nothing is counted twice."""
  plain = argparse.Namespace(**{**vars(settings), 'compile': False, 'remat': False})
  with flop_counter.FlopCounterMode(display=False) as counter:
    Step(plain, device)(batch)
  return counter.get_total_flops()


def _make_matmul(settings, device):
  def run(side: int) -> None:
    x = torch.ones((side, side), dtype=getattr(torch, settings.precision), device=device)
    torch.matmul(x, x)
    if device.type == 'cuda':
      torch.cuda.synchronize()

  return run


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  """Reads the flags and prints the table; returns the rows."""
  parser = rows.make_parser(__doc__, METHODS)
  parser.add_argument('--compile', action='store_true', help='torch.compile the networks')
  parser.add_argument('--channels_last', action='store_true', help='on a CPU, too')
  return rows.run(measure, parser.parse_args(argv))


if __name__ == '__main__':
  main()
