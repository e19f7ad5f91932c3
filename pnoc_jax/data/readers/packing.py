"""The parts of a split that are packed: its description, and the bytes of its examples."""

import contextlib
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import images


def metadata(source: info.Source, *, upright: bool) -> dict[str, Any]:
  """All that opening a packed split needs, as values that JSON can hold.

  Args:
    source: the examples.
    upright: whether its images are turned as EXIF says.
  """
  described = {x: getattr(source.info, x) for x in info.DatasetInfo.__slots__}
  return {
    'info': described,
    'upright': upright,
    'white': list(white) if (white := getattr(source, 'white', None)) else None,
    'remarks': list(info.remarks(source)),
    'has_masks': bool(source.has_masks),
    'ids': list(source.ids),
    'labels': [np.flatnonzero(x).tolist() for x in source.labels],
    'sizes': [[int(n) for n in source.size(i)] for i in range(len(source))],
  }


def contents(source: info.Source, index: int) -> tuple[list[bytes], bytes]:
  """The bytes of the image's files, and those of the mask's file or none.

  They are the original bytes. An image or mask that is made up becomes a PNG, and so does a mask
  whose file holds other values than class indices.
  """
  files = source.files(index)
  paths = files[: len(files) - bool(source.has_masks)]
  found = [path.read_bytes() for path in paths]
  if not found:
    found = [images.encode_png(source.example(index)['image'])]
  mask = source.mask(index)
  if mask is None:
    return found, b''
  if files and files[-1].suffix == '.png':
    stored = files[-1].read_bytes()
    with contextlib.suppress(errors.UserError):  # Colours.
      if np.array_equal(images.read_mask(stored), mask):
        return found, stored
  return found, images.encode_png(mask, palette=np.array(source.info.palette, np.uint8))
