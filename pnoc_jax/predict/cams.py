"""Class activation maps at inference: multi-scale, flipped, in padded buckets, normalised."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import normalize
from pnoc_jax.predict import multi_scale
from pnoc_jax.types import Array, Variables


def raw_cams(model: nn.Module, variables: Variables, image: Array) -> Array:
  """Maps of whole images in evaluation mode: f32[B, H, W, C] normalised to f32[B, h, w, K]."""
  return multi_scale.forward(model, variables, image)


def scale_cams(
  model: nn.Module,
  variables: Variables,
  image: Array,
  size: Array,
  *,
  output_stride: int,
  flip: bool = True,
) -> tuple[Array, Array]:
  """Rectified maps of one scale, summed over the image and its mirror image.

  Args:
    model: the CAM network.
    variables: its variables.
    image: f32[B, H, W, C], normalised, content in the top-left corner, zero elsewhere.
    size: i32[B, 2], height and width of the content.
    output_stride: pixels to a cell of the maps.
    flip: whether the mirror image is added.

  Returns:
    maps f32[B, h, w, K], of which the first `ceil(size / output_stride)` cells count, zero
    elsewhere; and the logits f32[B, K] of the unflipped image.
  """
  maps, cam = multi_scale.with_mirror(
    functools.partial(multi_scale.forward, model, variables),
    image,
    size,
    output_stride=output_stride,
    flip=flip,
  )
  cells = -(-size // output_stride)
  return maps, cam_ops.logits(cam, normalize.size_valid(cells, cam.shape[1:3]))


def fuse_cams(
  maps: Sequence[Array],
  sizes: Sequence[Array],
  native: Array,
  classes: Array,
  *,
  output_stride: int,
  shape: tuple[int, int],
  eps: float = 1e-5,
) -> tuple[Array, Array]:
  """Sums the maps of all scales on two grids and divides each class by its maximum.

  Sums and averages over scales give the same priors, up to `eps`.

  Args:
    maps: f32[B, h_s, w_s, K] a scale, from `scale_cams`.
    sizes: i32[B, 2] a scale, the scaled images' heights and widths.
    native: i32[B, 2], heights and widths of the original images.
    classes: i32[B, P], the classes wanted of each image (repeat one to fill up).
    output_stride: pixels to a cell of the maps.
    shape: (H, W) of the bucket that holds the original images.
    eps: added to the maximum.

  Returns:
    low f32[B, ceil(H / 4), ceil(W / 4), P], of which `ceil(native / 4)` cells count; and
    high f32[B, H, W, P], of which `native` pixels count. Zero elsewhere.
  """
  stride = multi_scale.PRIOR_STRIDE
  low_size, low_shape = -(-native // stride), tuple(-(-n // stride) for n in shape)
  picked = [jnp.take_along_axis(grid, classes[:, None, None, :], axis=3) for grid in maps]
  low = multi_scale.total(
    multi_scale.place(grid, -(-size // output_stride), low_size, low_shape)
    for grid, size in zip(picked, sizes, strict=True)
  )
  high = multi_scale.total(
    multi_scale.enlarge(grid, size, native, output_stride=output_stride, shape=shape)
    for grid, size in zip(picked, sizes, strict=True)
  )
  # The maximum is over the image alone: cells that only the rounding up to 16 adds do not count.
  high = multi_scale.crop(high, native, shape=shape)
  return multi_scale.over_maximum(low, eps=eps), multi_scale.over_maximum(high, eps=eps)
