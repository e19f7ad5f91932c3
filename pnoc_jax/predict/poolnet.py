"""Saliency maps of the saliency network: whole images in padded buckets, at their own sizes."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from pnoc_jax.ops import normalize
from pnoc_jax.predict import multi_scale
from pnoc_jax.types import Array, Variables


def scale_map(model: nn.Module, variables: Variables, image: Array, size: Array) -> Array:
  """The probability that a pixel is salient.

  Args:
    model: a network with the call and the result of `nn.poolnet.PoolNet`.
    variables: its variables.
    image: f32[B, H, W, C], normalised, content in the top-left corner, zero elsewhere.
    size: i32[B, 2], height and width of the content.

  Returns:
    f32[B, H, W, 1], of which the first `size` pixels count.
  """
  valid = normalize.size_valid(size, image.shape[1:3])
  return jax.nn.sigmoid(multi_scale.forward(model, variables, image, valid))[..., None]


def fuse_maps(
  maps: Sequence[Array], sizes: Sequence[Array], native: Array, *, shape: tuple[int, int]
) -> Array:
  """Averages the maps of all scales at the images' own sizes.

  Args:
    maps: f32[B, H_s, W_s, 1] a scale, from `scale_map`.
    sizes: i32[B, 2] a scale, the scaled images' heights and widths.
    native: i32[B, 2], heights and widths of the original images.
    shape: (H, W) of the bucket that holds the original images.

  Returns:
    f32[B, H, W], of which `native` pixels count, zero elsewhere.
  """
  total = multi_scale.total(
    multi_scale.place(x, size, native, shape) for x, size in zip(maps, sizes, strict=True)
  )
  return (total / len(maps))[..., 0]
