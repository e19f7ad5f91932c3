"""The parts of a split that are packed: its description, and the bytes of its examples."""

import contextlib
import math
from collections.abc import Callable, Mapping
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


def check_metadata(found: Any) -> None:
  """Refuses what is not as `metadata` makes it: a packed split may come from anybody.

  Names are checked where all data sets are opened. Splits that were packed by older versions have
  no `white` and no `remarks`.

  Raises:
    ValueError: it names the part that is wrong.
  """
  fields = _mapping(found, 'metadata.json')
  dataset = _mapping(fields.get('info'), '`info`')
  if unknown := dataset.keys() - set(info.DatasetInfo.__slots__):
    raise ValueError(f'`info` has the unknown fields {sorted(unknown)}')
  classes, channels = dataset.get('classes'), len(dataset.get('mean') or ())
  num_classes = len(classes) if isinstance(classes, list) else 0
  count = len(ids) if isinstance(ids := fields.get('ids'), list) else 0
  white = fields.get('white')
  right = {
    'classes': num_classes > 0 and _all(classes, _is_text),
    'background': _is_text(dataset.get('background')),
    'name': _is_text(dataset.get('name')),
    'palette': _all(dataset.get('palette'), _is_color, num_classes + 1),
    'mean': channels > 0 and _all(dataset.get('mean'), _is_number),
    'std': _all(dataset.get('std'), lambda x: _is_number(x) and x > 0, channels),
    'upright': isinstance(fields.get('upright'), bool),
    'has_masks': isinstance(fields.get('has_masks'), bool),
    'white': white is None or (_all(white, _is_number, 2) and min(white) > 0),
    'remarks': _all(fields.get('remarks', []), _is_text),
    'ids': count > 0 and _all(ids, _is_text),
    'labels': _all(
      fields.get('labels'),
      lambda row: _all(row, lambda k: type(k) is int and 0 <= k < num_classes),
      count,
    ),
    'sizes': _all(fields.get('sizes'), _is_size, count),
  }
  if wrong := [name for name, fits in right.items() if not fits]:
    raise ValueError(f'wrong are {", ".join(f"`{x}`" for x in wrong)}')


def _mapping(found: Any, what: str) -> Mapping[str, Any]:
  if not isinstance(found, Mapping):
    raise ValueError(f'{what} is no JSON object')
  return found


def _all(found: Any, fits: Callable[[Any], bool], count: int | None = None) -> bool:
  """Whether it is a list, of `count` entries if that is given, of which each one fits."""
  return isinstance(found, list) and count in (None, len(found)) and all(map(fits, found))


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and math.isfinite(value)


def _is_color(value: Any) -> bool:
  return _all(value, lambda x: type(x) is int and 0 <= x <= 255, 3)


def _is_size(value: Any) -> bool:
  return _all(value, lambda x: type(x) is int and x > 0, 2) and math.prod(value) <= images.LARGEST


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
