"""Pictures from arrays: CAM overlays and coloured masks; usable from a notebook."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np

from pnoc_jax import types

VOID_COLOUR = (224, 224, 192)


def overlay(
  image: np.ndarray, cam: np.ndarray, *, strength: float = 0.7, colormap: str = 'turbo'
) -> np.ndarray:
  """Lays a map over its image: the stronger the response, the less of the image shows.

  Args:
    image: u8[H, W, 3].
    cam: f[H, W] in [0, 1]; values outside are clipped.
    strength: opacity of a response of 1.
    colormap: a matplotlib name.

  Returns:
    u8[H, W, 3].
  """
  if image.ndim != 3 or image.shape[:2] != cam.shape:
    raise ValueError(f'image is {image.shape}, map {cam.shape}; expected [H, W, 3] and [H, W]')
  cam = np.clip(np.asarray(cam, np.float32), 0, 1)
  colours = 255 * matplotlib.colormaps[colormap](cam)[..., :3]
  # The square root keeps weak responses visible.
  alpha = strength * np.sqrt(cam)[..., None]
  return np.round((1 - alpha) * image + alpha * colours).astype(np.uint8)


def colour_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
  """Colours a label map.

  Args:
    mask: int[H, W] of indices into the palette, 255 for void.
    palette: C RGB colours.

  Returns:
    u8[H, W, 3].
  """
  table = np.tile(np.array(VOID_COLOUR, np.uint8), (256, 1))
  table[: len(palette)] = palette
  table[types.VOID] = VOID_COLOUR
  return table[np.asarray(mask)]


def blend(
  image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]], *, strength: float = 0.6
) -> np.ndarray:
  """Lays a coloured label map over its image, which shows where there is background.

  Args:
    image: u8[H, W, 3].
    mask: int[H, W] of indices into the palette, 255 for void.
    palette: C RGB colours.
    strength: opacity of the colours.

  Returns:
    u8[H, W, 3].
  """
  alpha = np.where(np.asarray(mask) > 0, strength, 0.0)[..., None]
  return np.round((1 - alpha) * image + alpha * colour_mask(mask, palette)).astype(np.uint8)


def prior_mask(keys: np.ndarray, high: np.ndarray, threshold: float) -> np.ndarray:
  """The label map of a prior at a background threshold: background where max <= threshold.

  Args:
    keys: i32[K+1], 0 and then the classes of the maps.
    high: f[K, H, W].
    threshold: of the background.

  Returns:
    u8[H, W].
  """
  maps = np.asarray(high, np.float32)
  winner = np.asarray(keys)[1:][np.argmax(maps, axis=0)]
  return np.where(maps.max(axis=0) > np.float32(threshold), winner, 0).astype(np.uint8)


def enlarge(picture: np.ndarray, side: int) -> np.ndarray:
  """Repeats pixels a whole number of times until the longer side is about `side` or more."""
  factor = max(1, round(side / max(picture.shape[:2])))
  return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def data_uri(picture: np.ndarray, *, photograph: bool = False) -> str:
  """Encodes u8[H, W, 3] for an `<img>`: PNG, or JPEG for photographs."""
  kind = 'jpeg' if photograph else 'png'
  options: dict[str, Any] = {'metadata': {'Software': None}}
  if photograph:
    options = {'pil_kwargs': {'quality': 85}}
  buffer = io.BytesIO()
  matplotlib.image.imsave(buffer, np.ascontiguousarray(picture), format=kind, **options)
  return f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}'
