"""Class activation maps at inference: multi-scale, flipped, in padded buckets, normalised."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import resize
from pnoc_jax.types import Array, Variables


def raw_cams(model: nn.Module, variables: Variables, image: Array) -> Array:
  """Maps of whole images in evaluation mode: f32[B, H, W, C] normalised to f32[B, h, w, K]."""
  return model.apply(variables, image, train=False)


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
    flip: whether the mirror image is averaged in.

  Returns:
    maps f32[B, h, w, K], of which the first `ceil(size / output_stride)` cells count, zero
    elsewhere; and the logits f32[B, K] of the unflipped image.
  """
  chex.assert_rank(image, 4)
  rows, columns = (jnp.arange(n) for n in image.shape[1:3])
  valid = (rows[None, :, None] < size[:, 0, None, None]) & (
    columns[None, None, :] < size[:, 1, None, None]
  )
  cells = -(-size // output_stride)
  cam = model.apply(variables, image, valid, train=False)
  rows, columns = (jnp.arange(n) for n in cam.shape[1:3])
  inside = (rows[None, :, None] < cells[:, 0, None, None]) & (
    columns[None, None, :] < cells[:, 1, None, None]
  )
  logits = cam_ops.logits(cam, inside)
  maps = jax.nn.relu(cam)
  if flip:
    mirrored = model.apply(variables, cam_ops.flip(image, size[:, 1]), valid, train=False)
    maps = maps + cam_ops.flip(jax.nn.relu(mirrored), cells[:, 1])
  return jnp.where(inside[..., None], maps, 0.0), logits


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

  def up16(n):
    return 16 * ((n - 1) // 16 + 1)

  low_shape = tuple((n - 1) // 4 + 1 for n in shape)
  high_shape = tuple(up16(n) for n in shape)
  low_size, high_size = (native - 1) // 4 + 1, up16(native)

  def place(grid, in_size, out_size, out_shape):
    return jax.vmap(
      lambda x, size_in, size_out: resize.bilinear_valid(x, size_in, size_out, shape=out_shape)
    )(grid, in_size, out_size)

  low = high = 0.0
  for grid, size in zip(maps, sizes, strict=True):
    picked = jnp.take_along_axis(grid, classes[:, None, None, :], axis=3)
    cells = -(-size // output_stride)
    low = low + place(picked, cells, low_size, low_shape)
    high = high + place(picked, cells, high_size, high_shape)
  high = high[:, : shape[0], : shape[1]]
  rows, columns = (jnp.arange(n) for n in shape)
  inside = (rows[None, :, None] < native[:, 0, None, None]) & (
    columns[None, None, :] < native[:, 1, None, None]
  )
  high = jnp.where(inside[..., None], high, 0.0)
  # The maximum is over the image alone: cells that only the rounding up to 16 adds do not count.
  return (
    low / (low.max(axis=(1, 2), keepdims=True) + eps),
    high / (high.max(axis=(1, 2), keepdims=True) + eps),
  )
