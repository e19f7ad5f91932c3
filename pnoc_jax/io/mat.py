"""Reads the masks of SBD, which are MATLAB files."""

import os

import numpy as np

from pnoc_jax import errors
from pnoc_jax.io import atomic


def read_segmentation(path: str | os.PathLike) -> np.ndarray:
  """`GTcls.Segmentation` of `cls/<id>.mat`: the class of each pixel.

  Args:
    path: of a MATLAB file (version 4 to 7).

  Returns:
    u8[H, W].

  Raises:
    UserError: the file is missing, damaged, or holds no such mask; the message names it.
  """
  from scipy import io  # It takes half a second, which only readers of SBD's own files wait.

  try:
    with open(atomic.require_file(path), 'rb') as file:
      found = io.loadmat(file, variable_names=['GTcls'])
  except FileNotFoundError as error:
    raise errors.UserError(f'{path}: no such mask.') from error
  # scipy raises ValueError, TypeError, NotImplementedError, zlib.error and more for broken files.
  except Exception as error:
    raise errors.UserError(
      f'{path}: this mask cannot be read ({type(error).__name__}: {error}).'
    ) from error
  struct = found.get('GTcls', np.zeros(0))
  if 'Segmentation' not in (struct.dtype.names or ()) or struct.size != 1:
    raise errors.UserError(f'{path}: holds no GTcls.Segmentation; the masks of SBD are in cls/.')
  mask = np.asarray(struct['Segmentation'].item())
  if mask.ndim != 2 or mask.dtype != np.uint8:
    raise errors.UserError(
      f'{path}: GTcls.Segmentation is {mask.dtype}{list(mask.shape)}, expected uint8[H, W].'
    )
  return np.ascontiguousarray(mask)
