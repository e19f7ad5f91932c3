"""Makes the tones of u8 images alike, by CLAHE on the lightness or by each channel's quantile."""

import numpy as np


def normalize_quantile(
  image: np.ndarray, *, quantile: float = 0.99, least: float = 25.0
) -> np.ndarray:
  """Stretches each channel so that its quantile becomes white; values above it become white, too.

  Args:
    image: u8[H, W, C].
    quantile: which quantile of the channel's values, interpolated linearly.
    least: a channel whose quantile is below this is kept, because it shows little but noise.

  Returns:
    u8[H, W, C].
  """
  values = np.arange(256, dtype=np.float64)
  result = image.copy()
  for c, high in enumerate(np.quantile(image, quantile, axis=(0, 1))):
    if high >= least:
      table = np.rint(255 * np.minimum(values / high, 1)).astype(np.uint8)
      result[..., c] = table[image[..., c]]
  return result


def clahe(image: np.ndarray, *, clip: float = 2.0, tiles: int = 8) -> np.ndarray:
  """Contrast-limited adaptive histogram equalisation of an RGB image's lightness.

  L of CIE Lab (D65) is equalised in 8 bits, a and b stay.

  Args:
    image: u8[H, W, 3].
    clip: see `equalize_tiles`.
    tiles: see `equalize_tiles`.

  Returns:
    u8[H, W, 3].
  """
  lab = rgb_to_lab(image)
  lightness = np.rint(lab[..., 0] * 2.55).astype(np.uint8)
  lab[..., 0] = equalize_tiles(lightness, clip=clip, tiles=tiles) / np.float32(2.55)
  return lab_to_rgb(lab)


def equalize_tiles(plane: np.ndarray, *, clip: float = 2.0, tiles: int = 8) -> np.ndarray:
  """CLAHE of one channel, with OpenCV's numbers.

  Each tile's clipped histogram makes a table of new values. A pixel's new value is the bilinear
  mean of what the tables of the four nearest tiles say. An image whose sides are no multiples of
  `tiles` is continued by its mirror image.

  Args:
    plane: u8[H, W].
    clip: the largest count of a histogram, in counts of a flat one; what is above is spread evenly.
    tiles: number of tiles along each side.

  Returns:
    u8[H, W].
  """
  height, width = plane.shape
  padded = plane
  if height % tiles or width % tiles:
    # As in OpenCV, both sides grow if one is no multiple; a side that is one grows by `tiles` px.
    grown = [(0, tiles - n % tiles) for n in (height, width)]
    padded = np.pad(plane, grown, mode='reflect')
  rows, columns = (n // tiles for n in padded.shape)
  tables = _tables(
    padded.reshape(tiles, rows, tiles, columns).swapaxes(1, 2).reshape(tiles * tiles, -1),
    clip=clip,
  ).reshape(tiles, tiles, 256)
  y0, y1, wy = _neighbours(height, rows, tiles)
  x0, x1, wx = _neighbours(width, columns, tiles)
  y0, y1, wy = y0[:, None], y1[:, None], wy[:, None]
  upper = tables[y0, x0, plane] * (1 - wx) + tables[y0, x1, plane] * wx
  lower = tables[y1, x0, plane] * (1 - wx) + tables[y1, x1, plane] * wx
  return np.rint(upper * (1 - wy) + lower * wy).astype(np.uint8)


def _tables(values, *, clip):
  """f32[T, 256] of whole numbers: the new value of each old one, from the tiles' u8[T, area]."""
  count, area = values.shape
  offset = 256 * np.arange(count)[:, None]
  found = np.bincount((values + offset).ravel(), minlength=256 * count).reshape(count, 256)
  limit = max(int(clip * area / 256), 1)
  excess = np.maximum(found - limit, 0).sum(axis=1)
  found = np.minimum(found, limit) + excess[:, None] // 256
  for histogram, rest in zip(found, excess % 256, strict=True):
    if rest:
      histogram[:: max(256 // rest, 1)][:rest] += 1
  scale = np.float32(255) / np.float32(area)
  return np.rint(np.cumsum(found, axis=1).astype(np.float32) * scale).clip(0, 255)


def _neighbours(size, side, tiles):
  """Each pixel's tile with the centre before it, the tile after that, and the latter's weight."""
  at = np.arange(size, dtype=np.float32) * np.float32(1 / side) - np.float32(0.5)
  before = np.floor(at).astype(np.int64)
  weight = at - before.astype(np.float32)
  return np.maximum(before, 0), np.minimum(before + 1, tiles - 1), weight


# Linear RGB of sRGB's primaries to XYZ (ITU-R BT.709).
_TO_XYZ = np.array(
  [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
  np.float32,
)
_WHITE = _TO_XYZ.sum(axis=1)
_EDGE = 6 / 29  # Here the cube root of Lab meets its linear part.


def rgb_to_lab(image: np.ndarray) -> np.ndarray:
  """u8[H, W, 3], sRGB, to f32[H, W, 3], CIE Lab of white D65 (L in 0..100)."""
  level = np.arange(256, dtype=np.float32) / 255
  linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
  x = linear.astype(np.float32)[image] @ (_TO_XYZ / _WHITE[:, None]).T
  f = np.where(x > _EDGE**3, np.cbrt(x), x / (3 * _EDGE**2) + 4 / 29)
  lab = (116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2]))
  return np.stack(lab, axis=-1).astype(np.float32)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
  """The inverse of `rgb_to_lab`; colours outside of sRGB are clipped."""
  y = (lab[..., 0] + 16) / 116
  f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
  x = np.where(f > _EDGE, f**3, 3 * _EDGE**2 * (f - 4 / 29)).astype(np.float32)
  linear = (x @ np.linalg.inv(_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)).clip(0, 1)
  level = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
  return np.rint(255 * level).astype(np.uint8)
