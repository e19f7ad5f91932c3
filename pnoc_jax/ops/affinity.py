"""Affinities of pairs of cells, as IRNet defines them: how sure one is that no edge lies between.

A pair is a source and the cell that a direction leads to. The sources are those cells of a map from
which every direction leads to a cell of the map: with r = radius - 1, a map [h, w] has sources
[h - r, w - 2r], the first of which is cell (0, r).
Differs from the reference: the maximum over a path is taken of shifted crops of the map, one
direction after the other; because gathering all paths takes memory for pairs times path length.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops import paths

Carry = TypeVar('Carry')


class Pairs(NamedTuple):
  """What the labels say of the pairs in one direction; at most one of the three is True for a pair.

  Attributes:
    background: bool[..., h - r, w - 2r], both cells are background.
    foreground: bool[..., h - r, w - 2r], both are of the same other class.
    different: bool[..., h - r, w - 2r], they are of different classes, background included.
  """

  background: types.Array
  foreground: types.Array
  different: types.Array


def affinities(edge: types.Array, *, radius: int) -> types.Array:
  """Returns the affinity of every pair: 1 minus the largest edge on the path between the two.

  Args:
    edge: f32[..., h, w], probability of an edge in each cell, in [0, 1].
    radius: In cells; h >= radius and w > 2 (radius - 1).

  Returns:
    f32[D, ..., h - r, w - 2r], in the order of `paths.directions`.
  """

  def one(cells: types.Array) -> types.Array:
    return path_affinity(edge, cells, radius=radius)

  return jnp.concatenate([jax.lax.map(one, group.cells) for group in paths.groups(radius)])


def path_affinity(edge: types.Array, cells: types.Array, *, radius: int) -> types.Array:
  """Returns the affinities of all pairs in one direction.

  Args:
    edge: f32[..., h, w], in [0, 1].
    cells: i32[L, 2], the path of the direction, see `paths.Group`.
    radius: In cells.

  Returns:
    f32[..., h - r, w - 2r].
  """
  chex.assert_shape(cells, (None, 2))
  largest = at_offset(edge, cells[0], radius=radius)
  for cell in cells[1:]:
    largest = jnp.maximum(largest, at_offset(edge, cell, radius=radius))
  return 1.0 - largest


def at_offset(x: types.Array, offset: types.Array, *, radius: int) -> types.Array:
  """Returns the value at an offset from each source.

  Args:
    x: [..., h, w].
    offset: i32[2], (dy, dx), which may be known at run time only; 0 <= dy <= r, -r <= dx <= r.
    radius: In cells.

  Returns:
    [..., h - r, w - 2r].
  """
  r = radius - 1
  height, width = x.shape[-2] - r, x.shape[-1] - 2 * r
  if min(height, width) < 1:
    raise ValueError(
      f'a map of {x.shape[-2:]} cells has no pairs in radius {radius}; '
      f'it needs at least {(r + 1, 2 * r + 1)}'
    )
  rows = jax.lax.dynamic_slice_in_dim(x, offset[0], height, x.ndim - 2)
  return jax.lax.dynamic_slice_in_dim(rows, r + offset[1], width, x.ndim - 1)


def pairs(labels: types.Array, direction: types.Array, *, num_classes: int, radius: int) -> Pairs:
  """Tells the pairs in one direction by the labels of their cells.

  Args:
    labels: i32[..., h, w], 0 background, 1..K classes; pairs with any other number (255) are
      unknown.
    direction: i32[2], (dy, dx).
    num_classes: K.
    radius: In cells.

  Returns:
    The three kinds of pairs; unknown pairs are of none of them.
  """
  here = at_offset(labels, jnp.zeros(2, jnp.int32), radius=radius)
  there = at_offset(labels, direction, radius=radius)
  known = (here >= 0) & (here <= num_classes) & (there >= 0) & (there <= num_classes)
  equal = known & (here == there)
  return Pairs(equal & (here == 0), equal & (here > 0), known & (here != there))


def scan_directions(
  fn: Callable[[Carry, types.Array, types.Array], Carry], init: Carry, *, radius: int
) -> Carry:
  """Goes through all directions one after the other, with the memory and the code of one.

  Args:
    fn: (carry, direction i32[2], cells i32[L, 2]) -> carry. Its intermediate values are computed
      again in the backward pass.
    init: The first carry.
    radius: In cells.

  Returns:
    The last carry.
  """
  step = jax.checkpoint(fn, prevent_cse=False)
  carry = init
  for group in paths.groups(radius):
    carry, _ = jax.lax.scan(lambda c, x: (step(c, *x), None), carry, tuple(group))
  return carry
