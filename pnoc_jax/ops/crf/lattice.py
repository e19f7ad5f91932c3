"""Gaussian filtering of scattered points in linear time, on a permutohedral lattice.

Adams et al. 2010, with the constants of Kraehenbuehl and Koltun 2011 (pydensecrf). The values of
the points are added to the corners of the simplices around them (splat), the corners are blurred
along d + 1 axes, and the points read the result (slice). Shapes are static, but the loops over
corners end with the last corner in use. The axis of a simplex's corners comes before that of the
points, because CPUs are faster with such arrays.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import types
from pnoc_jax.ops.crf import hashing

_BLOCK = 8192  # Corners that one iteration of a loop handles.


class Lattice(NamedTuple):
  """The corners around each point, and the neighbours of each corner.

  Attributes:
    corners: i32[d + 1, N], of the simplex around each point. Corner 0 stands for none: its value
      is 0.
    weights: f32[d + 1, N], barycentric; 0 at points that take no part.
    before: i32[d + 1, C], the corner before each one on each axis.
    after: i32[d + 1, C], the corner after it.
    number: i32[], how many corners are in use, corner 0 included; the other ones of C are not.
  """

  corners: types.Array
  weights: types.Array
  before: types.Array
  after: types.Array
  number: types.Array


def make(
  features: types.Array, upper: Sequence[float], valid: types.Array | None = None
) -> Lattice:
  """Builds the lattice of the kernel exp(-|f_i - f_j|^2 / 2).

  Args:
    features: f32[N, d], in [0, upper]; no gradient flows to them.
    upper: The d bounds, static. They decide how many integers a corner's name needs.
    valid: bool[N], the points that take part; None: all.

  Returns:
    The lattice; C is large enough for any features within the bounds.
  """
  n, d = features.shape
  chex.assert_shape(features, (None, len(upper)))
  if valid is None:
    valid = jnp.ones(n, bool)
  chex.assert_shape(valid, (n,))
  low, radix = _ranges(upper)
  names, weights = _locate(jax.lax.stop_gradient(features), low, radix)
  # There are at most as many corners as entries, and as the lattice has within the bounds.
  most = min(n * (d + 1), (d + 1) * math.prod(-(-r // (d + 1)) for r in radix))
  ids, number, table = hashing.number(
    [name.reshape(-1) for name in names],
    jnp.tile(valid, d + 1),
    -(-(most + 1) // _BLOCK) * _BLOCK,
    math.prod(radix),
  )
  before, after = _neighbors(table, number, radix)
  weights = jnp.where(valid, weights, 0.0)
  return Lattice(ids.reshape(d + 1, n), weights, before, after, number)


def _ranges(upper: Sequence[float]) -> tuple[list[int], list[int]]:
  """Returns the least value and the number of values of each coordinate of the corners."""
  d = len(upper)
  reach = np.append(np.asarray(upper, np.float64) * _scale(d), 0.0)
  # Coordinate j of a point is sum(reach[j:]) - j * reach[j - 1]; corners lie within d + 1 of it.
  margin = 4 * (d + 1)
  low = [math.floor(-j * reach[j - 1]) - margin for j in range(d)]
  return low, [math.ceil(reach[j:].sum()) + margin - low[j] + 1 for j in range(d)]


def _scale(d: int) -> np.ndarray:
  i = np.arange(d)
  return (np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2))).astype(np.float32)


def _locate(
  features: types.Array, low: list[int], radix: list[int]
) -> tuple[list[types.Array], types.Array]:
  """Returns the names of the corners around each point, words i32[d + 1, N], and their weights."""
  n, d = features.shape
  size = min(n, _BLOCK)

  def block(i, carry):
    # The last block overlaps the one before.
    start = jnp.minimum(i * size, n - size)
    corners, weights = _simplices(jax.lax.dynamic_slice(features, (start, 0), (size, d)))
    # The name of a corner: its first d coordinates, as the digits of a few integers.
    digits = [corner - least for corner, least in zip(corners, low, strict=True)]
    return [
      jax.lax.dynamic_update_slice(whole, part, (0, start))
      for whole, part in zip(carry, [*hashing.pack(digits, radix), weights], strict=True)
    ]

  # Without blocks, XLA:CPU computes each intermediate result again for every use of it.
  words = len(hashing.pack(low, radix))
  empty = [jnp.zeros((d + 1, n), jnp.int32)] * words + [jnp.zeros((d + 1, n))]
  *names, weights = jax.lax.fori_loop(0, -(-n // size), block, empty)
  return names, weights


def _simplices(features: types.Array) -> tuple[list[types.Array], types.Array]:
  """Returns the corners around each point, d times i32[d + 1, N], and weights f32[d + 1, N]."""
  d = features.shape[1]
  scale = _scale(d)
  # The points are moved onto the plane of d + 1 coordinates whose sum is 0.
  elevated, total = [], jnp.zeros_like(features[:, 0])
  for j in range(d, 0, -1):
    step = features[:, j - 1] * scale[j - 1]
    elevated.append(total - j * step)
    total = total + step
  elevated = jnp.stack([total, *elevated[::-1]])
  # The nearest corner whose coordinates are multiples of d + 1, and the ranks of what remains, the
  # largest first. All integers here are so small that floats hold them.
  below, above = jnp.floor(elevated / (d + 1)), jnp.ceil(elevated / (d + 1))
  up = above * (d + 1) - elevated < elevated - below * (d + 1)
  nearest = jnp.where(up, above, below)
  surplus = nearest.sum(0)
  nearest = nearest * (d + 1)
  rest = elevated - nearest
  i = jnp.arange(d + 1)[:, None]
  rank = surplus + sum((rest[j] > rest) | ((rest[j] == rest) & (j < i)) for j in range(d + 1))
  wrap = jnp.where(rank < 0, d + 1.0, jnp.where(rank > d, -d - 1.0, 0.0))
  rank, nearest = rank + wrap, nearest + wrap
  part = (elevated - nearest) / (d + 1)
  # The weight of corner r is the difference of the parts at rank d - r and at the next rank, where
  # rank 0 follows rank d.
  ranked = sum(jnp.where(rank[j] == d - i, part[j], 0.0) for j in range(d + 1))
  weights = ranked - jnp.roll(ranked, 1, axis=0) + (i == 0)
  corners = [nearest[j] + jnp.where(rank[j] <= d - i, i, i - d - 1) for j in range(d)]
  return [corner.astype(jnp.int32) for corner in corners], weights


def _neighbors(
  table: hashing.Table, number: types.Array, radix: list[int]
) -> tuple[types.Array, types.Array]:
  """Returns the corners before and after each one on each axis, i32[d + 1, C] both."""
  d, capacity = len(radix), table.names[0].size
  steps = np.full((d + 1, d), -1)
  steps[np.arange(d), np.arange(d)] = d
  steps = hashing.pack(list(steps.T), radix)
  rows = capacity * jnp.arange(d + 1)[:, None]

  def find(block, carry):
    before, after = carry
    corner = block * _BLOCK + jnp.arange(_BLOCK)
    names = (jax.lax.dynamic_slice(word, (block * _BLOCK,), (_BLOCK,)) for word in table.names)
    wanted = [(name + step[:, None]).reshape(-1) for name, step in zip(names, steps, strict=True)]
    found = hashing.find(table, wanted).reshape(d + 1, _BLOCK)
    found = jnp.where((corner < 1) | (corner >= number), 0, found)
    before = jax.lax.dynamic_update_slice(before, found, (0, block * _BLOCK))
    # A corner follows the one before it.
    back = jnp.where(found > 0, rows + found, after.size)
    corner = jnp.broadcast_to(corner, back.shape)
    return before, after.at[back.reshape(-1)].set(corner.reshape(-1), mode='drop')

  before = jnp.zeros((d + 1, capacity), jnp.int32)
  carry = (before, before.reshape(-1))
  before, after = jax.lax.fori_loop(0, -(-number // _BLOCK), find, carry)
  return before, after.reshape(before.shape)


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
  return _filter(lattice, values, range(lattice.corners.shape[0]))


def _filter(lattice: Lattice, values: types.Array, axes: Sequence[int]) -> types.Array:
  corners, weights, *neighbors, number = lattice
  n, k = values.shape
  chex.assert_shape(corners, (None, n))
  splat = (weights[..., None] * values).reshape(-1, k)
  old = jnp.zeros((neighbors[0].shape[1], k)).at[corners.reshape(-1)].add(splat)
  new = jnp.zeros_like(old)

  def blur(axis, old, block, new):
    start = block * _BLOCK
    here = jax.lax.dynamic_slice(old, (start, 0), (_BLOCK, k))
    sides = (jax.lax.dynamic_slice(near, (axis, start), (1, _BLOCK))[0] for near in neighbors)
    blurred = here + 0.5 * sum(old[near] for near in sides)
    return jax.lax.dynamic_update_slice(new, blurred, (start, 0))

  for axis in axes:
    blurred = jax.lax.fori_loop(0, -(-number // _BLOCK), functools.partial(blur, axis, old), new)
    old, new = blurred, old
  # One corner of the simplices after the other: gathering [N, d + 1, K] is many times slower on
  # CPUs.
  parts = (old[corner] * weight[:, None] for corner, weight in zip(corners, weights, strict=True))
  return functools.reduce(operator.add, parts) / (1 + 2.0 ** (1 - len(axes)))


def _apply_forward(lattice: Lattice, values: types.Array) -> tuple[types.Array, Lattice]:
  return apply(lattice, values), lattice


def _apply_backward(lattice: Lattice, gradient: types.Array) -> tuple[None, types.Array]:
  # The blur along one axis is symmetric. The product of those of all axes is not, hence the reverse
  # order.
  return None, _filter(lattice, gradient, range(lattice.corners.shape[0])[::-1])


apply.defvjp(_apply_forward, _apply_backward)


def one_by_one(function: Callable[..., types.Array]) -> Callable[..., types.Array]:
  """Returns the function such that `jax.vmap` runs it for one example after the other.

  If the examples ran side by side, all would take as many iterations as the longest. In reverse
  mode the function is computed again; it is differentiable in its first argument alone.

  Args:
    function: A function of arrays.
  """
  forward = jax.custom_batching.sequential_vmap(function)

  @jax.custom_batching.sequential_vmap
  def backward(cotangent: types.Array, first: types.Array, *others: types.Array) -> types.Array:
    return jax.vjp(lambda first: function(first, *others), first)[1](cotangent)[0]

  wrapped = jax.custom_vjp(forward)
  wrapped.defvjp(
    lambda *arguments: (forward(*arguments), arguments),
    lambda arguments, cotangent: (
      backward(cotangent, *arguments),
      *[None] * (len(arguments) - 1),
    ),
  )
  return wrapped
