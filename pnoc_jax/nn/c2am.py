"""Computes C2AM's class-agnostic activation map and the foreground and background that it parts."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from pnoc_jax import errors
from pnoc_jax.nn import layers
from pnoc_jax.types import Array


class Disentangled(NamedTuple):
  """An image in two parts.

  Attributes:
    foreground: f32[B, C], mean over the image of features times probability.
    background: f32[B, C], mean of features times one minus probability.
    logits: f32[B, h, w, 1], of the probability; 0 where invalid.
  """

  foreground: Array
  background: Array
  logits: Array


class C2AM(nn.Module):
  """A backbone and a head that tells foreground from background (C2AM).

  The head is a 3 x 3 convolution to one channel and batch normalisation. The parameters are
  `backbone/...`, `head/conv/kernel` and `head/norm/{scale,bias}`.

  Attributes:
    backbone: a module of `backbones.make_backbone`.
    stages: whose features are concatenated, in this order; they must share one grid (at output
      stride 16 layer4 and layer3 do; a trunk that ends with layer3 has that alone).
  """

  backbone: nn.Module
  stages: tuple[str, ...] = ('layer4', 'layer3')

  @nn.compact
  def __call__(
    self, image: Array, valid: Array | None = None, *, train: bool = False
  ) -> Disentangled:
    """Parts images.

    Args:
      image: normalised images f[B, H, W, C].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.
      train: whether batch normalisation uses the batch's statistics.

    Raises:
      UserError: a stage does not exist or has another grid than the first.
    """
    features, valids = self.backbone(image, valid, train=train)
    _check(features, self.stages)
    valid = None if valids is None else valids[self.stages[0]]
    # In float32 whatever the backbone computes in, as are the losses.
    x = jnp.concatenate([features[name].astype(jnp.float32) for name in self.stages], axis=-1)
    logits = Head(name='head')(x, valid, train)
    probability = nn.sigmoid(logits)
    foreground = layers.global_mean(probability * x, valid)[:, 0, 0]
    background = layers.global_mean((1.0 - probability) * x, valid)[:, 0, 0]
    return Disentangled(foreground, background, layers.zero_invalid(logits, valid))


class Head(nn.Module):
  """A 3 x 3 convolution to one channel, and batch normalisation."""

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> Array:
    """Returns the logits f32[B, h, w, 1] of features f32[B, h, w, C]."""
    x = layers.Conv(1, 3, name='conv')(x, valid)
    return layers.BatchNorm(name='norm')(x, valid, train)


def _check(features: dict[str, Array], stages: tuple[str, ...]) -> None:
  missing = [name for name in stages if name not in features]
  if missing:
    raise errors.UserError(
      f'C2AM takes the features of {missing}, but the backbone has only {list(features)}: '
      'choose `stages` among them.'
    )
  grids = {name: features[name].shape[1:3] for name in stages}
  if len(set(grids.values())) > 1:
    raise errors.UserError(
      f'C2AM concatenates features of one grid, but those of {grids} differ: '
      'choose a smaller output_stride, or fewer `stages`.'
    )
