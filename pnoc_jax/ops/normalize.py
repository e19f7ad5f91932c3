"""Normalises images, and says which pixels are image rather than padding."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types


def normalize(
  image: types.Array, box: types.Array, *, mean: Sequence[float], std: Sequence[float]
) -> types.Array:
  """Returns `(image / 255 - mean) / std` inside the box and exactly 0 (the mean colour) outside.

  The padding is 0 in the reference, too, which pads images after it has normalised them.

  Args:
    image: u8[B, H, W, C].
    box: i32[B, 4], pixels (y0, x0, y1, x1) of each image's content; y1 and x1 lie outside.
    mean: C means of the channels, in [0, 1].
    std: C standard deviations of the channels, in [0, 1].

  Returns:
    f32[B, H, W, C].
  """
  chex.assert_rank(image, 4)
  means, stds = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  chex.assert_shape([means, stds], image.shape[3:])
  inside = box_valid(box, image.shape[1:3])
  scaled = (image.astype(jnp.float32) / 255.0 - means) / stds
  return jnp.where(inside[..., None], scaled, 0.0)


def move_to_corner(x: types.Array, box: types.Array) -> types.Array:
  """Moves each image's content to the top-left corner, and what is above and left of it to the end.

  Args:
    x: [B, H, W, ...].
    box: i32[B, 4], pixels (y0, x0, y1, x1) of each image's content.

  Returns:
    The same shape; the content's box is (0, 0, y1 - y0, x1 - x0).
  """
  chex.assert_shape(box, (len(x), 4))
  return jax.vmap(lambda image, at: jnp.roll(image, (-at[0], -at[1]), axis=(0, 1)))(x, box)


def size_valid(size: types.Array, shape: Sequence[int]) -> types.Array:
  """Returns which cells are content, where it lies in the top-left corner.

  Args:
    size: i32[B, 2], rows and columns of each content.
    shape: (H, W).

  Returns:
    bool[B, H, W].
  """
  chex.assert_shape(size, (None, 2))
  y, x = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])
  height, width = (n[:, None, None] for n in size.T)
  return (y < height) & (x < width)


def box_valid(box: types.Array, size: Sequence[int]) -> types.Array:
  """Returns which pixels lie in the box.

  Args:
    box: i32[B, 4], pixels (y0, x0, y1, x1); y1 and x1 lie outside.
    size: (H, W).

  Returns:
    bool[B, H, W].
  """
  chex.assert_shape(box, (None, 4))
  y, x = jnp.arange(size[0])[:, None], jnp.arange(size[1])
  y0, x0, y1, x1 = (edge[:, None, None] for edge in box.T)
  return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
