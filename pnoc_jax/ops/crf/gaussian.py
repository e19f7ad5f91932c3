"""Gaussian filtering of scattered points over all their pairs, exactly, in blocks of rows.

The time is quadratic in the number of points, and the memory is linear. This is for accelerators,
and for checking `lattice`, which has the same interface, on small images.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types

_PAIRS = 2**24  # Pairs that are in memory at once.


class Points(NamedTuple):
  """The points that are filtered.

  Attributes:
    features: f32[N, d].
    valid: bool[N], the points that take part.
  """

  features: types.Array
  valid: types.Array


def make(features: types.Array, upper: Sequence[float], valid: types.Array | None = None) -> Points:
  """Prepares the kernel exp(-|f_i - f_j|^2 / 2).

  Args:
    features: f32[N, d]; no gradient flows to them.
    upper: Their d bounds; they have no effect here.
    valid: bool[N], the points that take part; None: all.

  Returns:
    The points for `apply`.
  """
  chex.assert_shape(features, (None, len(upper)))
  if valid is None:
    valid = jnp.ones(features.shape[:1], bool)
  chex.assert_shape(valid, features.shape[:1])
  return Points(jax.lax.stop_gradient(features), valid)


def one_by_one(function: Callable[..., types.Array]) -> Callable[..., types.Array]:
  """Returns the function itself, as its examples can be computed side by side.

  Args:
    function: A function of arrays.
  """
  return function


@jax.custom_vjp
def apply(points: Points, values: types.Array) -> types.Array:
  """Sums the values of all points, weighted by the kernel (a point's own value, too).

  Linear in `values`, and differentiable in reverse mode; no gradient flows to the points.

  Args:
    points: From `make`.
    values: f32[N, K], finite.

  Returns:
    f32[N, K]; 0 at points that take no part.
  """
  return _filter(points, values)


def _filter(points: Points, values: types.Array) -> types.Array:
  features, valid = points
  n, k = values.shape
  chex.assert_shape(valid, (n,))
  values = jnp.where(valid[:, None], values, 0.0)
  rows = min(n, max(1, _PAIRS // n))
  blocks = jnp.pad(features, ((0, -n % rows), (0, 0))).reshape(-1, rows, features.shape[1])

  def one(block: types.Array) -> types.Array:
    # Squares of differences: |f|^2 + |g|^2 - 2 f.g would lose small distances in float32.
    squares = sum((block[:, i, None] - features[None, :, i]) ** 2 for i in range(block.shape[1]))
    return jnp.dot(jnp.exp(-0.5 * squares), values, precision=jax.lax.Precision.HIGHEST)

  result = jax.lax.map(one, blocks).reshape(-1, k)[:n]
  return jnp.where(valid[:, None], result, 0.0)


def _apply_forward(points: Points, values: types.Array) -> tuple[types.Array, Points]:
  return _filter(points, values), points


def _apply_backward(points: Points, gradient: types.Array) -> tuple[None, types.Array]:
  # The kernel is symmetric.
  return None, _filter(points, gradient)


apply.defvjp(_apply_forward, _apply_backward)
