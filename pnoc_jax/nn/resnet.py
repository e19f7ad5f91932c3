"""Computes the parts of a ResNet in torchvision's v1.5 form: the 3 x 3 convolution strides."""

import flax.linen as nn
import jax.numpy as jnp

from pnoc_jax.nn import layers
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
    x = nn.relu(layers.BatchNorm(self.dtype, name='bn1')(x, valid, train))
    return x, valid


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions and a shortcut (ResNet-18 and -34).

  Attributes:
    planes: width of the block; it has `planes * expansion` output channels.
    expansion: 1 for this block; part of the signature that all blocks share.
    stride: stride of the first convolution and of the shortcut.
    dilation: dilation of both convolutions.
    project: whether the shortcut is a 1 x 1 convolution.
    is_first: unused; part of the signature that all blocks share.
    radix: unused; part of the signature that all blocks share.
    dtype: type of the computation.
  """

  planes: int
  expansion: int = 1
  stride: int = 1
  dilation: int = 1
  project: bool = False
  is_first: bool = False
  radix: layers.Radix = layers.Radix.AUTO
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype, dilation, width = self.dtype, self.dilation, self.planes * self.expansion
    out_valid = layers.stride_valid(valid, self.stride)
    conv1 = layers.Conv(self.planes, 3, self.stride, dilation, dtype=dtype, name='conv1')
    y = nn.relu(layers.BatchNorm(dtype, name='bn1')(conv1(x, valid), out_valid, train))
    y = layers.Conv(width, 3, dilation=dilation, dtype=dtype, name='conv2')(y, out_valid)
    y = layers.BatchNorm(dtype, name='bn2')(y, out_valid, train)
    if self.project:
      x = layers.Conv(width, stride=self.stride, dtype=dtype, name='shortcut_conv')(x)
      x = layers.BatchNorm(dtype, name='shortcut_bn')(x, out_valid, train)
    return nn.relu(x + y), out_valid


class Bottleneck(nn.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut (ResNet-50, -101, -152).

  Attributes:
    planes: width of the 3 x 3 convolution.
    expansion: the block has `planes * expansion` output channels.
    stride: stride of the 3 x 3 convolution and of the shortcut.
    dilation: dilation of the 3 x 3 convolution.
    project: whether the shortcut is a 1 x 1 convolution.
    is_first: unused; part of the signature that all blocks share.
    radix: unused; part of the signature that all blocks share.
    dtype: type of the computation.
    stride_first: whether the first 1 x 1 convolution strides instead of the 3 x 3 one.
  """

  planes: int
  expansion: int = 4
  stride: int = 1
  dilation: int = 1
  project: bool = False
  is_first: bool = False
  radix: layers.Radix = layers.Radix.AUTO
  dtype: jnp.dtype = jnp.float32
  stride_first: bool = False

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype, width = self.dtype, self.planes * self.expansion
    out_valid = layers.stride_valid(valid, self.stride)
    first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
    y = layers.Conv(self.planes, stride=first, dtype=dtype, name='conv1')(x)
    valid = layers.stride_valid(valid, first)
    y = nn.relu(layers.BatchNorm(dtype, name='bn1')(y, valid, train))
    conv2 = layers.Conv(self.planes, 3, second, self.dilation, dtype=dtype, name='conv2')
    y = nn.relu(layers.BatchNorm(dtype, name='bn2')(conv2(y, valid), out_valid, train))
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
  """Returns the dilation of a stage's first block: 1, whatever the others' is, as the reference."""
  del dilation
  return 1


def same_dilation(dilation: int) -> int:
  """Returns the dilation of a stage's first block where it is that of the others (Caffe)."""
  return dilation
