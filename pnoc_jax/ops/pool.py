"""Averages the top-left part of an array, so that a padded image gives what it alone gives."""

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops import normalize


def average(
  x: types.Array, sizes: types.Array | None = None, *, window: int
) -> tuple[types.Array, types.Array | None]:
  """Averages adjacent windows and drops what is left over, as `torch.nn.AvgPool2d(window)`.

  Differs from the reference: a side that is shorter than the window is averaged as a whole; because
  that is an error there, which occurs for photographs of up to 112 px.

  Args:
    x: f[B, H, W, C].
    sizes: i32[B, 2], rows and columns of each image's content, at least 1; None: all of x.
    window: rows and columns of a window.

  Returns:
    f[B, max(H // window, 1), max(W // window, 1), C], and i32[B, 2], rows and columns of its
    content, outside of which it is arbitrary; None without `sizes`.
  """
  chex.assert_rank(x, 4)
  batch, height, width, channels = x.shape
  lengths = jnp.array([[height, width]]) if sizes is None else sizes
  y = _zero_outside(x.astype(jnp.float32), sizes)
  rows, columns = (max(n // window, 1) for n in (height, width))
  pads = [(0, 0), (0, max(window - height, 0)), (0, max(window - width, 0)), (0, 0)]
  whole = jnp.pad(y, pads)[:, : rows * window, : columns * window]
  sums = whole.reshape(batch, rows, window, columns, window, channels).sum((2, 4))
  counts = jnp.minimum(lengths, window).prod(1)[:, None, None, None]
  result = (sums / counts).astype(x.dtype)
  return result, None if sizes is None else jnp.maximum(sizes // window, 1)


def adaptive_average(
  x: types.Array, sizes: types.Array | None = None, *, cells: int
) -> types.Array:
  """Averages over a grid of cells that may overlap, as `torch.nn.AdaptiveAvgPool2d(cells)`.

  Of n rows, cell i holds those from `floor(i n / cells)` to `ceil((i + 1) n / cells)`.

  Args:
    x: f[B, H, W, C].
    sizes: i32[B, 2], rows and columns of each image's content, at least 1; None: all of x.
    cells: rows and columns of the result.

  Returns:
    f[B, cells, cells, C].
  """
  chex.assert_rank(x, 4)
  lengths = jnp.array([x.shape[1:3]]) if sizes is None else sizes
  lengths = jnp.broadcast_to(lengths, (len(x), 2))
  y = _zero_outside(x.astype(jnp.float32), sizes)
  rows, columns = (_cell_matrix(lengths[:, i], cells, x.shape[1 + i]) for i in range(2))
  # HIGHEST: accelerators would round the factors to bfloat16 or TF32.
  y = jnp.einsum('bnh,bhwc->bnwc', rows, y, precision=jax.lax.Precision.HIGHEST)
  y = jnp.einsum('bmw,bnwc->bnmc', columns, y, precision=jax.lax.Precision.HIGHEST)
  return y.astype(x.dtype)


def _cell_matrix(lengths: types.Array, cells: int, columns: int) -> types.Array:
  """Returns f32[B, cells, columns], which averages the first `lengths` rows over cells."""
  cell, row = jnp.arange(cells)[None, :, None], jnp.arange(columns)
  lengths = lengths[:, None, None]
  start, stop = cell * lengths // cells, -(-(cell + 1) * lengths // cells)
  return ((row >= start) & (row < stop)) / (stop - start).astype(jnp.float32)


def _zero_outside(x: types.Array, sizes: types.Array | None) -> types.Array:
  if sizes is None:
    return x
  chex.assert_shape(sizes, (x.shape[0], 2))
  return jnp.where(normalize.size_valid(sizes, x.shape[1:3])[..., None], x, 0.0)
