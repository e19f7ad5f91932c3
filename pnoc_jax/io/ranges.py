"""The range of images of more than 8 bits: which value is white, told from format and data.

A file says how a value is stored, and not which values there can be: 12-bit cameras write 16-bit
files, and float images go to 1 or to 255. One image may be dark. So the largest value of all images
of a data set decides.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

WHOLE = (255, 1023, 4095, 16383, 65535)  # White in whole numbers: of 8, 10, 12, 14 and 16 bits.
REAL = (1.0, 255.0, 65535.0)  # White in floats.
_SLACK = 0.01  # Resampling overshoots; a share of white.


class Range(NamedTuple):
  """The values that are white; black is 0.

  Attributes:
    whole: one of `WHOLE`, for images of whole numbers.
    real: one of `REAL`, for images of floats.
  """

  whole: int = WHOLE[-1]
  real: float = REAL[0]


class Extent(NamedTuple):
  """The values of an image of more than 8 bits.

  Attributes:
    real: whether they are floats.
    low: the smallest.
    high: the largest.
  """

  real: bool
  low: float
  high: float

  def fault(self) -> str:
    """Why no range has these values, or nothing."""
    top = (REAL if self.real else WHOLE)[-1]
    slack = _SLACK * REAL[0] if self.real else 0.0
    if self.low >= -slack and self.high <= top * (1 + _SLACK * self.real):
      return ''  # Not so if a value is not a number.
    return (
      f'values from {self.low:g} to {self.high:g}, of which it is not known what is black and '
      'white; save it with 8 bits'
    )


def extent(values: np.ndarray) -> Extent:
  """Of an image of whole numbers or floats [H, W]; NaN where a value is not a number."""
  return Extent(values.dtype.kind == 'f', float(values.min()), float(values.max()))


def choose(extents: Iterable[Extent]) -> Range:
  """The least range that has the values of all images; those that fit no range do not count."""
  highs = {True: 0.0, False: 0.0}
  there = set()
  for one in extents:
    if not one.fault():
      highs[one.real] = max(highs[one.real], one.high)
      there.add(one.real)
  whole = next(x for x in WHOLE if highs[False] <= x) if False in there else WHOLE[-1]
  return Range(whole, next(x for x in REAL if highs[True] <= x * (1 + _SLACK)))


def to_bytes(values: np.ndarray, white: Range) -> np.ndarray:
  """u8[H, W] of whole numbers or floats [H, W]; what is beyond the range is cut."""
  if values.dtype.kind == 'f':
    return np.rint((values / white.real).clip(0, 1) * 255).astype(np.uint8)
  return (values.astype(np.int64) >> (white.whole.bit_length() - 8)).clip(0, 255).astype(np.uint8)
