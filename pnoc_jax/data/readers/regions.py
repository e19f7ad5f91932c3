"""COCO's regions as masks: polygons and run-length codes, pixel for pixel as COCO's own tools."""

from collections.abc import Sequence

import numpy as np

_SCALE = 5  # COCO's tools trace a polygon's border on a grid this much finer.


def polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Fills a polygon; the same pixels as `rleFrPoly` of COCO's tools.

  Args:
    points: f64[2n], x and y in turn, in px.
    size: (H, W).

  Returns:
    bool[H, W].
  """
  height, width = size
  mask = np.zeros((width, height), bool)
  if len(points) < 6:
    return mask.T
  u, v = _trace(np.asarray(points, np.float64).reshape(-1, 2))
  # Where the border steps from one column to another, and which rows lie below it there.
  steps = np.flatnonzero(u[1:] != u[:-1]) + 1
  left = u[steps] < u[steps - 1]
  x = (np.where(left, u[steps], u[steps] - 1) + 0.5) / _SCALE - 0.5
  y = np.ceil(((np.minimum(v[steps], v[steps - 1]) + 0.5) / _SCALE - 0.5).clip(0, height))
  inside = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
  if not inside.any():
    return mask.T
  at = x[inside].astype(np.int64) * height + y[inside].astype(np.int64)
  # A pixel is inside if the border was crossed an odd number of times before it, down the columns.
  first, last = at.min(), min(at.max() + 1, height * width)
  crossed = np.bincount(at - first, minlength=last - first)[: last - first]
  mask.ravel()[first:last] = np.cumsum(crossed) % 2 == 1
  return mask.T


def _trace(points):
  """i64[m] x and y of the grid points along the border, edge by edge, both ends included."""
  corners = np.trunc(_SCALE * points + 0.5).astype(np.int64)
  start, end = corners, np.roll(corners, -1, 0)
  delta = np.abs(end - start)
  along_x = delta[:, 0] >= delta[:, 1]
  flip = np.where(along_x, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
  low, high = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
  length = delta.max(1)
  edge = np.repeat(np.arange(len(length)), length + 1)
  first = np.cumsum(length + 1) - (length + 1)
  t = np.arange(len(edge)) - first[edge]
  t = np.where(flip[edge], length[edge] - t, t)
  minor = np.where(along_x, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0])
  slope = np.divide(minor, length, out=np.zeros(len(length)), where=length > 0)
  base = np.where(along_x, low[:, 1], low[:, 0])
  across = np.trunc(base[edge] + slope[edge] * t + 0.5).astype(np.int64)
  on_axis = np.where(along_x, low[:, 0], low[:, 1])[edge] + t
  u = np.where(along_x[edge], on_axis, across)
  v = np.where(along_x[edge], across, on_axis)
  return u, v


def run_lengths(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """A mask from lengths of runs of 0 and 1 in turn, down the columns, 0 first.

  Args:
    counts: i64[n]; their sum is H * W.
    size: (H, W).

  Returns:
    bool[H, W].

  Raises:
    ValueError: the runs do not fill the mask.
  """
  counts = np.asarray(counts, np.int64)
  if counts.sum() != size[0] * size[1] or (counts < 0).any():
    raise ValueError(f'runs of {counts.sum()} px in all, but the image has {size[0] * size[1]}')
  values = np.arange(len(counts)) % 2 == 1
  return np.repeat(values, counts).reshape(size[1], size[0]).T


def parse_counts(code: str) -> np.ndarray:
  """i64[n]: the runs in COCO's compressed form.

  Five bits a character from `0` on, the sixth says that more follow, the low ones first; from the
  third run on it is the difference to the last but one.

  Raises:
    ValueError: the code ends within a number.
  """
  counts, value, shift = [], 0, 0
  for character in code:
    bits = ord(character) - 48
    value |= (bits & 31) << shift
    shift += 5
    if bits & 32:
      continue
    if bits & 16:
      value -= 1 << shift
    counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    value, shift = 0, 0
  if shift:
    raise ValueError('the code ends within a number')
  return np.array(counts, np.int64)


def paint(regions: Sequence[tuple[int, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
  """One mask of many regions; where they overlap the smaller lies on top.

  Args:
    regions: (value, bool[H, W]) each.
    size: (H, W).

  Returns:
    u8[H, W], 0 where no region is.
  """
  mask = np.zeros(size, np.uint8)
  # What is contained in something else (a cup on a table) would vanish under it.
  for value, region in sorted(regions, key=lambda x: -int(x[1].sum())):
    mask[region] = value
  return mask
