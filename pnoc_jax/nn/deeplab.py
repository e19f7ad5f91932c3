"""Computes semantic segmentation with DeepLabV3+ (Chen et al., 2018) on any backbone.

The parameters are `backbone/...`, `aspp/...` and `decoder/...`; the last two start from scratch.
"""

import enum
import functools
from collections.abc import Callable, Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax import errors
from pnoc_jax.nn import layers
from pnoc_jax.ops import moments, resize
from pnoc_jax.types import Array

SCRATCH = ('aspp', 'decoder')
GROUPS = 4  # Groups of channels of HeadNorm.GROUP.


class HeadNorm(enum.Enum):
  """The normalisation of pyramid and decoder.

  Attributes:
    GROUP: group normalisation of each image, with `GROUPS` groups of channels.
    BATCH: batch normalisation, with the statistics of the global batch in training and the running
      ones in evaluation.
  """

  GROUP = 'group'
  BATCH = 'batch'


def atrous_rates(output_stride: int, rates: tuple[int, ...] = (6, 12, 18)) -> tuple[int, ...]:
  """Returns the pyramid's dilations for maps of a stride: those of 16, doubled at 8.

  Args:
    output_stride: pixels to a cell of the backbone's last maps.
    rates: dilations at stride 16.
  """
  return tuple(max(rate * 16 // output_stride, 1) for rate in rates)


class DeepLab(nn.Module):
  """An atrous pyramid on the last stage, refined with layer1's features (DeepLabV3+).

  Convolutions compute in the backbone's type; statistics, the pooled branch, the last convolution
  and the logits are float32.

  Attributes:
    backbone: a module of `backbones.make_backbone`.
    num_classes: number of labels, with the background.
    rates: dilations of the pyramid's 3 x 3 convolutions, see `atrous_rates`.
    norm: normalisation of pyramid and decoder.
    width: channels of the pyramid's branches and of the decoder.
    low_width: channels that layer1's features are reduced to.
    dropout: rates after the pyramid and after the decoder's two 3 x 3 convolutions.
  """

  backbone: nn.Module
  num_classes: int
  rates: tuple[int, ...] = (6, 12, 18)
  norm: HeadNorm = HeadNorm.GROUP
  width: int = 256
  low_width: int = 48
  dropout: tuple[float, float, float] = (0.5, 0.5, 0.1)

  @nn.compact
  def __call__(self, image: Array, valid: Array | None = None, *, train: bool = False) -> Array:
    """Computes the logits of every pixel.

    Args:
      image: normalised images f[B, H, W, C].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.
      train: whether to drop features, with the key `dropout`, and to use the batch's statistics.

    Returns:
      f32[B, H, W, num_classes]; 0 where `valid` is False.
    """
    chex.assert_rank(image, 4)
    features, valids = self.backbone(image, valid, train=train)
    last = list(features)[-1]
    if 'layer1' not in features:
      raise errors.UserError(f'DeepLabV3+ refines with layer1, but there is only {list(features)}.')
    high_valid, low_valid = (valids[last], valids['layer1']) if valids else (None, None)
    unit = functools.partial(Unit, norm=self.norm, dtype=self.backbone.dtype)
    first, second, third = self.dropout
    x = Pyramid(unit, self.width, self.rates, first, name='aspp')(features[last], high_valid, train)
    x = _resize(x, high_valid, low_valid, features['layer1'].shape[1:3])
    rates = second, third
    decoder = Decoder(unit, self.width, self.low_width, self.num_classes, rates, name='decoder')
    logits = decoder(x, features['layer1'], low_valid, train)
    return _resize(logits, low_valid, valid, image.shape[1:3])


class Unit(nn.Module):
  """A convolution without bias, a normalisation and ReLU.

  Attributes:
    width: number of output channels.
    norm: the normalisation.
    kernel_size: side of the kernel.
    dilation: distance of its taps.
    dtype: type of the computation.
  """

  width: int
  norm: HeadNorm
  kernel_size: int = 1
  dilation: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> Array:
    """Maps f[B, h, w, C] to [B, h, w, width]; invalid pixels are arbitrary."""
    conv = layers.Conv(
      self.width, self.kernel_size, dilation=self.dilation, dtype=self.dtype, name='conv'
    )
    x = conv(x, valid)
    if self.norm is HeadNorm.GROUP:
      x = nn.relu(layers.GroupNorm(GROUPS, name='norm')(x, valid))
    else:
      x = layers.BatchNorm(act=moments.Act.RELU, name='norm')(x, valid, train)
    return x.astype(self.dtype)


class Pyramid(nn.Module):
  """Atrous spatial pyramid pooling: several fields of view of the same features, side by side.

  Attributes:
    unit: makes the branches: `Unit` with its normalisation and type.
    width: channels of the branches and of the result.
    rates: dilations of the 3 x 3 branches, beside which stand a 1 x 1 branch and the image's mean.
    dropout: rate of the result.
  """

  unit: Callable[..., nn.Module]
  width: int
  rates: tuple[int, ...]
  dropout: float

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> Array:
    """Maps f[B, h, w, C] to [B, h, w, width]."""
    parts = [self.unit(self.width, name='point')(x, valid, train)]
    for i, rate in enumerate(self.rates):
      branch = self.unit(self.width, kernel_size=3, dilation=rate, name=f'atrous{i}')
      parts.append(branch(x, valid, train))
    pooled = self.unit(self.width, dtype=jnp.float32, name='pool')
    mean = pooled(layers.global_mean(x, valid), None, train)
    # One cell that is resized to the grid is a constant.
    parts.append(jnp.broadcast_to(mean.astype(x.dtype), parts[0].shape))
    x = self.unit(self.width, name='join')(jnp.concatenate(parts, axis=-1), valid, train)
    return nn.Dropout(self.dropout, name='dropout')(x, deterministic=not train)


class Decoder(nn.Module):
  """Joins the pyramid's features with reduced features of layer1, and classifies each cell.

  Attributes:
    unit: makes the convolutions: `Unit` with its normalisation and type.
    width: channels of the result of the 3 x 3 convolutions.
    low_width: channels that layer1's features are reduced to.
    num_classes: number of labels.
    dropout: rates after the two 3 x 3 convolutions.
  """

  unit: Callable[..., nn.Module]
  width: int
  low_width: int
  num_classes: int
  dropout: tuple[float, float]

  @nn.compact
  def __call__(self, x: Array, low: Array, valid: Array | None, train: bool) -> Array:
    """Maps f[B, h, w, width] and layer1's features f[B, h, w, C] to logits f32[B, h, w, K]."""
    low = self.unit(self.low_width, name='low')(low, valid, train)
    x = jnp.concatenate([x, low], axis=-1)
    for i, rate in enumerate(self.dropout):
      x = self.unit(self.width, kernel_size=3, name=f'mix{i}')(x, valid, train)
      x = nn.Dropout(rate, name=f'dropout{i}')(x, deterministic=not train)
    head = layers.Conv(self.num_classes, use_bias=True, name='classifier')
    return head(x.astype(jnp.float32))


def _resize(x: Array, valid: Array | None, new_valid: Array | None, shape: Sequence[int]) -> Array:
  """Resizes the valid part of x [B, h, w, C] to that of the new shape, aligning corners."""
  if valid is None or new_valid is None:
    return resize.bilinear(x, shape, align_corners=True)

  def one(x: Array, size: Array, new_size: Array) -> Array:
    return resize.bilinear_valid(x, size, new_size, shape=shape, align_corners=True)

  return jax.vmap(one)(x, layers.valid_sizes(valid), layers.valid_sizes(new_valid))
