"""Where pixels go when an image is resized and cropped at random."""

import enum

import numpy as np


class Resize(enum.Enum):
  """What the drawn size is of."""

  LONG_SIDE = 'long_side'
  """The long side (bicubic); where the least and the largest size are equal, as SQUARE."""
  SHORT_SIDE = 'short_side'
  """The short side (bicubic): a crop of at most the least size is always full."""
  SQUARE = 'square'
  """Both sides: the image is squeezed (bilinear)."""
  PERCENT = 'percent'
  """The image, in hundredths: 50..200 halves to doubles both sides (bicubic)."""
  NONE = 'none'
  """Nothing: images keep their sizes."""


def draw_size(
  size: tuple[int, int],
  rng: np.random.Generator,
  *,
  min_size: int,
  max_size: int,
  resize: Resize = Resize.LONG_SIDE,
) -> tuple[tuple[int, int], bool]:
  """Draws what an image is resized to.

  Args:
    size: its (H, W).
    rng: draws a uniform whole number, except where the bounds of LONG_SIDE are equal.
    min_size: the least.
    max_size: the largest, inclusive.
    resize: what the number is of.

  Returns:
    (H', W'), and whether this squeezes the image to a square (bilinear; else bicubic).
  """
  if resize is Resize.NONE:
    return size, False
  if resize is Resize.LONG_SIDE and min_size == max_size:
    return (min_size, min_size), True
  drawn = int(rng.integers(min_size, max_size, endpoint=True))
  if squeezes(resize, min_size=min_size, max_size=max_size):
    return (drawn, drawn), True
  sides = {Resize.LONG_SIDE: max(size), Resize.SHORT_SIDE: min(size), Resize.PERCENT: 100}
  scale = drawn / sides[resize]
  return (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)), False


def squeezes(resize: Resize, *, min_size: int, max_size: int) -> bool:
  """Whether images become squares, whatever their form."""
  return resize is Resize.SQUARE or (resize is Resize.LONG_SIDE and min_size == max_size)


def draw_place(
  size: tuple[int, int], rng: np.random.Generator, *, crop: int, shift: int = 0
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
  """Draws where a square is cut; a smaller image lies at a uniform place in it.

  Args:
    size: the image's (H, W).
    rng: draws the place.
    crop: side of the square, px.
    shift: border put around the image first, px.

  Returns:
    The rows and columns taken from the image, and where they come to lie in the square.
  """
  source, target = [], []
  for length in size:
    padded = length + 2 * shift
    # Where the image's first row or column comes to lie; negative if it is cut off.
    offset = shift + int(rng.integers(min(crop - padded, 0), max(crop - padded, 0), endpoint=True))
    # A border wider than the crop can leave nothing of the image: then both are empty.
    first, last = min(max(offset, 0), crop), max(min(offset + length, crop), 0)
    source.append(slice(first - offset, max(last, first) - offset))
    target.append(slice(first, max(last, first)))
  return tuple(source), tuple(target)


def paste(
  array: np.ndarray, place: tuple[tuple[slice, slice], tuple[slice, slice]], *, crop: int, fill: int
) -> np.ndarray:
  """Cuts an array as `draw_place` says.

  Args:
    array: u8[H, W, ...].
    place: the rows and columns taken, and where they come to lie.
    crop: side of the square, px.
    fill: value of the rest of the square.

  Returns:
    u8[crop, crop, ...].
  """
  canvas = np.full((crop, crop, *array.shape[2:]), fill, np.uint8)
  canvas[place[1]] = array[place[0]]
  return canvas


def box(place: tuple[tuple[slice, slice], tuple[slice, slice]]) -> np.ndarray:
  """i32[4] = (y0, x0, y1, x1) of what was pasted."""
  rows, columns = place[1]
  return np.array([rows.start, columns.start, rows.stop, columns.stop], np.int32)
