"""Gaussian filtering of scattered points in linear time, on a permutohedral lattice.

Adams et al. 2010, with the constants of Kraehenbuehl and Koltun 2011 (pydensecrf): points splat to
the corners of the simplex around them, the corners blur along d + 1 axes, the points slice back.
Shapes are static; the work grows with the corners in use, as the loops over corners end there.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import types
from pnoc_jax.ops import hashing

# Corners that one turn of a loop handles.
_BLOCK = 8192


class Lattice(NamedTuple):
  """Where the points are among the corners, and the corners among each other.

  Attributes:
    corners: i32[N, d + 1], of the simplex around each point. Corner 0 is nobody: its value is 0.
    weights: f32[N, d + 1], barycentric; 0 at points that take no part.
    neighbors: i32[2, d + 1, C], the corner before and the one after, on each axis.
    number: i32[], corners in use, corner 0 included; what follows in C is idle.
  """

  corners: types.Array
  weights: types.Array
  neighbors: types.Array
  number: types.Array


def make(
  features: types.Array, upper: Sequence[float], valid: types.Array | None = None
) -> Lattice:
  """Builds the lattice of the kernel exp(-|f_i - f_j|^2 / 2).

  No gradient flows to the features. Under `vmap` one set of points follows the other.

  Args:
    features: f32[N, d], in [0, upper].
    upper: d static bounds: they say how large the integers are that name a corner.
    valid: bool[N], the points that take part; None: all.

  Returns:
    The lattice; C is enough for any features within the bounds.
  """
  chex.assert_shape(features, (None, len(upper)))
  if valid is None:
    valid = jnp.ones(features.shape[:1], bool)
  chex.assert_shape(valid, features.shape[:1])
  build = jax.custom_batching.sequential_vmap(functools.partial(_build, tuple(upper)))
  return build(jax.lax.stop_gradient(features), valid)


def _build(upper: tuple[float, ...], features: types.Array, valid: types.Array) -> Lattice:
  d = len(upper)
  low, radix = _ranges(upper)
  corners, weights = _simplices(features)
  # A corner's name: its d coordinates as the digits of a few integers.
  names = hashing.pack(list((corners - np.asarray(low)).reshape(-1, d).T), radix)
  table = hashing.insert(names, jnp.repeat(valid, d + 1))
  # As many corners as entries, or as the lattice has within the bounds.
  most = min(valid.size * (d + 1), (d + 1) * math.prod(-(-r // (d + 1)) for r in radix))
  capacity = -(-(most + 1) // _BLOCK) * _BLOCK
  ids, number, first = hashing.number(table, capacity)
  steps = np.full((d + 1, d), -1)
  steps[np.arange(d), np.arange(d)] = d
  steps = [step[:, None] for step in hashing.pack(list(steps.T), radix)]
  rows = capacity * jnp.arange(d + 1)[:, None]

  def find(block, carry):
    before, after = carry
    corner = block * _BLOCK + jnp.arange(_BLOCK)
    entry = jax.lax.dynamic_slice(first, (block * _BLOCK,), (_BLOCK,))
    found = hashing.find(table, names, [name[entry] + s for name, s in zip(names, steps)])
    found = jnp.where((found < 0) | (corner < 1) | (corner >= number), 0, ids[found])
    before = jax.lax.dynamic_update_slice(before, found, (0, block * _BLOCK))
    # The corner is its neighbour's neighbour.
    back = jnp.where(found > 0, rows + found, after.size)
    corner = jnp.broadcast_to(corner, back.shape)
    return before, after.at[back.reshape(-1)].set(corner.reshape(-1), mode='drop')

  before = jnp.zeros((d + 1, capacity), jnp.int32)
  carry = (before, before.reshape(-1))
  before, after = jax.lax.fori_loop(0, -(-number // _BLOCK), find, carry)
  neighbors = jnp.stack([before, after.reshape(before.shape)])
  corners = ids[table.owner].reshape(-1, d + 1)
  return Lattice(
    jnp.where(valid[:, None], corners, 0),
    jnp.where(valid[:, None], weights, 0.0),
    neighbors,
    number,
  )


def _ranges(upper: tuple[float, ...]) -> tuple[list[int], list[int]]:
  """Returns the least coordinate of a corner or its neighbour, and how many values there are."""
  d = len(upper)
  reach = np.append(np.asarray(upper, np.float64) * _scale(d), 0.0)
  # Coordinate j of a point is sum(reach[j:]) - j * reach[j - 1]; corners lie within d + 1 of it.
  margin = 4 * (d + 1)
  low = [math.floor(-j * reach[j - 1]) - margin for j in range(d)]
  return low, [math.ceil(reach[j:].sum()) + margin - low[j] + 1 for j in range(d)]


def _scale(d: int) -> np.ndarray:
  i = np.arange(d)
  return (np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2))).astype(np.float32)


def _simplices(features: types.Array) -> tuple[types.Array, types.Array]:
  """Returns the corners around each point, i32[N, d + 1, d], and their weights f32[N, d + 1]."""
  d = features.shape[1]
  scale = _scale(d)
  # Onto the plane of d + 1 coordinates whose sum is 0.
  elevated, total = [], jnp.zeros_like(features[:, 0])
  for j in range(d, 0, -1):
    step = features[:, j - 1] * scale[j - 1]
    elevated.append(total - j * step)
    total = total + step
  elevated = jnp.stack([total, *elevated[::-1]], 1)
  # The nearest corner whose coordinates are multiples of d + 1; what remains, ranked from above.
  below = jnp.floor(elevated / (d + 1)) * (d + 1)
  above = jnp.ceil(elevated / (d + 1)) * (d + 1)
  nearest = jnp.where(above - elevated < elevated - below, above, below).astype(jnp.int32)
  rest = elevated - nearest
  i = jnp.arange(d + 1)
  before = rest[:, None] > rest[..., None]
  before |= (rest[:, None] == rest[..., None]) & (i < i[:, None])
  rank = before.sum(-1, dtype=jnp.int32) + nearest.sum(1, keepdims=True) // (d + 1)
  wrap = jnp.where(rank < 0, d + 1, jnp.where(rank > d, -d - 1, 0))
  rank, nearest = rank + wrap, nearest + wrap
  part = (elevated - nearest) / (d + 1)
  # The weight of corner r is the step from rank d - r down to the next one, around the circle.
  ranked = jnp.where(rank[:, None] == (d - i)[:, None], part[:, None], 0.0).sum(-1)
  weights = ranked - jnp.roll(ranked, 1, axis=1) + (i == 0)
  r = i[:, None]
  corners = nearest[:, None, :d] + jnp.where(rank[:, None, :d] <= d - r, r, r - d - 1)
  return corners, weights


@jax.custom_vjp
def apply(lattice: Lattice, values: types.Array) -> types.Array:
  """Sums the values of all points, weighted by the kernel (a point's own value, too).

  Linear in `values`, and differentiable in reverse mode; no gradient flows to the lattice.

  Args:
    lattice: From `make`.
    values: f32[N, K], finite.

  Returns:
    f32[N, K]; 0 at points that take no part.
  """
  return _forward(lattice, values)


@jax.custom_batching.sequential_vmap
def _forward(lattice: Lattice, values: types.Array) -> types.Array:
  return _filter(lattice, values, range(lattice.neighbors.shape[1]))


def _filter(lattice: Lattice, values: types.Array, axes: Sequence[int]) -> types.Array:
  chex.assert_shape(values, (lattice.corners.shape[0], None))
  corners, weights, neighbors, number = lattice
  k = values.shape[1]
  splat = (weights[..., None] * values[:, None]).reshape(-1, k)
  old = jnp.zeros((neighbors.shape[2], k)).at[corners.reshape(-1)].add(splat)
  new = jnp.zeros_like(old)

  def blur(axis, old, block, new):
    start = block * _BLOCK
    here = jax.lax.dynamic_slice(old, (start, 0), (_BLOCK, k))
    near = jax.lax.dynamic_slice(neighbors, (0, axis, start), (2, 1, _BLOCK))
    both = old[near[0, 0]] + old[near[1, 0]]
    return jax.lax.dynamic_update_slice(new, here + 0.5 * both, (start, 0))

  for axis in axes:
    blurred = jax.lax.fori_loop(0, -(-number // _BLOCK), functools.partial(blur, axis, old), new)
    old, new = blurred, old
  d = weights.shape[1] - 1
  return (old[corners] * weights[..., None]).sum(1) / (1 + 2.0**-d)


def _apply_forward(lattice, values):
  return _forward(lattice, values), lattice


def _apply_backward(lattice, gradient):
  # Each axis is symmetric (the neighbour's neighbour is the corner itself), their product is not.
  return None, _backward(lattice, gradient)


@jax.custom_batching.sequential_vmap
def _backward(lattice: Lattice, values: types.Array) -> types.Array:
  return _filter(lattice, values, range(lattice.neighbors.shape[1])[::-1])


apply.defvjp(_apply_forward, _apply_backward)
