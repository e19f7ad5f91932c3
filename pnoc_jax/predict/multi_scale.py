"""What inference at several scales shares: mirror images, padded buckets, sums on one grid."""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import normalize, resize
from pnoc_jax.types import Array, Variables

PRIOR_STRIDE = 4  # Pixels to a cell of the priors' low maps.


def forward(
  model: nn.Module, variables: Variables, image: Array, valid: Array | None = None
) -> Any:
  """What a network gives in evaluation mode.

  Args:
    model: the network.
    variables: its variables.
    image: f32[B, H, W, C], normalised.
    valid: bool[B, H, W], the pixels that exist; None: all.
  """
  return model.apply(variables, image, valid, train=False)


def with_mirror(
  forward: Callable[[Array, Array], Array],
  image: Array,
  size: Array,
  *,
  output_stride: int,
  activation: Callable[[Array], Array] = jax.nn.relu,
  flip: bool = True,
) -> tuple[Array, Array]:
  """Activated maps of one scale, summed over the image and its mirror image.

  Args:
    forward: (image, valid bool[B, H, W]) -> raw maps f32[B, h, w, K].
    image: f32[B, H, W, C], normalised, content in the top-left corner, zero elsewhere.
    size: i32[B, 2], height and width of the content.
    output_stride: pixels to a cell of the maps.
    activation: of the raw maps, cell by cell.
    flip: whether the mirror image is added.

  Returns:
    f32[B, h, w, K], of which the first `ceil(size / output_stride)` cells count, zero elsewhere;
    and the raw maps of the unflipped image, to be read in those cells.
  """
  chex.assert_rank(image, 4)
  valid = normalize.size_valid(size, image.shape[1:3])
  cells = -(-size // output_stride)
  raw = forward(image, valid)
  maps = activation(raw)
  if flip:
    mirrored = forward(cam_ops.flip(image, size[:, 1]), valid)
    maps = maps + cam_ops.flip(activation(mirrored), cells[:, 1])
  return jnp.where(normalize.size_valid(cells, raw.shape[1:3])[..., None], maps, 0.0), raw


def enlarge(
  maps: Array, size: Array, native: Array, *, output_stride: int, shape: tuple[int, int]
) -> Array:
  """Maps of one scale at the original images' sizes, rounded up to multiples of 16.

  Args:
    maps: f32[B, h, w, P].
    size: i32[B, 2], the scaled images' heights and widths.
    native: i32[B, 2], those of the original images.
    output_stride: pixels to a cell of the maps.
    shape: (H, W) of the bucket that holds the original images.

  Returns:
    f32[B, H', W', P], H' and W' the next multiples of 16; `crop` leaves the images of it.
  """
  return place(maps, -(-size // output_stride), _up16(native), tuple(_up16(n) for n in shape))


def _up16(n: Any) -> Any:
  return 16 * ((n - 1) // 16 + 1)


def place(grid: Array, in_size: Array, out_size: Array, shape: Sequence[int]) -> Array:
  """`resize.bilinear_valid` of each image: f32[B, h, w, P] to f32[B, *shape, P]."""
  return jax.vmap(
    lambda x, size_in, size_out: resize.bilinear_valid(x, size_in, size_out, shape=shape)
  )(grid, in_size, out_size)


def total(parts: Iterable[Array]) -> Array:
  """The sum of the maps of all scales."""
  return functools.reduce(operator.add, parts)


def crop(maps: Array, native: Array, *, shape: tuple[int, int]) -> Array:
  """Cuts `enlarge`d maps to the bucket, zero outside of the images: f32[B, *shape, P]."""
  maps = maps[:, : shape[0], : shape[1]]
  return jnp.where(normalize.size_valid(native, shape)[..., None], maps, 0.0)


def over_maximum(maps: Array, *, eps: float = 1e-5) -> Array:
  """Maps f32[B, H, W, P] of no negative value, each divided by (its maximum + eps)."""
  return maps / (maps.max(axis=(1, 2), keepdims=True) + eps)
