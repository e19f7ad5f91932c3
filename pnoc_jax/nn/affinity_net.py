"""Computes edges between classes with AffinityNet: IRNet's edge branch on a frozen backbone."""

import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import resize
from pnoc_jax.types import Array


class AffinityNet(nn.Module):
  """Maps images to logits of an edge in each cell of layer1's grid (a quarter of the image's side).

  As released: each stage of the backbone goes through a 1 x 1 convolution, group normalisation,
  enlargement to layer1's grid and ReLU; a 1 x 1 convolution joins them. A stem on a finer grid than
  layer1's is averaged to that instead. The parameters are
  `backbone/...` and those of `EdgeBranch` under `edges/...`.
  The backbone is never trained: its statistics are the running ones, and no gradient enters it.

  Attributes:
    backbone: a module of `backbones.make_backbone`; all its stages are read.
    plan: its stride and dilation of layer1 to layer4.
    width: channels a stage.
    groups: groups of the normalisation.
  """

  backbone: nn.Module
  plan: trunk.Plan
  width: int = 32
  groups: int = 4

  @nn.compact
  def __call__(self, image: Array, valid: Array | None = None, *, train: bool = False) -> Array:
    """Computes the logits.

    Args:
      image: normalised images f[B, H, W, C].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.
      train: has no effect, as no layer here has a mode; all networks have this argument.

    Returns:
      f32[B, h, w]; 0 where invalid.
    """
    del train
    features, valids = self.backbone(image, valid, train=False)
    features = {n: jax.lax.stop_gradient(x).astype(jnp.float32) for n, x in features.items()}
    # How many cells of layer1 a cell of each stage spans.
    finer, *strides = [stride for stride, _ in self.plan]
    factors = {name: math.prod(strides[: max(i - 1, 0)]) for i, name in enumerate(features)}
    return EdgeBranch(factors, finer, self.width, self.groups, name='edges')(features, valids)


class EdgeBranch(nn.Module):
  """The layers that train: `conv_<stage>/kernel`, `norm_<stage>/{scale,bias}`, `out/{kernel,bias}`.

  Attributes:
    factors: by how much each stage's grid is enlarged.
    finer: how many cells of the stem a cell of layer1 spans; so much it is reduced.
    width: channels a stage.
    groups: groups of the normalisation.
  """

  factors: Mapping[str, int]
  finer: int
  width: int
  groups: int

  @nn.compact
  def __call__(self, features: dict[str, Array], valids: dict[str, Array] | None) -> Array:
    """Returns the logits f32[B, h, w] on layer1's grid from f32[B, h_s, w_s, C_s] of the stages."""
    parts = []
    for name, x in features.items():
      here = None if valids is None else valids[name]
      x = layers.Conv(self.width, name=f'conv_{name}')(x)
      x = layers.GroupNorm(self.groups, name=f'norm_{name}')(x, here)
      if name == 'stem':
        x = layers.shortcut_pool(x, here, stride=self.finer)
        here = None if valids is None else valids['layer1']
      x = _enlarge(x, here, self.factors[name], features['layer1'].shape[1:3])
      parts.append(nn.relu(x))
    logits = layers.Conv(1, use_bias=True, name='out')(jnp.concatenate(parts, axis=-1))
    return layers.zero_invalid(logits, None if valids is None else valids['layer1'])[..., 0]


def _enlarge(x: Array, valid: Array | None, factor: int, size: Sequence[int]) -> Array:
  """Enlarges x [B, h, w, C] by a factor and cuts it to `size`; x may be larger by rounding up."""
  if factor == 1:
    return x
  shape = factor * x.shape[1], factor * x.shape[2]
  if valid is None:
    x = resize.bilinear(x, shape)
  else:
    sizes = layers.valid_sizes(valid)
    x = jax.vmap(lambda x, n: resize.bilinear_valid(x, n, factor * n, shape=shape))(x, sizes)
  return x[:, : size[0], : size[1]]
