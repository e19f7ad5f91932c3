"""RandAugment in the form of FixMatch (`RandAugmentMC`): few strong operations, then a cutout.

The operations are Pillow's own, with its defaults: new pixels are black, resampling is nearest.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

PROBABILITY = 0.5  # That an operation which was drawn is applied.


def rand_augment(
  image: np.ndarray,
  rng: np.random.Generator,
  *,
  n: int = 2,
  m: int = 10,
  cutout_size: int = 16,
) -> np.ndarray:
  """Draws `n` operations with replacement, applies each with probability 1/2, then cuts out.

  Args:
    image: u8[H, W, 3].
    rng: the only source of randomness.
    n: number of operations.
    m: an operation's magnitude v is uniform in 1..m-1; m = 10 gives the method's 1..9.
    cutout_size: side of the final black rectangle, px; 0 for none.

  Returns:
    u8[H, W, 3].
  """
  picture = Image.fromarray(np.ascontiguousarray(image))
  names = list(OPERATIONS)
  for which in rng.integers(len(names), size=n):
    v = int(rng.integers(1, m))
    if rng.random() < PROBABILITY:
      # An operation with two directions draws its sign only when it is applied.
      picture = OPERATIONS[names[which]](picture, v, rng)
  if cutout_size:
    picture = cutout(picture, rng, size=cutout_size)
  return np.asarray(picture)


def cutout(picture: Image.Image, rng: np.random.Generator, *, size: int) -> Image.Image:
  """Paints a black rectangle around a uniform point.

  Pillow counts both corners in, so its sides are up to `size` + 1.
  """
  width, height = picture.size
  x0 = int(max(0, rng.uniform(0, width) - size / 2))
  y0 = int(max(0, rng.uniform(0, height) - size / 2))
  x1, y1 = min(width, x0 + size), min(height, y0 + size)
  picture = picture.copy()
  ImageDraw.Draw(picture).rectangle((x0, y0, x1, y1), fill=(0, 0, 0))
  return picture


def factor(v: int) -> float:
  """The enhancers' factor, from .14 for v = 1 to .86 for v = 9: they only reduce."""
  return 0.09 * v + 0.05


def _enhance(enhancer):
  return lambda picture, v, rng: enhancer(picture).enhance(factor(v))


def _posterize(picture, v, rng):
  del rng
  return ImageOps.posterize(picture, int(0.4 * v) + 4)


def _solarize(picture, v, rng):
  del rng
  return ImageOps.solarize(picture, 256 - int(25.6 * v))


def _rotate(picture, v, rng):
  return picture.rotate(_sign(rng) * int(3 * v))


def _shear_x(picture, v, rng):
  return _affine(picture, (1, _sign(rng) * 0.03 * v, 0, 0, 1, 0))


def _shear_y(picture, v, rng):
  return _affine(picture, (1, 0, 0, _sign(rng) * 0.03 * v, 1, 0))


def _translate_x(picture, v, rng):
  return _affine(picture, (1, 0, _sign(rng) * int(0.03 * v * picture.width), 0, 1, 0))


def _translate_y(picture, v, rng):
  return _affine(picture, (1, 0, 0, 0, 1, _sign(rng) * int(0.03 * v * picture.height)))


def _affine(picture, matrix):
  return picture.transform(picture.size, Image.Transform.AFFINE, matrix)


def _sign(rng):
  return -1 if rng.random() < 0.5 else 1


# The pool of 14; each maps a picture, a magnitude v and a generator to a picture.
OPERATIONS: dict[str, Callable[[Image.Image, int, np.random.Generator], Image.Image]] = {
  'autocontrast': lambda picture, v, rng: ImageOps.autocontrast(picture),
  'brightness': _enhance(ImageEnhance.Brightness),
  'color': _enhance(ImageEnhance.Color),
  'contrast': _enhance(ImageEnhance.Contrast),
  'equalize': lambda picture, v, rng: ImageOps.equalize(picture),
  'identity': lambda picture, v, rng: picture,
  'posterize': _posterize,
  'rotate': _rotate,
  'sharpness': _enhance(ImageEnhance.Sharpness),
  'shear_x': _shear_x,
  'shear_y': _shear_y,
  'solarize': _solarize,
  'translate_x': _translate_x,
  'translate_y': _translate_y,
}
