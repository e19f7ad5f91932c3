"""Computes class activation maps: a backbone and a 1 x 1 convolution without bias."""

import flax.linen as nn
import jax.numpy as jnp

from pnoc_jax.nn import layers
from pnoc_jax.types import Array


class Classifier(nn.Module):
  """Maps images to one raw activation map a class; their spatial means are the logits (Sec. 2).

  The parameters are `backbone/...` and `classifier/kernel`.

  Attributes:
    backbone: a module of `backbones.make_backbone`; its last stage is classified.
    num_classes: number of classes K.
  """

  backbone: nn.Module
  num_classes: int

  @nn.compact
  def __call__(self, image: Array, valid: Array | None = None, *, train: bool = False) -> Array:
    """Computes the class activation maps.

    Args:
      image: normalised images f[B, H, W, C].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.
      train: whether batch normalisation uses the batch's statistics.

    Returns:
      cam f32[B, h, w, K], not rectified; 0 where `valid` is False.
    """
    features, valids = self.backbone(image, valid, train=train)
    name = list(features)[-1]
    # In float32 whatever the backbone computes in: losses and maxima are taken of these maps.
    head = layers.Conv(self.num_classes, dtype=jnp.float32, name='classifier')
    cam = head(features[name].astype(jnp.float32))
    return cam if valids is None else layers.zero_invalid(cam, valids[name])
