"""The ResNeSts (Zhang et al., 2020): deep stem, split attention, pooled strides.

Radix 2, cardinality 1, as in the released ResNeSt-50/101/200/269.
"""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax import platforms
from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import convolution, moments
from pnoc_jax.types import Array

RADIX = 2


class DeepStem(nn.Module):
  """Three 3 x 3 convolutions, no max pool: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2 * width].

  Attributes:
    width: channels of the first two convolutions.
    dtype: type of the computation.
  """

  width: int = 32
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype = self.dtype
    x = layers.Conv(self.width, 3, stride=2, dtype=dtype, name='conv1')(x, valid)
    valid = layers.stride_valid(valid, 2)
    x = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn1')(x, valid, train)
    x = layers.Conv(self.width, 3, dtype=dtype, name='conv2')(x, valid)
    x = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn2')(x, valid, train)
    x = layers.Conv(2 * self.width, 3, dtype=dtype, name='conv3')(x, valid)
    x = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn3')(x, valid, train)
    return x, valid


class SplitAttention(nn.Module):
  """A 3 x 3 convolution to `RADIX` branches and their sum, weighted by attention over the branches.

  Attributes:
    planes: number of input and output channels.
    dilation: dilation of the convolution.
    radix: form of the grouped convolution.
    dtype: type of the computation; the attention is computed in float32.
  """

  planes: int
  dilation: int = 1
  radix: convolution.Radix = convolution.Radix.AUTO
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> Array:
    """Maps x [B, H, W, planes] to the same shape; `train` uses the batch's statistics."""
    planes, dtype = self.planes, self.dtype
    conv = layers.Conv(
      RADIX * planes,
      3,
      dilation=self.dilation,
      groups=RADIX,
      radix=self.radix,
      dtype=dtype,
      name='conv',
    )
    u = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn0')(conv(x, valid), valid, train)
    branches = jnp.split(u, RADIX, axis=-1)
    gap = layers.global_mean(functools.reduce(operator.add, branches), valid)
    inner = max(planes * RADIX // 4, 32)
    a = layers.Conv(inner, use_bias=True, name='fc1')(gap)
    a = layers.BatchNorm(act=moments.Act.RELU, name='bn1')(a, None, train)
    a = layers.Conv(RADIX * planes, use_bias=True, name='fc2')(a)
    a = jax.nn.softmax(a.reshape(-1, 1, 1, RADIX, planes), axis=3).astype(dtype)
    return _weighted_on_gpu(u, a) if platforms.kind() == 'gpu' else _weighted(branches, a)


def _weighted(branches: list[Array], weights: Array) -> Array:
  """Sums branches [B, H, W, C], weighted by [B, 1, 1, RADIX, C]."""
  parts = [weights[:, :, :, k] * branch for k, branch in enumerate(branches)]
  return functools.reduce(operator.add, parts)


@jax.custom_vjp
def _weighted_on_gpu(u: Array, weights: Array) -> Array:
  """As `_weighted`; the weights' gradient is a sum in float32, in a form that suits GPUs."""
  return _weighted(jnp.split(u, RADIX, axis=-1), weights)


def _weighted_forward(u: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
  return _weighted_on_gpu(u, weights), (u, weights)


def _weighted_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
  u, weights = kept
  for_map = jnp.concatenate([weights[:, :, :, k] * grad for k in range(RADIX)], axis=-1)
  wide = jnp.concatenate([grad] * RADIX, axis=-1).astype(jnp.float32)
  for_weights = moments.sums_by_image(wide * u.astype(jnp.float32))
  return for_map, for_weights.reshape(weights.shape).astype(weights.dtype)


_weighted_on_gpu.defvjp(_weighted_forward, _weighted_backward)


class Block(trunk.Block):
  """1 x 1 convolution, split attention, average pool, 1 x 1 convolution, and a shortcut.

  The average pools stride. The first block of a stage (`is_first`) has one even at stride 1, where
  the stage is dilated instead of strided.
  """

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype, width = self.dtype, self.planes * self.expansion
    out_valid = layers.stride_valid(valid, self.stride)
    y = layers.Conv(self.planes, dtype=dtype, name='conv1')(x)
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn1')(y, valid, train)
    attention = SplitAttention(self.planes, self.dilation, self.radix, dtype, name='conv2')
    y = attention(y, valid, train)
    if self.stride > 1 or self.is_first:
      y = layers.avg_pool(y, valid, stride=self.stride)
    y = layers.Conv(width, dtype=dtype, name='conv3')(y)
    y = layers.BatchNorm(dtype, name='bn3')(y, out_valid, train)
    if self.project:
      x = layers.shortcut_pool(x, valid, stride=self.stride)
      x = layers.Conv(width, dtype=dtype, name='shortcut_conv')(x)
      x = layers.BatchNorm(dtype, name='shortcut_bn')(x, out_valid, train)
    return nn.relu(x + y), out_valid


# Module names of timm and of the official code.
_TORCH_NAMES = (
  (r'conv1\.0', r'stem/conv1'),
  (r'conv1\.1', r'stem/bn1'),
  (r'conv1\.3', r'stem/conv2'),
  (r'conv1\.4', r'stem/bn2'),
  (r'conv1\.6', r'stem/conv3'),
  (r'bn1', r'stem/bn3'),
  (r'layer([1-4])\.(\d+)\.(conv1|bn1|conv3|bn3)', r'layer\1/block\2/\3'),
  (r'layer([1-4])\.(\d+)\.conv2\.(conv|bn0|fc1|bn1|fc2)', r'layer\1/block\2/conv2/\3'),
  (r'layer([1-4])\.(\d+)\.downsample\.1', r'layer\1/block\2/shortcut_conv'),
  (r'layer([1-4])\.(\d+)\.downsample\.2', r'layer\1/block\2/shortcut_bn'),
)
_row = functools.partial(
  trunk.Row,
  stem=DeepStem,
  block=Block,
  torch_names=_TORCH_NAMES,
  first_dilation=trunk.half_dilation,
  stem_expansion=2,
)

ROWS = (
  _row(
    'resnest14', blocks=(1, 1, 1, 1), stem_width=32, pretrained='hub:timm/resnest14d.gluon_in1k'
  ),
  _row(
    'resnest26', blocks=(2, 2, 2, 2), stem_width=32, pretrained='hub:timm/resnest26d.gluon_in1k'
  ),
  _row('resnest50', blocks=(3, 4, 6, 3), stem_width=32, pretrained='hub:timm/resnest50d.in1k'),
  _row('resnest101', blocks=(3, 4, 23, 3), pretrained='hub:timm/resnest101e.in1k'),
  _row('resnest200', blocks=(3, 24, 36, 3), pretrained='hub:timm/resnest200e.in1k'),
  _row('resnest269', blocks=(3, 30, 48, 8), pretrained='hub:timm/resnest269e.in1k'),
  # For small images on a CPU: 0.35 M parameters, no released weights.
  _row(
    'resnest_tiny',
    blocks=(1, 1, 1, 1),
    widths=(16, 32, 64, 128),
    expansion=2,
    stem_width=8,
    pool=layers.Pool.NONE,
  ),
)
