"""What class activation maps become: logits, normalised maps, mirror images."""

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import platforms, types


def logits(cam: types.Array, valid: types.Array | None = None) -> types.Array:
  """Returns the spatial mean of the maps: the classifier's output.

  Args:
    cam: [B, h, w, K], raw.
    valid: bool[B, h, w], the cells that are image rather than padding; None: all.

  Returns:
    f32[B, K].
  """
  chex.assert_rank(cam, 4)
  cam = cam.astype(jnp.float32)
  if valid is None:
    return cam.mean((1, 2))
  chex.assert_shape(valid, cam.shape[:3])
  total = jnp.where(valid[..., None], cam, 0.0).sum((1, 2))
  return total / jnp.maximum(valid.sum((1, 2)), 1)[:, None]


def normalize_max(
  cam: types.Array, *, axis: int | tuple[int, ...], eps: float = 1e-5
) -> types.Array:
  """Returns `relu(cam) / (max(relu(cam)) + eps)`, in [0, 1).

  Args:
    cam: Raw maps (or sums of rectified ones), any shape.
    axis: Over which the maximum is taken, e.g. (1, 2) for each map of [B, h, w, K].
    eps: Of the denominator; a map without positive cell becomes 0.

  Returns:
    f32, the shape of `cam`.
  """
  positive = jax.nn.relu(cam.astype(jnp.float32))
  return positive / (positive.max(axis, keepdims=True) + eps)


def flip(x: types.Array, width: types.Array | None = None) -> types.Array:
  """Mirrors left and right.

  Args:
    x: [B, h, w, c].
    width: i32[B], the columns of each example that are image; the others stay where they are,
      so that a padded image mirrors within itself. None: all.

  Returns:
    [B, h, w, c].
  """
  chex.assert_rank(x, 4)
  if width is None:
    return x[:, :, ::-1]
  column, width = jnp.arange(x.shape[2])[:, None], width[:, None, None, None]
  if platforms.kind() != 'tpu':
    source = jnp.where(column < width, width - 1 - column, column)
    return jnp.take_along_axis(x, source, axis=2)
  return jnp.where(column < width, _mirror_left(x, width), x)


def _mirror_left(x: types.Array, width: types.Array) -> types.Array:
  """Mirrors x [B, h, w, c], so that column `width` i32[B, 1, 1, 1] - 1 becomes the first.

  What lies beyond the width comes to lie anywhere. A step of its own for each example is a gather,
  which a TPU runs slowly; so the image moves in steps of powers of two. A GPU fuses the gather with
  what reads it, which is one pass instead of ten.
  """
  columns = x.shape[2]
  mirrored = x[:, :, ::-1]
  for bit in range((columns - 1).bit_length()):
    moved = jnp.roll(mirrored, -(2**bit), axis=2)
    mirrored = jnp.where((columns - width) >> bit & 1, moved, mirrored)
    # Fused with each other, the steps would double what each of them reads.
    mirrored = jax.lax.optimization_barrier(mirrored)
  return mirrored
