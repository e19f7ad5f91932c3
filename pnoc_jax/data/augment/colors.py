"""Colour changes on u8 images, with the meaning that torchvision and Pillow give them."""

import numpy as np
from PIL import Image


def color_jitter(
  image: np.ndarray,
  rng: np.random.Generator,
  *,
  brightness_range: float,
  contrast_range: float,
  saturation_range: float,
  hue_range: float,
) -> np.ndarray:
  """Four colour changes in random order, with torchvision's meaning.

  Args:
    image: u8[H, W, 3].
    rng: draws the order, then the factors.
    brightness_range: the factor is uniform in 1 +- this, at least 0.
    contrast_range: the same for the contrast.
    saturation_range: the same for the saturation.
    hue_range: the hue turns by a part of the circle that is uniform in +- this.

  Returns:
    u8[H, W, 3].
  """
  order = rng.permutation(4)
  factors = [random_factor(rng, x) for x in (brightness_range, contrast_range, saturation_range)]
  turn = rng.uniform(-hue_range, hue_range)
  for which in order:
    if which == 0:
      image = brightness(image, factors[0])
    elif which == 1:
      image = contrast(image, factors[1])
    elif which == 2:
      image = saturation(image, factors[2])
    elif hue_range:
      image = hue(image, turn)
  return image


def random_factor(rng: np.random.Generator, around: float) -> float:
  """A factor uniform in 1 +- `around`, at least 0."""
  return rng.uniform(max(1 - around, 0), 1 + around)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends u8[H, W, 3] with black: 0 is black, 1 the image."""
  return _blend_table(0, factor)[image]


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends u8[H, W, 3] with its mean grey: 0 is grey, 1 the image."""
  return _blend_table(int(_grey(image).mean() + 0.5), factor)[image]


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends u8[H, W, 3] with its grey version: 0 is grey, 1 the image."""
  grey = _grey(image).astype(np.float32)[..., None]
  return (grey + np.float32(factor) * (image - grey)).clip(0, 255).astype(np.uint8)


def hue(image: np.ndarray, turn: float) -> np.ndarray:
  """Turns the hue of u8[H, W, 3] by a part of the circle, through Pillow's 8-bit HSV."""
  hsv = np.array(Image.fromarray(image).convert('HSV'))
  hsv[..., 0] += np.uint8(int(turn * 255) % 256)
  return np.asarray(Image.fromarray(hsv, 'HSV').convert('RGB'))


def _blend_table(other, factor):
  """u8[256]: Pillow's blend of each value with `other`; it rounds towards zero."""
  values = np.arange(256, dtype=np.float32)
  return (other + np.float32(factor) * (values - other)).clip(0, 255).astype(np.uint8)


def _grey(image):
  """u8[H, W]: Pillow's L, which is ITU-R 601 in fixed point."""
  red, green, blue = (image[..., c].astype(np.uint32) for c in range(3))
  return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
