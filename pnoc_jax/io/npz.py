"""Arrays of npz archives: read in any number of threads at once, and coded to take less room.

numpy's own reader parses the header of each array with `ast`. In CPython before 3.11.8 this fails
now and then (SystemError) if two threads do it at the same time, as the threads that load data do.
"""

import math
import re
import zipfile
from typing import IO, Literal

import numpy as np

_HEADER = re.compile(
  rb"\{'descr': '(?P<dtype>[<>|=][bifuU]\d{1,9})', 'fortran_order': (?P<fortran>True|False), "
  rb"'shape': \((?P<shape>[\d, ]*)\),? *\}\s*"
)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
  """The array `name` of an open archive, as `numpy.load` gives it; never unpickles.

  An array that claims more than the archive lists takes no memory. What an archive lists, deflate
  can pack a thousandfold: `read_header` tells the shape before.

  Raises:
    KeyError: there is none of this name.
    ValueError: it is no array of numbers or texts, or cut short.
    OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, ...: it is damaged;
      zipfile has no one error for that.
  """
  listed = archive.getinfo(f'{name}.npy').file_size
  with archive.open(f'{name}.npy') as file:
    dtype, shape, order = _parse_header(file, name)
    claimed = dtype.itemsize * math.prod(shape)
    if claimed != listed - file.tell():
      raise ValueError(f'`{name}` claims {claimed} bytes, and {listed - file.tell()} are listed')
    return np.frombuffer(bytearray(file.read(claimed)), dtype).reshape(shape, order=order)


def read_header(archive: zipfile.ZipFile, name: str) -> tuple[np.dtype, tuple[int, ...]]:
  """The dtype and shape of the array `name` of an open archive; errors as of `read_array`.

  Only the header is read, so an array that is cut short passes.
  """
  with archive.open(f'{name}.npy') as file:
    dtype, shape, _ = _parse_header(file, name)
    return dtype, shape


def _parse_header(
  file: IO[bytes], name: str
) -> tuple[np.dtype, tuple[int, ...], Literal['C', 'F']]:
  version = np.lib.format.read_magic(file)
  length = int.from_bytes(file.read(2 if version == (1, 0) else 4), 'little')
  header = file.read(length)
  found = _HEADER.fullmatch(header)
  if found is None:
    raise ValueError(f'`{name}` has the header {header[:80]!r}')
  shape = tuple(int(n) for n in found['shape'].split(b',') if n.strip())
  try:
    dtype = np.dtype(found['dtype'].decode())
  except TypeError as error:
    raise ValueError(f'`{name}` is of no known type ({error})') from error
  return dtype, shape, 'F' if found['fortran'] == b'True' else 'C'


def encode(array: np.ndarray, expected: np.ndarray | None = None) -> np.ndarray:
  """Codes maps without loss, so that deflate packs them into less room.

  What is kept of a cell is how far the bits of its number are from those that are expected, as a
  number that is small where this distance is; the high bytes of all cells stand together. Without
  other knowledge the plane through three neighbours is expected (left, above, and above on the
  left): maps are smooth.

  Args:
    array: f16 or f32[..., H, W].
    expected: of the same shape and dtype; not needed.

  Returns:
    u8[n, ..., H, W] of the n bytes of a number; `decode` gives the same array, bit by bit.
  """
  size = array.dtype.itemsize
  found = np.ascontiguousarray(array).view(f'u{size}')
  if expected is None:
    for axis in (-1, -2):
      found = np.diff(found, axis=axis, prepend=found.dtype.type(0))
  else:
    found = found - np.ascontiguousarray(expected).view(found.dtype)
  signed = found.view(f'i{size}')
  found = ((signed << 1) ^ (signed >> (8 * size - 1))).view(found.dtype)
  return np.stack([(found >> 8 * plane).astype(np.uint8) for plane in range(size)])


def decode(coded: np.ndarray, dtype: type, expected: np.ndarray | None = None) -> np.ndarray:
  """The array that `encode` was given.

  Args:
    coded: u8[n, ..., H, W].
    dtype: of the array, a float of n bytes.
    expected: what `encode` was given, bit by bit.

  Returns:
    [..., H, W] of the dtype.
  """
  kind = np.dtype(f'u{len(coded)}')
  found = coded[0].astype(kind)
  for plane in range(1, len(coded)):
    found |= coded[plane].astype(kind) << 8 * plane
  found = (found >> 1) ^ (0 - (found & 1))
  if expected is None:
    for axis in (-2, -1):
      found = np.cumsum(found, axis=axis, dtype=kind)
  else:
    found += np.ascontiguousarray(expected).view(kind)
  return found.view(dtype)


def enlarged(cells: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  """What is expected of maps that were enlarged from cells.

  It has nothing but sums and products of two numbers: each computer finds the same bits, and a file
  is read with those that it was written with.

  Args:
    cells: f32[P, h, w], of some pixels a side.
    size: (H, W); the last cells may lie partly beyond it.

  Returns:
    f16[P, H, W], interpolated linearly between the middles of the cells.
  """
  found = cells
  side = max(-(-n // h) for n, h in zip(size, cells.shape[1:], strict=True))
  with np.errstate(all='ignore'):  # Of a damaged file.
    for axis, n in enumerate(size, 1):
      last = found.shape[axis] - 1
      # In units of half a pixel: the middle of a pixel, from the middle of the first cell.
      place = np.clip(2 * np.arange(n) + 1 - side, 0, 2 * side * last)
      low, rest = np.divmod(place, 2 * side)
      weight = (rest / (2 * side)).astype(np.float32).reshape(-1, *(1,) * (2 - axis))
      below, above = (found.take(i, axis) for i in (low, np.minimum(low + 1, last)))
      found = below * (1 - weight) + above * weight
    return found.astype(np.float16)
