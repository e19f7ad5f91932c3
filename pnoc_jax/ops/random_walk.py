"""Spreads class scores within edges: 2^exp_times steps of a random walk, without its matrix.

The walk goes from a cell to itself with weight 1 and to each neighbour within the radius with
weight `affinity^beta` (PSA, IRNet). A step reads 69 cells for each cell (radius 5), so work and
memory are proportional to the number of cells.

Differs from the reference: the walk's matrix is never built; because there it is of cells x cells,
15,625 each for a photograph, and is squared eight times, and the steps give the same numbers.

Differs from the reference: the walk is computed in float32; because the released runner's float16
rounds the 256 steps.
"""

import enum
import functools
import math
import operator
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import types
from pnoc_jax.ops import affinity, paths


class Form(enum.Enum):
  """How the steps are computed.

  Attributes:
    STEPS: one after the other.
    CHEBYSHEV: the power of the matrix as a sum of Chebyshev polynomials, which ends where the rest
      is below 1e-6 of the scores: 80 products instead of 256, and fewer rounding errors.
  """

  STEPS = 'steps'
  CHEBYSHEV = 'chebyshev'


def random_walk(
  scores: types.Array,
  edge: types.Array,
  *,
  valid: types.Array | None = None,
  radius: int = 5,
  beta: float = 10.0,
  exp_times: int = 8,
  form: Form = Form.CHEBYSHEV,
) -> types.Array:
  """Returns `(scores * (1 - edge)) T^(2^exp_times)` for each class.

  `T = W^beta / colsum(W^beta)`, where W is symmetric with diagonal 1: what a cell receives is
  divided by the sum of the weights around it. The time is proportional to the number of classes, so
  only the present ones should walk. The scores are not normalised (see
  `pseudo_labels.normalize_walk`). Batches are leading axes, or made with `jax.vmap`.

  Args:
    scores: f32[..., h, w, K], class activation maps, not negative.
    edge: f32[..., h, w], probability of an edge in each cell, in [0, 1]: what a network of
      boundaries says after its sigmoid, 0 inside of a thing and 1 on its outline. The affinity of
      two cells is 1 less the largest edge on the line between them.
    valid: bool[..., h, w], the cells that are image rather than padding; None: all. The walk does
      not enter the padding, so the result is that of the image alone.
    radius: A step reaches the cells that are closer than this.
    beta: Exponent of the affinities; the larger it is, the less the walk crosses weak edges.
    exp_times: Binary logarithm of the number of steps.
    form: How the steps are computed; both have the same limit and the same gradient.

  Returns:
    f32[..., h, w, K], 0 where not valid. With CHEBYSHEV, cells that almost nothing reaches may be
    negative by about 1e-6 of the largest score.

  Raises:
    ValueError: the radius is below 2, or there is not one step.
  """
  chex.assert_equal_shape([scores[..., 0], edge])
  edge = edge.astype(jnp.float32)
  if valid is not None:
    chex.assert_equal_shape([edge, valid])
    # As in the reference, every cell of the padding is an edge.
    edge = jnp.where(valid, edge, 1.0)
    scores = jnp.where(valid[..., None], scores, 0.0)
  x = jnp.moveaxis(scores.astype(jnp.float32) * (1.0 - edge)[..., None], -1, -3)
  weights, offsets = _neighbours(edge, radius, beta)
  total = 1.0 + weights.sum(0)
  steps = 2**exp_times

  # The backward pass keeps the weights, and makes the shifted copies of `x` again.
  @jax.checkpoint
  def step(x: types.Array, weights: types.Array, total: types.Array) -> types.Array:
    return (x + _gather(x, weights, offsets, radius - 1)) / total[..., None, :, :]

  if form is Form.STEPS:
    x, _ = jax.lax.scan(lambda x, _: (step(x, weights, total), None), x, length=steps)
  else:
    x = _chebyshev(lambda x: step(x, weights, total), x, chebyshev_coefficients(steps))
  return jnp.moveaxis(x, -3, -1)


def _neighbours(
  edge: types.Array, radius: int, beta: float
) -> tuple[types.Array, tuple[tuple[int, int], ...]]:
  """Returns weights [2D, ..., h, w] towards all neighbours, and these neighbours' offsets."""
  directions = paths.directions(radius)  # Refuses a radius without neighbours.
  r = radius - 1
  lead = [(0, 0)] * (edge.ndim - 2)
  # Pairs that leave the map have affinity 0, as there is an edge outside of it.
  padded = jnp.pad(edge, [*lead, (0, r), (r, r)], constant_values=1.0)

  def one(group: tuple[types.Array, types.Array]) -> tuple[types.Array, types.Array]:
    direction, cells = group
    # Rounding may make an affinity negative, of which a power would be NaN.
    forward = jnp.maximum(affinity.path_affinity(padded, cells, radius=radius), 0.0) ** beta
    # The weight of the cell at `-direction` towards this one.
    backward = jnp.pad(forward, [*lead, (r, 0), (r, r)])
    return forward, affinity.at_offset(backward, jnp.array([r, 0]) - direction, radius=radius)

  found = [jax.lax.map(one, tuple(group)) for group in paths.groups(radius)]
  opposite = tuple((-dy, -dx) for dy, dx in directions)
  weights = jnp.concatenate([w for w, _ in found] + [w for _, w in found])
  return weights, directions + opposite


def _gather(
  x: types.Array, weights: types.Array, offsets: Sequence[tuple[int, int]], margin: int
) -> types.Array:
  """Returns the sum over the neighbours of weight times value: [..., K, h, w]."""
  height, width = x.shape[-2:]
  padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(margin, margin)] * 2)
  parts = []
  for weight, (dy, dx) in zip(weights, offsets, strict=True):
    y, z = margin + dy, margin + dx
    parts.append(weight[..., None, :, :] * padded[..., y : y + height, z : z + width])
  return functools.reduce(operator.add, parts)


def chebyshev_coefficients(steps: int) -> np.ndarray:
  """Returns c such that `s^steps = sum_k c_k T_k(s)` on [-1, 1] up to about 1e-6.

  They are the probabilities to end at distance k after that many steps of +1 or -1, which vanish
  beyond five standard deviations.

  Args:
    steps: At least 1.

  Returns:
    f32[min(steps, ceil(5 sqrt(steps))) + 1].
  """
  if steps < 1:
    raise ValueError(f'steps is {steps}; a walk takes at least 1')
  degree = min(steps, math.ceil(5 * math.sqrt(steps)))
  found = [
    (math.comb(steps, (steps - k) // 2) << (k > 0)) / (1 << steps) if (steps - k) % 2 == 0 else 0.0
    for k in range(degree + 1)
  ]
  return np.array(found, np.float32)


def _chebyshev(
  product: Callable[[types.Array], types.Array], x: types.Array, coefficients: np.ndarray
) -> types.Array:
  """Returns `sum_k c_k T_k(P) x` with `T_{k+1} = 2 P T_k - T_{k-1}`."""

  def body(carry, c):
    before, now, total = carry
    after = 2.0 * product(now) - before
    return (now, after, total + c * after), None

  first = product(x)
  init = x, first, coefficients[0] * x + coefficients[1] * first
  (_, _, total), _ = jax.lax.scan(body, init, coefficients[2:])
  return total
