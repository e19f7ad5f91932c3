"""Computes edges between classes with AffinityNet: IRNet's edge branch on a frozen backbone."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import resize
from pnoc_jax.types import Array


class AffinityNet(nn.Module):
  """Maps images to logits of an edge in each cell of layer1's grid (a quarter of the image's side).

  As released: each stage of the backbone goes through a 1 x 1 convolution, group normalisation,
  enlargement to layer1's grid and ReLU; a 1 x 1 convolution joins them. The parameters are
  `backbone/...`, `edge_<stage>/kernel`, `norm_<stage>/{scale,bias}` and `edge/{kernel,bias}`.
  The backbone is never trained: its statistics are the running ones, and no gradient enters it.

  Attributes:
    backbone: a module of `backbones.make_backbone`; all its stages are read.
    width: channels a stage.
    groups: groups of the normalisation.
  """

  backbone: trunk.Backbone
  width: int = 32
  groups: int = 4

  @nn.compact
  def __call__(self, image: Array, valid: Array | None = None) -> Array:
    """Computes the logits.

    Args:
      image: normalised images f[B, H, W, 3].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.

    Returns:
      f32[B, h, w]; 0 where invalid.
    """
    features, valids = self.backbone(image, valid, train=False)
    parts = []
    for i, (name, x) in enumerate(features.items()):
      x = jax.lax.stop_gradient(x).astype(jnp.float32)
      here = None if valids is None else valids[name]
      x = layers.Conv(self.width, name=f'edge_{name}')(x)
      x = GroupNorm(self.groups, name=f'norm_{name}')(x, here)
      # Between the grids of layer1 and of this stage; the stem's is layer1's.
      factor = math.prod(stride for stride, _ in self.backbone.plan[1:i])
      parts.append(nn.relu(_enlarge(x, here, factor, features['layer1'].shape[1:3])))
    logits = layers.Conv(1, use_bias=True, name='edge')(jnp.concatenate(parts, axis=-1))
    return layers.zero_invalid(logits, None if valids is None else valids['layer1'])[..., 0]


def _enlarge(x: Array, valid: Array | None, factor: int, size: tuple[int, int]) -> Array:
  """Resizes x [B, h, w, C] by a factor, and cuts off what sizes rounded up have added."""
  if factor == 1:
    return x
  shape = factor * x.shape[1], factor * x.shape[2]
  if valid is None:
    x = resize.bilinear(x, shape)
  else:
    sizes = jnp.stack([valid.any(2).sum(1), valid.any(1).sum(1)], axis=1).astype(jnp.int32)
    x = jax.vmap(lambda x, n: resize.bilinear_valid(x, n, factor * n, shape=shape))(x, sizes)
  return x[:, : size[0], : size[1]]


class GroupNorm(nn.Module):
  """Group normalisation as PyTorch's, over the pixels that exist; in float32.

  Attributes:
    groups: number of groups of neighbouring channels.
    eps: added to the variance.
  """

  groups: int
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, valid: Array | None = None) -> Array:
    """Normalises x [B, H, W, C] by the mean and the variance of each image and group; f32."""
    chex.assert_rank(x, 4)
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    x = layers.zero_invalid(x.astype(jnp.float32), valid)
    mean = self._mean(x, valid)
    centred = x - mean
    var = self._mean(jnp.square(centred), valid)
    return centred * (scale * jax.lax.rsqrt(var + self.eps)) + bias

  def _mean(self, x: Array, valid: Array | None) -> Array:
    """Returns each group's mean at each of its channels: f32[B, 1, 1, C]."""
    by_channel = layers.global_mean(x, valid)
    batch, _, _, channels = by_channel.shape
    by_group = by_channel.reshape(batch, 1, 1, self.groups, -1).mean(-1, keepdims=True)
    shape = batch, 1, 1, self.groups, channels // self.groups
    return jnp.broadcast_to(by_group, shape).reshape(batch, 1, 1, channels)
