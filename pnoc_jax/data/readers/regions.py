"""COCO's regions as masks by COCO's own tools, which are given only what they can work with.

Where numbers do not fit their image, those tools crash, or paint what was in memory before.
Therefore `encode` checks a region first, and `paint` takes only what `encode` returned.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_LONGEST = 1 << 15  # The longest side of an image, px.
_FAR = 10  # The largest coordinate of an outline, in longer sides of its image.
_LENGTH = 1 << 22  # The longest outline, px: the tools take memory for each pixel of it.
# A number has five bits in each of its characters, and a sixth that says that another follows.
_CODE = re.compile(rb'([P-o]{0,6}[0-O])+')


def check_size(size: tuple[int, int]) -> None:
  """Raises ValueError if (H, W) is no size of an image."""
  if not all(isinstance(n, int) and 1 <= n <= _LONGEST for n in size):
    raise ValueError(f'a size of {_text(size)} px')


def encode(region: Sequence[np.ndarray] | Mapping[str, Any], size: tuple[int, int]) -> bytes:
  """COCO's compressed run lengths of a region; a polygon of less than three points has no pixel.

  Args:
    region: the polygons f64[2n] of its parts, x and y in turn, in px; or run lengths, of which
      'counts' is i64[n] or compressed already, and 'size' (H, W).
    size: (H, W) of the image, as `check_size` wants it.

  Raises:
    ValueError: the region is not of such an image, or no region at all.
  """
  if not isinstance(region, Mapping):
    return _encode_polygons(region, size)
  if tuple(region.get('size') or size) != size:
    raise ValueError(f'run lengths of {_text(region["size"])} px, but its image has {_text(size)}')
  if isinstance(region['counts'], str):
    return _check_code(region['counts'].encode(), size)
  return _encode_counts(np.asarray(region['counts']), size)


def _text(size: Sequence[int]) -> str:
  return 'x'.join(map(str, size))


def _encode_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> Any:
  far = _FAR * max(size)
  for polygon in polygons:
    if polygon.ndim != 1:
      raise ValueError(
        'an outline that is no list of numbers: is a list of outlines flat? '
        'A region is [[x, y, x, y, ...], ...]'
      )
    if len(polygon) % 2:
      raise ValueError(f'an outline of {len(polygon)} numbers')
    if not (np.abs(polygon) <= far).all():  # Nor are those that are not a number.
      raise ValueError(f'an outline that is not near its image of {_text(size)} px')
    # The product is an upper bound, and quicker to find than the length.
    if len(polygon) * np.abs(polygon).max(initial=0) > _LENGTH and _length(polygon) > _LENGTH:
      raise ValueError(f'an outline that is longer than {_LENGTH} px')
  # COCO's tools take four numbers for a box.
  found: Any = [x for x in polygons if len(x) >= 6]
  if not found:
    return _encode_counts(np.array([size[0] * size[1]]), size)
  return coco_mask.merge(coco_mask.frPyObjects(found, *size))['counts']


def _length(polygon: np.ndarray) -> float:
  corners = polygon.reshape(-1, 2)
  return np.abs(corners - np.roll(corners, 1, 0)).max(1).sum()


def _encode_counts(counts: np.ndarray, size: tuple[int, int]) -> Any:
  pixels = size[0] * size[1]
  if counts.dtype.kind not in 'iu' or counts.ndim != 1:
    raise ValueError('run lengths that are no whole numbers')
  if not len(counts):
    raise ValueError('run lengths without a number')
  if counts.min() < 0:
    raise ValueError('a run of negative length')
  if counts.max() > pixels or counts.sum() != pixels:
    raise ValueError(f'runs of {counts.sum()} px in all, not {pixels}')
  return coco_mask.frPyObjects(_run_lengths(counts.tolist(), size), *size)['counts']


def _run_lengths(counts: list[int] | bytes, size: tuple[int, int]) -> Any:
  return {'counts': counts, 'size': list(size)}


def _check_code(code: bytes, size: tuple[int, int]) -> bytes:
  """Returns the code, if COCO's tools write its mask as the same code."""
  if _CODE.fullmatch(code):
    try:
      mask = coco_mask.decode(_run_lengths(code, size))
    except ValueError:
      mask = None  # It has more runs than pixels.
    # With fewer runs than pixels the tools leave the rest of the mask undefined.
    if mask is not None and coco_mask.encode(mask)['counts'] == code:
      return code
  raise ValueError(f'compressed run lengths that are broken, or not of {_text(size)} px')


def paint(regions: Sequence[tuple[int, bytes]], size: tuple[int, int]) -> np.ndarray:
  """One mask of many regions; where they overlap the smaller lies on top.

  Args:
    regions: (value, code) each; a code is what `encode` returns.
    size: (H, W).

  Returns:
    u8[H, W], 0 where no region is.
  """
  mask = np.zeros(size, np.uint8)
  codes = [_run_lengths(code, size) for _, code in regions]
  # What is contained in something else (a cup on a table) would vanish under it.
  for i in sorted(range(len(codes)), key=lambda i: -int(coco_mask.area(codes[i]))):
    mask[coco_mask.decode(codes[i]) > 0] = regions[i][0]
  return mask
