"""The ResNets: torchvision's v1.5 form, whose 3 x 3 convolution strides, and the original one."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import moments
from pnoc_jax.types import Array


class Stem(nn.Module):
  """A 7 x 7 convolution, without the max pool: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), width].

  Attributes:
    width: number of output channels.
    dtype: type of the computation.
  """

  width: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    x = layers.Conv(self.width, 7, stride=2, dtype=self.dtype, name='conv1')(x, valid)
    valid = layers.stride_valid(valid, 2)
    x = layers.BatchNorm(self.dtype, act=moments.Act.RELU, name='bn1')(x, valid, train)
    return x, valid


class BasicBlock(trunk.Block):
  """Two 3 x 3 convolutions and a shortcut (ResNet-18 and -34)."""

  expansion: int = 1

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype, dilation, width = self.dtype, self.dilation, self.planes * self.expansion
    out_valid = layers.stride_valid(valid, self.stride)
    conv1 = layers.Conv(self.planes, 3, self.stride, dilation, dtype=dtype, name='conv1')
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn1')(conv1(x, valid), out_valid, train)
    y = layers.Conv(width, 3, dilation=dilation, dtype=dtype, name='conv2')(y, out_valid)
    y = layers.BatchNorm(dtype, name='bn2')(y, out_valid, train)
    if self.project:
      x = layers.Conv(width, stride=self.stride, dtype=dtype, name='shortcut_conv')(x)
      x = layers.BatchNorm(dtype, name='shortcut_bn')(x, out_valid, train)
    return nn.relu(x + y), out_valid


class Bottleneck(trunk.Block):
  """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut (ResNet-50, -101, -152).

  Attributes:
    stride_first: whether the first 1 x 1 convolution strides instead of the 3 x 3 one.
  """

  stride_first: bool = False

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype, width = self.dtype, self.planes * self.expansion
    out_valid = layers.stride_valid(valid, self.stride)
    first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
    y = layers.Conv(self.planes, stride=first, dtype=dtype, name='conv1')(x)
    valid = layers.stride_valid(valid, first)
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn1')(y, valid, train)
    conv2 = layers.Conv(self.planes, 3, second, self.dilation, dtype=dtype, name='conv2')
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn2')(conv2(y, valid), out_valid, train)
    y = layers.Conv(width, dtype=dtype, name='conv3')(y)
    y = layers.BatchNorm(dtype, name='bn3')(y, out_valid, train)
    if self.project:
      x = layers.Conv(width, stride=self.stride, dtype=dtype, name='shortcut_conv')(x)
      x = layers.BatchNorm(dtype, name='shortcut_bn')(x, out_valid, train)
    return nn.relu(x + y), out_valid


class CaffeBottleneck(Bottleneck):
  """The bottleneck of the original ResNets (Caffe), whose first convolution strides."""

  stride_first: bool = True


def first_dilation(dilation: int) -> int:
  """Returns the dilation of a stage's first block, which is always 1, as in the reference."""
  del dilation
  return 1


# Module names of torchvision, timm and MoCo.
_TORCH_NAMES = (
  (r'(conv1|bn1)', r'stem/\1'),
  (r'layer([1-4])\.(\d+)\.((?:conv|bn)[123])', r'layer\1/block\2/\3'),
  (r'layer([1-4])\.(\d+)\.downsample\.0', r'layer\1/block\2/shortcut_conv'),
  (r'layer([1-4])\.(\d+)\.downsample\.1', r'layer\1/block\2/shortcut_bn'),
)
_row = functools.partial(
  trunk.Row, stem=Stem, block=Bottleneck, torch_names=_TORCH_NAMES, first_dilation=first_dilation
)
_basic = functools.partial(_row, block=BasicBlock, expansion=1)

ROWS = (
  _basic('resnet18', blocks=(2, 2, 2, 2), pretrained='hub:timm/resnet18.tv_in1k'),
  _basic('resnet34', blocks=(3, 4, 6, 3), pretrained='hub:timm/resnet34.tv_in1k'),
  _row('resnet50', blocks=(3, 4, 6, 3), pretrained='hub:timm/resnet50.tv_in1k'),
  _row('resnet101', blocks=(3, 4, 23, 3), pretrained='hub:timm/resnet101.tv_in1k'),
  _row('resnet152', blocks=(3, 8, 36, 3), pretrained='hub:timm/resnet152.tv_in1k'),
  # The original ResNet-50, of PoolNet. Its stem's ceil-mode pool gives other grids (57 cells for
  # 224 px at stride 4). It saw images in 0..255 in the order blue, green, red, less their mean.
  _row(
    'resnet50_caffe',
    block=CaffeBottleneck,
    blocks=(3, 4, 6, 3),
    first_dilation=trunk.same_dilation,
    pool=layers.Pool.CEIL,
    mean=(122.67892 / 255, 116.66877 / 255, 104.00699 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
  ),
)
