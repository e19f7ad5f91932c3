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
COLORMAP = 'viridis'  # Rises in brightness, so that it can be read without seeing colours.
_BACKGROUND: tuple[int, int, int] = (30, 32, 40)
# Colours that eyes with any of the common defects tell apart: Okabe and Ito (2008).
_CLASSES = (
  (230, 159, 0),
  (86, 180, 233),
  (0, 158, 115),
  (240, 228, 66),
  (0, 114, 178),
  (213, 94, 0),
  (204, 121, 167),
)
_TONES = ((0, 0.0), (255, 0.5), (0, 0.4))  # Of each turn through the colours: mixed with what.
ERRORS = {
  'right': (95, 95, 100),
  'missed': (86, 180, 233),
  'claimed wrongly': (230, 159, 0),
  'another class': (255, 255, 255),
}
"""Colours of `errors`, by what they mean."""


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
  """RGB colours of a background and `count` classes, the same in all pictures of a report.

  The first seven classes can be told apart by colour-blind eyes. Those that follow have lighter and
  darker tones of the same colours, and rely on the names that stand in the pictures.
  """
  found: list[tuple[int, int, int]] = [_BACKGROUND]
  for k in range(count):
    towards, share = _TONES[k // len(_CLASSES) % len(_TONES)]
    r, g, b = (round((1 - share) * x + share * towards) for x in _CLASSES[k % len(_CLASSES)])
    found.append((r, g, b))
  return tuple(found)


def overlay(
  image: np.ndarray, cam: np.ndarray, *, strength: float = 0.7, colormap: str = COLORMAP
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


def errors(labels: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Where a label map is wrong, in the colours `ERRORS`; right background is dark, void is light.

  Args:
    labels: int[H, W] of classes, 0 for background.
    target: int[H, W], the true mask, 255 for void.

  Returns:
    u8[H, W, 3].
  """
  picture = np.empty((*target.shape, 3), np.uint8)
  picture[:] = _BACKGROUND
  picture[(labels == target) & (target > 0)] = ERRORS['right']
  picture[(labels == 0) & (target > 0)] = ERRORS['missed']
  picture[(labels > 0) & (target == 0)] = ERRORS['claimed wrongly']
  picture[(labels > 0) & (target > 0) & (labels != target)] = ERRORS['another class']
  picture[target == types.VOID] = VOID_COLOUR
  return picture


def places(labels: np.ndarray) -> dict[int, tuple[float, float]]:
  """Where the name of each class of a label map can stand.

  Args:
    labels: int[H, W], 0 for background and 255 for void, which have no name.

  Returns:
    Class -> (x, y) of a pixel of the class near the middle of its pixels, as shares of width and
    height.
  """
  found = {}
  for key in np.flatnonzero(np.bincount(np.ravel(labels), minlength=256)).tolist():
    if 0 < key < types.VOID:
      rows, columns = np.nonzero(labels == key)
      row = int(rows[len(rows) // 2])
      column = int(columns[rows == row][(rows == row).sum() // 2])
      found[key] = (column + 0.5) / labels.shape[1], (row + 0.5) / labels.shape[0]
  return found


def shrink(picture: np.ndarray, side: int, *, smooth: bool) -> np.ndarray:
  """Makes u8[H, W, 3] smaller by a whole factor, its longer side at least `side` if it was.

  Args:
    picture: the picture.
    side: in pixels.
    smooth: means of blocks, as suits photographs; else single pixels, which keeps colours.
  """
  factor = max(1, max(picture.shape[:2]) // side)
  if factor == 1:
    return picture
  if not smooth:
    return picture[factor // 2 :: factor, factor // 2 :: factor]
  height, width = (n // factor for n in picture.shape[:2])
  blocks = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
  return np.round(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)


def colour_bar(width: int = 160, height: int = 10) -> np.ndarray:
  """u8[height, width, 3]: how maps of 0 to 1 look in `overlay`, over a grey image."""
  ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
  return overlay(np.full((height, width, 3), 128, np.uint8), ramp)


def data_uri(picture: np.ndarray, *, photograph: bool = False) -> str:
  """Encodes u8[H, W, 3] for an `<img>`: PNG, or JPEG for photographs."""
  kind = 'jpeg' if photograph else 'png'
  options: dict[str, Any] = {'metadata': {'Software': None}}
  if photograph:
    options = {'pil_kwargs': {'quality': 85}}
  buffer = io.BytesIO()
  matplotlib.image.imsave(buffer, np.ascontiguousarray(picture), format=kind, **options)
  return f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}'
