"""Colour changes on u8 images, with the meaning that torchvision and Pillow give them."""

import functools

import numpy as np
from PIL import Image

_PHOTOGRAPH = 1 << 16
"""Pixels from which on tables of 128 MB, which take a second to make, are worth their while."""


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
  picture = Image.fromarray(image)
  for which in order:
    if which < 3:
      picture = (_brightness, _contrast, _saturation)[which](picture, factors[which])
    elif hue_range:
      picture = _hue(picture, turn)
  return np.asarray(picture)


def random_factor(rng: np.random.Generator, around: float) -> float:
  """A factor uniform in 1 +- `around`, at least 0."""
  return rng.uniform(max(1 - around, 0), 1 + around)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends u8[H, W, 3 or 4] with black: 0 is black, 1 the image."""
  return np.asarray(_brightness(Image.fromarray(image), factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends u8[H, W, 3] with its mean grey: 0 is grey, 1 the image."""
  return np.asarray(_contrast(Image.fromarray(image), factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends u8[H, W, 3] with its grey version: 0 is grey, 1 the image."""
  return np.asarray(_saturation(Image.fromarray(image), factor))


def hue(image: np.ndarray, turn: float) -> np.ndarray:
  """Turns the hue of u8[H, W, 3] by a part of the circle, through Pillow's 8-bit HSV."""
  return np.asarray(_hue(Image.fromarray(image), turn))


def _brightness(picture, factor):
  return picture.point(_blend_table(0, factor) * len(picture.getbands()))


def _contrast(picture, factor):
  grey = np.asarray(picture.convert('L')).mean()
  return picture.point(_blend_table(int(grey + 0.5), factor) * 3)


def _saturation(picture, factor):
  return Image.blend(picture.convert('L').convert('RGB'), picture, factor)


def _blend_table(other, factor):
  """256 numbers: Pillow's blend of each value with `other`; it rounds towards zero."""
  values = np.arange(256, dtype=np.float32)
  blended = other + np.float32(factor) * (values - other)
  return blended.clip(0, 255).astype(np.uint8).tolist()


def _hue(picture, turn):
  step = np.uint8(int(turn * 255) % 256)
  if picture.width * picture.height >= _PHOTOGRAPH:
    return _turn_by_tables(picture, step)
  hsv = np.array(picture.convert('HSV'))
  hsv[..., 0] += step
  return Image.fromarray(hsv, 'HSV').convert('RGB')


def _turn_by_tables(picture, step):
  """The same pixels, looked up: Pillow's conversions take longer than all else that is done."""
  to_hsv, to_rgb = _hsv_tables()
  packed = np.asarray(picture.convert('RGBX'))
  hsv = to_hsv[packed.view('<u4')[..., 0] & 0xFFFFFF]
  hsv.view(np.uint8).reshape(packed.shape)[..., 0] += step
  turned = to_rgb[hsv].view(np.uint8).reshape(packed.shape)
  return Image.frombuffer('RGBX', picture.size, turned, 'raw', 'RGBX', 0, 1).convert('RGB')


@functools.cache
def _hsv_tables():
  """Pillow's HSV of every RGB, and RGB of every HSV: u32[2^24] each, the first channel lowest."""
  whole = np.arange(1 << 24, dtype='<u4').view(np.uint8).reshape(4096, 4096, 4)
  colors = np.ascontiguousarray(whole[..., :3])

  def table(image):
    whole[..., :3] = np.asarray(image)
    return whole.view('<u4').reshape(-1).copy()

  forward = table(Image.fromarray(colors, 'RGB').convert('HSV'))
  return forward, table(Image.fromarray(colors, 'HSV').convert('RGB'))
