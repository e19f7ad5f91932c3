"""Runs the network: python example.py IMAGE [LABELS.png]. Needs torch, timm, safetensors, pillow.

`load()` gives the network for use in a program: a torch.nn.Module of normalised images
f32[B, 3, H, W] of any size.
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image, ImageOps
from timm.models import resnest, resnet
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).parent
STAGES = ('layer1', 'layer2', 'layer3', 'layer4')


def make_backbone(facts: dict) -> nn.Module:
  """timm's network, with the strides and dilations that it was trained with."""
  count = STAGES.index(facts['last_stage']) + 1
  if facts['family'] in ('resnet', 'resnest'):
    block = resnet.BasicBlock if facts['expansion'] == 1 else resnet.Bottleneck
    options = {}
    if facts['family'] == 'resnest':
      block = type('Block', (SplitBlock,), {'expansion': facts['expansion']})
      options = {'stem_type': 'deep', 'stem_width': facts['stem_width'], 'avg_down': True}
      options['block_args'] = {'radix': 2, 'avd': True, 'avd_first': False}
    widths = tuple(facts['widths'])
    model = resnet.ResNet(block, facts['blocks'], num_classes=0, channels=widths, **options)
    for stage in STAGES[count:]:
      delattr(model, stage)
    if facts['pool'] == 'none':
      model.maxpool = nn.Identity()
    for stage, plan in zip(STAGES[:count], facts['plan']):
      set_strides(getattr(model, stage), *plan)
    return model
  if facts['family'] == 'efficientnet_lite':
    model = timm.create_model(facts['timm'], num_classes=0, output_stride=facts['output_stride'])
    model.blocks = model.blocks[: (2, 3, 5, 7)[count - 1]]
    if count < 4:
      model.conv_head = model.bn2 = nn.Identity()
    return model
  model = timm.create_model(
    facts['timm'], num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
  )
  model.blocks = model.blocks[: 3 * count]
  if count < 4:
    model.norm = nn.Identity()
  return model


class SplitBlock(resnest.ResNestBottleneck):
  """timm's block of ResNeSt, which has four times as many channels out as in, with any number."""

  def __init__(self, inplanes, planes, *arguments, **options):
    super().__init__(inplanes, planes, *arguments, **options)
    self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(planes * self.expansion)


def set_strides(stage: nn.Sequential, stride: int, dilation: int, first_dilation: int) -> None:
  """Changes a stage of timm's, which is built for output stride 32."""
  for i, block in enumerate(stage):
    taps = dilation if i else first_dilation
    for conv in block.modules():
      if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
        conv.dilation = conv.padding = (taps, taps)
  if stride == 1:
    first = stage[0]
    for module in first.modules():
      if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
      if isinstance(module, nn.AvgPool2d) and module.kernel_size == 3:
        module.stride = 1
    if first.downsample is not None and isinstance(first.downsample[0], nn.AvgPool2d):
      first.downsample[0] = nn.Identity()


def stage_features(model: nn.Module, family: str, image: torch.Tensor) -> list[torch.Tensor]:
  """The features of layer1 and of the last stage."""
  if family in ('resnet', 'resnest'):
    x = model.maxpool(model.act1(model.bn1(model.conv1(image))))
    found = []
    for name in STAGES:
      if hasattr(model, name):
        x = getattr(model, name)(x)
        found.append(x)
    return [found[0], found[-1]]
  if family == 'efficientnet_lite':
    x, found = model.bn1(model.conv_stem(image)), []
    for block in model.blocks:
      x = block(x)
      found.append(x)
    return [found[1], model.bn2(model.conv_head(x))]
  last, maps = model.forward_intermediates(image, indices=[2])
  return [maps[0], last[:, 1:].transpose(1, 2).reshape(maps[0].shape)]


def normalization(kind: str, channels: int) -> nn.Module:
  """Four groups of channels, or the batch's running statistics."""
  return nn.GroupNorm(4, channels) if kind == 'group' else nn.BatchNorm2d(channels)


class Atrous(nn.Module):
  """A branch of the pyramid."""

  def __init__(self, kind, channels, width, dilation):
    super().__init__()
    pad = dilation or 0
    size = 3 if dilation else 1
    self.atrous_conv = nn.Conv2d(
      channels, width, size, padding=pad, dilation=dilation or 1, bias=False
    )
    self.bn = normalization(kind, width)

  def forward(self, x):
    return functional.relu(self.bn(self.atrous_conv(x)))


class Pyramid(nn.Module):
  """Atrous spatial pyramid pooling."""

  def __init__(self, kind, channels, width, rates):
    super().__init__()
    self.count = len(rates) + 1
    for i, rate in enumerate((None, *rates)):
      setattr(self, f'aspp{i + 1}', Atrous(kind, channels, width, rate))
    self.global_avg_pool = nn.Sequential(
      nn.AdaptiveAvgPool2d((1, 1)),
      nn.Conv2d(channels, width, 1, bias=False),
      normalization(kind, width),
      nn.ReLU(),
    )
    self.conv1 = nn.Conv2d((self.count + 1) * width, width, 1, bias=False)
    self.bn1 = normalization(kind, width)

  def forward(self, x):
    branches = [getattr(self, f'aspp{i + 1}')(x) for i in range(self.count)]
    pooled = self.global_avg_pool(x).expand_as(branches[0])
    return functional.relu(self.bn1(self.conv1(torch.cat([*branches, pooled], dim=1))))


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
      nn.Identity(),  # Dropout, in training.
      nn.Conv2d(width, width, 3, padding=1, bias=False),
      normalization(kind, width),
      nn.ReLU(),
      nn.Identity(),
      nn.Conv2d(width, num_classes, 1),
    )

  def forward(self, x, low):
    low = functional.relu(self.bn1(self.conv1(low)))
    return self.classifier(torch.cat([resize(x, low.shape[2:]), low], dim=1))


def resize(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
  """Resizes maps, aligning corners."""
  return functional.interpolate(x, size=size, mode='bilinear', align_corners=True)


class Segmenter(nn.Module):
  """DeepLabV3+: images to logits of each pixel."""

  def __init__(self, contract):
    super().__init__()
    facts, head = contract['backbone'], contract['head']
    self.family = facts['family']
    self.backbone = make_backbone(facts)
    low, high = facts['channels']
    self.aspp = Pyramid(head['norm'], high, head['width'], head['rates'])
    self.decoder = Decoder(
      head['norm'], low, head['width'], head['low_width'], len(contract['classes'])
    )

  def forward(self, image):
    low, high = stage_features(self.backbone, self.family, image)
    return resize(self.decoder(self.aspp(high), low), image.shape[2:])


class Classifier(nn.Module):
  """Images to one raw activation map a class; their means are the logits."""

  def __init__(self, contract):
    super().__init__()
    self.family = contract['backbone']['family']
    self.backbone = make_backbone(contract['backbone'])
    channels = contract['backbone']['channels'][1]
    self.classifier = nn.Conv2d(channels, len(contract['classes']), 1, bias=False)

  def forward(self, image):
    return self.classifier(stage_features(self.backbone, self.family, image)[1])


def make(contract: dict) -> nn.Module:
  """The network that `model.json` describes, its weights drawn."""
  return (Segmenter if contract['network'] == 'segmentation' else Classifier)(contract)


def load(directory: pathlib.Path = HERE) -> nn.Module:
  """The trained network."""
  model = make(json.loads((directory / 'model.json').read_text(encoding='utf-8')))
  model.load_state_dict(safetensors.torch.load_file(directory / 'model.safetensors'))
  return model.eval()


def main() -> None:
  """Runs the network on an image."""
  if len(sys.argv) < 2:
    sys.exit(__doc__)
  contract = json.loads((HERE / 'model.json').read_text(encoding='utf-8'))
  size = contract['input']['height'], contract['input']['width']
  kinds = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')
  image = ImageOps.exif_transpose(Image.open(sys.argv[1], formats=kinds)).convert('RGB')
  pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), np.float32) / 255
  facts = contract['normalization']
  pixels = ((pixels - facts['mean']) / facts['std']).astype(np.float32)
  with torch.inference_mode():
    found = load()(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
  if contract['network'] == 'segmentation':
    labels = Image.fromarray(found.argmax(0).numpy().astype(np.uint8)).resize(image.size, 0)
    labels.putpalette(np.array(contract['palette'], np.uint8).tobytes())
    labels.save(sys.argv[2] if len(sys.argv) > 2 else 'labels.png')
    counts = np.bincount(np.array(labels).ravel())
    print({contract['classes'][k]: int(n) for k, n in enumerate(counts) if n})
  else:
    probabilities = found.mean((1, 2)).sigmoid()
    print({name: round(float(p), 3) for name, p in zip(contract['classes'], probabilities)})
    print(f'maps: {tuple(found.shape)}')


if __name__ == '__main__':
  main()
