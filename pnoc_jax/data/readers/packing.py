"""What of a split is packed: its description, and the bytes of its examples."""

import contextlib
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import images


def metadata(source: info.Source, *, upright: bool) -> dict[str, Any]:
  """What opening a packed split needs, as JSON holds it.

  Args:
    source: the examples.
    upright: whether its images are turned as EXIF says.
  """
  described = {x: getattr(source.info, x) for x in info.DatasetInfo.__slots__}
  return {
    'info': described,
    'upright': upright,
    'has_masks': bool(source.has_masks),
    'ids': list(source.ids),
    'labels': [np.flatnonzero(x).tolist() for x in source.labels],
    'sizes': [[int(n) for n in source.size(i)] for i in range(len(source))],
  }


def contents(source: info.Source, index: int) -> tuple[list[bytes], bytes]:
  """An example's original bytes: of the image's files, and of the mask's or none.

  What is no file, or a mask whose file holds other values than class indices, becomes a PNG.
  """
  files = source.files(index)
  paths = files[: len(files) - bool(source.has_masks)]
  found = [path.read_bytes() for path in paths]
  if not found:
    found = [images.encode_png(source.example(index)['image'])]
  if not source.has_masks:
    return found, b''
  mask = source.mask(index)
  if files and files[-1].suffix == '.png':
    stored = files[-1].read_bytes()
    with contextlib.suppress(errors.UserError):  # Colours.
      if np.array_equal(images.read_mask(stored), mask):
        return found, stored
  return found, images.encode_png(mask, palette=np.array(source.info.palette, np.uint8))
