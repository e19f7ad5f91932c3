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


def encode(array: np.ndarray) -> np.ndarray:
  """Codes smooth maps without loss, so that deflate packs them into half of the room.

  What is kept of a cell is how far the bits of its number are from the plane through its three
  neighbours (left, above, and above on the left), as a number that is small where this distance is;
  the high bytes of all cells stand together, and then compress well.

  Args:
    array: f16 or f32[..., H, W].

  Returns:
    u8[n, ..., H, W] of the n bytes of a number; `decode` gives the same array, bit by bit.
  """
  size = array.dtype.itemsize
  found = np.ascontiguousarray(array).view(f'u{size}')
  for axis in (-1, -2):
    found = np.diff(found, axis=axis, prepend=found.dtype.type(0))
  signed = found.view(f'i{size}')
  found = ((signed << 1) ^ (signed >> (8 * size - 1))).view(found.dtype)
  return np.stack([(found >> 8 * plane).astype(np.uint8) for plane in range(size)])


def decode(coded: np.ndarray, dtype: type) -> np.ndarray:
  """The array that `encode` was given.

  Args:
    coded: u8[n, ..., H, W].
    dtype: of the array, a float of n bytes.

  Returns:
    [..., H, W] of the dtype.
  """
  kind = np.dtype(f'u{len(coded)}')
  found = coded[0].astype(kind)
  for plane in range(1, len(coded)):
    found |= coded[plane].astype(kind) << 8 * plane
  found = (found >> 1) ^ (0 - (found & 1))
  for axis in (-2, -1):
    found = np.cumsum(found, axis=axis, dtype=kind)
  return found.view(dtype)
