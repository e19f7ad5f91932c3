"""Resizes arrays as PyTorch does: bilinear, bicubic and nearest.

Bilinear and bicubic resizing are two small matrix products, one for each axis. Their gradients are
matrix products, too, and sizes that are known only at run time change the matrices, not the shapes.
"""

import string
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import types

_CUBIC = -0.75  # PyTorch's; Pillow and `jax.image.resize` have -0.5.


def bilinear(x: types.Array, size: Sequence[int], *, align_corners: bool = False) -> types.Array:
  """Resizes as `torch.nn.functional.interpolate(mode='bilinear')`.

  Args:
    x: [..., h, w, c]; integers become float32, other dtypes stay (computed in float32).
    size: (H, W).
    align_corners: Whether the centres of the corner pixels stay in place (DeepLab, PoolNet),
      rather than the corners of the image.

  Returns:
    [..., H, W, c].
  """
  rows, columns = (
    _linear_matrix(old, new, align_corners) for old, new in zip(x.shape[-3:-1], size, strict=True)
  )
  return _apply(x, rows, columns)


def _linear_matrix(old: int, new: int, align_corners: bool) -> np.ndarray:
  if align_corners:
    source = np.arange(new) * ((old - 1) / max(new - 1, 1))
  else:
    source = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0.0)
  low = np.floor(source).astype(int)
  weight = source - low
  matrix = np.zeros((new, old))
  np.add.at(matrix, (np.arange(new), np.minimum(low, old - 1)), 1.0 - weight)
  np.add.at(matrix, (np.arange(new), np.minimum(low + 1, old - 1)), weight)
  return matrix.astype(np.float32)


def _apply(x: types.Array, rows: types.AnyArray, columns: types.AnyArray) -> types.Array:
  dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
  x = x.astype(jnp.float32)
  # Letters, not an ellipsis: of that jax2onnx makes a product for a single image.
  many = string.ascii_lowercase[8 : 8 + x.ndim - 3]
  # HIGHEST: accelerators would round the factors to bfloat16 or TF32.
  x = jnp.einsum(f'Hh,{many}hwc->{many}Hwc', rows, x, precision=jax.lax.Precision.HIGHEST)
  x = jnp.einsum(f'Ww,{many}hwc->{many}hWc', columns, x, precision=jax.lax.Precision.HIGHEST)
  return x.astype(dtype)


def bicubic(x: types.Array, size: Sequence[int]) -> types.Array:
  """Resizes as `torch.nn.functional.interpolate(mode='bicubic', align_corners=False)`.

  Args:
    x: [..., h, w, c]; integers become float32, other dtypes stay (computed in float32).
    size: (H, W).

  Returns:
    [..., H, W, c]; may overshoot the range of `x`.
  """
  rows, columns = (_cubic_matrix(old, new) for old, new in zip(x.shape[-3:-1], size, strict=True))
  return _apply(x, rows, columns)


def _cubic_matrix(old: int, new: int) -> np.ndarray:
  source = (np.arange(new) + 0.5) * old / new - 0.5
  low = np.floor(source).astype(int)
  matrix = np.zeros((new, old))
  for tap in range(-1, 3):
    d = np.abs(source - (low + tap))
    near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d**2 + 1
    far = ((d - 5) * d + 8) * d * _CUBIC - 4 * _CUBIC
    weight = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    np.add.at(matrix, (np.arange(new), np.clip(low + tap, 0, old - 1)), weight)
  return matrix.astype(np.float32)


def bicubic_antialiased(x: types.Array, size: types.Array, *, shape: Sequence[int]) -> types.Array:
  """Resizes as `interpolate(mode='bicubic', antialias=True)`, to a size known at run time only.

  Args:
    x: f[h, w, c].
    size: i32[2], rows and columns of the result, in [1, H] and [1, W].
    shape: (H, W), static.

  Returns:
    f[H, W, c]; what lies outside `size` is arbitrary.
  """
  chex.assert_rank(x, 3)
  chex.assert_shape(size, (2,))
  rows, columns = (_antialiased_matrix(x.shape[i], size[i], shape[i]) for i in range(2))
  return _apply(x, rows, columns)


def _antialiased_matrix(old: int, new: types.Array, rows: int) -> types.Array:
  # Where the result is smaller, the kernel is as much wider. PyTorch has -0.5 here, as Pillow.
  scale = old / new.astype(jnp.float32)
  centre = (jnp.arange(rows)[:, None] + 0.5) * scale
  d = jnp.abs(jnp.arange(old) + 0.5 - centre) / jnp.maximum(scale, 1.0)
  near = (1.5 * d - 2.5) * d**2 + 1
  far = ((5 - d) * d - 8) * d / 2 + 2
  weight = jnp.where(d <= 1, near, jnp.where(d < 2, far, 0.0))
  # Rows beyond the result may lie so far from the source that they have no weight at all.
  total = weight.sum(1, keepdims=True)
  return weight / jnp.where(total == 0, 1.0, total)


def nearest(x: types.Array, size: Sequence[int]) -> types.Array:
  """Takes pixel `floor(i * old / new)`, as nearest in PyTorch and OpenCV; Pillow's differs.

  Args:
    x: [..., h, w, c], any dtype.
    size: (H, W).

  Returns:
    [..., H, W, c].
  """
  rows, columns = (
    np.arange(new) * old // new for old, new in zip(x.shape[-3:-1], size, strict=True)
  )
  return jnp.take(jnp.take(x, rows, axis=-3), columns, axis=-2)


def nearest_centre(x: types.Array, size: Sequence[int]) -> types.Array:
  """Takes the pixel under the new one's centre, `floor((i + 0.5) * old / new)`, as Pillow does.

  Args:
    x: [..., h, w, c], any dtype.
    size: (H, W).

  Returns:
    [..., H, W, c].
  """
  rows, columns = (
    (2 * np.arange(new) + 1) * old // (2 * new)
    for old, new in zip(x.shape[-3:-1], size, strict=True)
  )
  return jnp.take(jnp.take(x, rows, axis=-3), columns, axis=-2)


def bilinear_valid(
  x: types.Array,
  in_size: types.Array,
  out_size: types.Array,
  *,
  shape: Sequence[int],
  align_corners: bool = False,
) -> types.Array:
  """Resizes the top-left part of an array to the top-left part of another, as `bilinear`.

  Equals `bilinear(x[:in_size[0], :in_size[1]], out_size)`, but the sizes may be known at run time
  only, so that padded images of any size go through one compiled function.

  Args:
    x: [h, w, c]; what lies outside `in_size` must be finite and is not read.
    in_size: i32[2], rows and columns of the content, in [1, h] and [1, w].
    out_size: i32[2], rows and columns of the result, in [1, H] and [1, W].
    shape: (H, W), static.
    align_corners: As of `bilinear`.

  Returns:
    [H, W, c], 0 outside `out_size`.
  """
  chex.assert_rank(x, 3)
  chex.assert_shape([in_size, out_size], (2,))
  rows, columns = (
    _valid_matrix(in_size[i], out_size[i], x.shape[i], shape[i], align_corners) for i in range(2)
  )
  return _apply(x, rows, columns)


def _valid_matrix(
  old: types.Array, new: types.Array, columns: int, rows: int, align_corners: bool
) -> types.Array:
  target, column = jnp.arange(rows)[:, None], jnp.arange(columns)
  # The position in the source is a ratio of integers, hence exact for images of any size. A
  # column's weight falls from 1 at this position to 0 at a distance of 1.
  if align_corners:
    source, unit = target * (old - 1), jnp.maximum(new - 1, 1)
  else:
    source, unit = (2 * target + 1) * old - new, 2 * new
  source = jnp.clip(source, 0, (old - 1) * unit)
  weight = jnp.maximum(unit - jnp.abs(source - column * unit), 0)
  return jnp.where(target < new, weight, 0).astype(jnp.float32) / unit
