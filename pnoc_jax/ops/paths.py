"""Lists the directions between the cells of a pair, and the cells on the path between the two.

A direction (dy, dx) leads from a cell to another one within the radius; of two opposite directions
only one is listed. Its path is a band one cell thick around the straight line. All of this depends
on the radius alone: it is plain numpy, computed when a function is traced.
"""

from typing import NamedTuple

import numpy as np

# Paths are grouped by length, rounded up to a multiple of this.
_STEP = 4


class Group(NamedTuple):
  """Directions with paths of about equal length, so that one loop can handle them.

  Attributes:
    directions: i32[n, 2], (dy, dx).
    cells: i32[n, L, 2], (y, x) of each path's cells relative to its start. Shorter paths are filled
      up with their start, which changes no maximum.
  """

  directions: np.ndarray
  cells: np.ndarray


def directions(radius: int) -> tuple[tuple[int, int], ...]:
  """Returns the directions (dy, dx) shorter than the radius, those with short paths first.

  34 for radius 5, 152 for radius 10. Source: IRNet's PathIndex.

  Args:
    radius: In cells, at least 2.

  Raises:
    ValueError: The radius leaves no direction.
  """
  if radius < 2:
    raise ValueError(f'radius is {radius}; from 2 on a cell has a neighbour')
  found = [(0, x) for x in range(1, radius)]
  found += [
    (y, x)
    for y in range(1, radius)
    for x in range(1 - radius, radius)
    if y * y + x * x < radius * radius
  ]
  return tuple(sorted(found, key=lambda d: (len(path(d)), d)))


def path(direction: tuple[int, int]) -> tuple[tuple[int, int], ...]:
  """Returns the cells (y, x) closer than 1 to the line from (0, 0) to (dy, dx), both ends included.

  Args:
    direction: (dy, dx), dy >= 0.

  Returns:
    The cells in the rectangle that the two ends span, the start first.
  """
  dy, dx = direction
  step = 1 if dx >= 0 else -1
  return tuple(
    (y, x)
    for y in range(dy + 1)
    for x in range(0, dx + step, step)
    if (dy * x - dx * y) ** 2 < dy * dy + dx * dx
  )


def groups(radius: int) -> tuple[Group, ...]:
  """Returns the directions in groups, in the order of `directions`."""
  by_length = {}
  for direction in directions(radius):
    by_length.setdefault(-(-len(path(direction)) // _STEP), []).append(direction)
  return tuple(_group(members) for members in by_length.values())


def _group(members: list[tuple[int, int]]) -> Group:
  found = [path(direction) for direction in members]
  longest = max(map(len, found))
  cells = [(*one, *[(0, 0)] * (longest - len(one))) for one in found]
  return Group(np.array(members, np.int32), np.array(cells, np.int32))
