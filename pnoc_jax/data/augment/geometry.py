"""Where pixels go when an image is resized and cropped at random."""

import enum

import numpy as np


class Resize(enum.Enum):
  """What gets the drawn size.

  Attributes:
    LONG_SIDE: the long side (bicubic). If the least and the largest size are equal, this is SQUARE.
    SHORT_SIDE: the short side (bicubic). A crop of at most the least size is then always full.
    SQUARE: both sides, so that the image is squeezed (bilinear).
    PERCENT: the size is a scale in hundredths; 50..200 halves to doubles both sides (bicubic).
    NONE: images keep their sizes.
  """

  LONG_SIDE = 'long_side'
  SHORT_SIDE = 'short_side'
  SQUARE = 'square'
  PERCENT = 'percent'
  NONE = 'none'


def draw_size(
  size: tuple[int, int],
  rng: np.random.Generator,
  *,
  min_size: int,
  max_size: int,
  resize: Resize = Resize.LONG_SIDE,
) -> tuple[tuple[int, int], bool]:
  """Draws the size that an image is resized to.

  Args:
    size: the image's (H, W).
    rng: draws a uniform whole number, except where the bounds of LONG_SIDE are equal.
    min_size: the least number.
    max_size: the largest number, inclusive.
    resize: what gets this size.

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
  """Whether images of any form become squares."""
  return resize is Resize.SQUARE or (resize is Resize.LONG_SIDE and min_size == max_size)


def draw_place(
  size: tuple[int, int], rng: np.random.Generator, *, crop: int, shift: int = 0
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
  """Draws where a square is cut from an image, or where a smaller image lies in the square.

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
    # The image's first row or column comes to lie here; this is negative if it is cut off.
    offset = shift + int(rng.integers(min(crop - padded, 0), max(crop - padded, 0), endpoint=True))
    # If the border is wider than the crop, nothing of the image may be left: both are empty then.
    first, last = min(max(offset, 0), crop), max(min(offset + length, crop), 0)
    source.append(slice(first - offset, max(last, first) - offset))
    target.append(slice(first, max(last, first)))
  return tuple(source), tuple(target)


def paste(
  array: np.ndarray, place: tuple[tuple[slice, slice], tuple[slice, slice]], *, crop: int, fill: int
) -> np.ndarray:
  """Cuts an array at a place that `draw_place` drew.

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
  """i32[4] = (y0, x0, y1, x1) of the pasted part."""
  rows, columns = place[1]
  return np.array([rows.start, columns.start, rows.stop, columns.stop], np.int32)
