"""Image transforms on the host: u8 in, u8 out; normalisation happens on the device.

The order is resize, flip, colours, RandAugment, crop. A crop that is larger than its image leaves
a border, which the returned box tells apart: after normalisation it must be exactly zero.
"""

import dataclasses
import enum

import numpy as np
from PIL import Image

from pnoc_jax import errors
from pnoc_jax.data import info, randaugment
from pnoc_jax.io import images


class Augment(enum.Enum):
  """The colour and shape changes of a training image."""

  NONE = 'none'
  LIGHT = 'light'
  """A random brightness."""
  COLORJITTER = 'colorjitter'
  RANDAUGMENT = 'randaugment'
  COLORJITTER_RANDAUGMENT = 'colorjitter-randaugment'


@dataclasses.dataclass(slots=True)
class TransformConfig:
  """Numbers of the training transform; the defaults are those of VOC12 images."""

  min_size: int = 320
  """The long side is resized to a whole number of px, uniform in min_size..max_size.

  Where both are equal, the image is squeezed to a square of that size instead."""
  max_size: int = 640
  crop: int = 512
  """Height and width of the result, px."""
  shift: int = 0
  """Border in px put around the image before the crop: with min_size = max_size = crop, the image
  moves by up to this in each direction."""
  flip: bool = True
  """Mirror half of the images."""
  augment: Augment = Augment.RANDAUGMENT
  brightness: float = 0.3
  """LIGHT and COLORJITTER: the factor is uniform in 1 +- this."""
  contrast: float = 0.3
  saturation: float = 0.3
  hue: float = 0.1
  """COLORJITTER: the hue turns by a uniform part of the circle in +- this, at most 0.5."""
  randaugment_n: int = 2
  """Number of operations drawn for an image."""
  randaugment_m: int = 10
  """Magnitudes are drawn from 1 to this, exclusive."""
  cutout: int = 16
  """RANDAUGMENT ends with a black rectangle of this side in px (one more where it fits)."""


def validate(config: TransformConfig) -> None:
  """Raises UserError with every number of the config that cannot work."""
  wrong = []
  if not 1 <= config.min_size <= config.max_size:
    wrong.append(f'min_size and max_size are {config.min_size} and {config.max_size}')
  if config.crop < 1 or config.shift < 0:
    wrong.append(f'crop and shift are {config.crop} and {config.shift}')
  if min(config.brightness, config.contrast, config.saturation) < 0:
    wrong.append('brightness, contrast and saturation must not be negative')
  if not 0 <= config.hue <= 0.5:
    wrong.append(f'hue is {config.hue}, expected 0 to 0.5')
  if config.randaugment_n < 0 or not 2 <= config.randaugment_m <= 10:
    wrong.append('randaugment_n must not be negative, randaugment_m must be 2 to 10')
  if wrong:
    raise errors.UserError('The transform cannot work: ' + '; '.join(wrong) + '.')


def train(
  image: np.ndarray, rng: np.random.Generator, config: TransformConfig
) -> tuple[np.ndarray, np.ndarray]:
  """The training transform of classification.

  Args:
    image: u8[H, W, 3].
    rng: the only source of randomness.
    config: its numbers.

  Returns:
    u8[crop, crop, 3], and the box i32[4] = (y0, x0, y1, x1) of the content in it.
  """
  image = random_resize(image, rng, min_size=config.min_size, max_size=config.max_size)
  if config.flip and rng.random() < 0.5:
    image = image[:, ::-1]
  if config.augment is Augment.LIGHT:
    image = brightness(image, _factor(rng, config.brightness))
  if config.augment in (Augment.COLORJITTER, Augment.COLORJITTER_RANDAUGMENT):
    image = color_jitter(
      image,
      rng,
      brightness_range=config.brightness,
      contrast_range=config.contrast,
      saturation_range=config.saturation,
      hue_range=config.hue,
    )
  if config.augment in (Augment.RANDAUGMENT, Augment.COLORJITTER_RANDAUGMENT):
    image = randaugment.rand_augment(
      image, rng, n=config.randaugment_n, m=config.randaugment_m, cutout_size=config.cutout
    )
  return random_crop(image, rng, crop=config.crop, shift=config.shift)


def valid(
  image: np.ndarray, mask: np.ndarray | None, *, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The transform of in-training validation: short side to `size`, then the top-left square.

  Args:
    image: u8[H, W, 3].
    mask: u8[H, W] or None.
    size: of the result, px.

  Returns:
    image u8[size, size, 3], box i32[4], mask u8[size, size] (255 where there is none).
  """
  height, width = image.shape[:2]
  scale = size / min(height, width)
  # The short side is exact; the long one is cut as torchvision's Resize cuts it.
  shape = tuple(size if n == min(height, width) else int(n * scale) for n in (height, width))
  canvas = np.zeros((size, size, 3), np.uint8)
  canvas[:] = images.resize_bilinear(image, shape)[:size, :size]
  labels = np.full((size, size), info.VOID, np.uint8)
  if mask is not None:
    labels[:] = images.resize_nearest(mask, shape)[:size, :size]
  return canvas, np.array([0, 0, size, size], np.int32), labels


def random_resize(
  image: np.ndarray, rng: np.random.Generator, *, min_size: int, max_size: int
) -> np.ndarray:
  """Resizes the long side to a uniform whole number of px, bicubic.

  Args:
    image: u8[H, W, 3].
    rng: draws the size.
    min_size: least long side; equal to `max_size`, it is the side of a square (bilinear).
    max_size: largest long side, inclusive.

  Returns:
    u8[H', W', 3].
  """
  if min_size == max_size:
    return images.resize_bilinear(image, (min_size, min_size))
  height, width = image.shape[:2]
  scale = rng.integers(min_size, max_size, endpoint=True) / max(height, width)
  return images.resize_bicubic(image, (max(round(height * scale), 1), max(round(width * scale), 1)))


def random_crop(
  image: np.ndarray, rng: np.random.Generator, *, crop: int, shift: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a square at a uniform place; a smaller image is pasted at a uniform place.

  Args:
    image: u8[H, W, 3].
    rng: draws the place.
    crop: side of the square, px.
    shift: border put around the image first, px.

  Returns:
    u8[crop, crop, 3] (zero outside of the content), and the content's box i32[4] in it.
  """
  canvas = np.zeros((crop, crop, 3), np.uint8)
  source, target = [], []
  for length in image.shape[:2]:
    padded = length + 2 * shift
    # Where the image's first row or column comes to lie; negative if it is cut off.
    offset = shift + int(rng.integers(min(crop - padded, 0), max(crop - padded, 0), endpoint=True))
    source.append(slice(max(-offset, 0), min(crop - offset, length)))
    target.append(slice(max(offset, 0), min(offset + length, crop)))
  canvas[target[0], target[1]] = image[source[0], source[1]]
  box = [target[0].start, target[1].start, target[0].stop, target[1].stop]
  return canvas, np.array(box, np.int32)


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
    contrast_range: as well.
    saturation_range: as well.
    hue_range: the turn is uniform in +- this, of the circle.

  Returns:
    u8[H, W, 3].
  """
  order = rng.permutation(4)
  factors = [_factor(rng, x) for x in (brightness_range, contrast_range, saturation_range)]
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


def _factor(rng, around):
  return rng.uniform(max(1 - around, 0), 1 + around)


def _blend_table(other, factor):
  """u8[256]: Pillow's blend of every value with one other value; it rounds towards zero."""
  values = np.arange(256, dtype=np.float32)
  return (other + np.float32(factor) * (values - other)).clip(0, 255).astype(np.uint8)


def _grey(image):
  """u8[H, W]: Pillow's L, in its fixed-point form of ITU-R 601."""
  red, green, blue = (image[..., c].astype(np.uint32) for c in range(3))
  return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
