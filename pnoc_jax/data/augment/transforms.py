"""Image transforms on the host: u8 in, u8 out; normalisation happens on the device.

The order is resize, flip, tones, colours, RandAugment, crop. A crop that is larger than its image
has a border, which must be exactly zero after normalisation. Therefore a transform also returns the
box of the image's content.

A target is a map beside the image (labels, saliency, hints). It is resized, flipped and cropped
with the image; its values stay.
"""

import dataclasses
import enum
from typing import NamedTuple

import numpy as np

from pnoc_jax import errors, types
from pnoc_jax.data.augment import colors, equalization, geometry, randaugment
from pnoc_jax.io import images

Resize = geometry.Resize


class Augment(enum.Enum):
  """The colour and shape changes of a training image.

  Attributes:
    NONE: none.
    LIGHT: a random brightness.
    COLORJITTER: random brightness, contrast, saturation and hue.
    RANDAUGMENT: RandAugment.
    COLORJITTER_RANDAUGMENT: COLORJITTER, then RANDAUGMENT.
  """

  NONE = 'none'
  LIGHT = 'light'
  COLORJITTER = 'colorjitter'
  RANDAUGMENT = 'randaugment'
  COLORJITTER_RANDAUGMENT = 'colorjitter-randaugment'


class Tones(enum.Enum):
  """How the tones of an image are made alike, before its colours change at random.

  As in the reference, this is done to the images that train and to those that are measured while a
  network trains (`train`, `valid`). Inference takes images as they are.

  Attributes:
    NONE: not at all.
    QUANTILE: each channel is stretched until 1 % of its pixels are white (for microscopy).
    CLAHE: contrast-limited equalisation of the lightness in 8 x 8 tiles, clip limit 2 (for
      streets).
    QUANTILE_CLAHE: QUANTILE, then CLAHE.
  """

  NONE = 'none'
  QUANTILE = 'quantile'
  CLAHE = 'clahe'
  QUANTILE_CLAHE = 'quantile_clahe'


class Resample(enum.Enum):
  """How a target is resized.

  Attributes:
    NEAREST: to the nearest pixel's value, for indices.
    BILINEAR: linearly, for quantities.
  """

  NEAREST = 'nearest'
  BILINEAR = 'bilinear'


class Pair(NamedTuple):
  """A transformed image and its target.

  Attributes:
    image: u8[crop, crop, C], zero outside of the content.
    box: i32[4] = (y0, x0, y1, x1) of the content.
    target: u8[crop, crop], the fill value outside of the content; None without a target.
  """

  image: np.ndarray
  box: np.ndarray
  target: np.ndarray | None


@dataclasses.dataclass(slots=True)
class TransformConfig:
  """Numbers of the training transform; the defaults are those of VOC12 images.

  Attributes:
    min_size: the least size that an image is resized to; a size is a whole number, drawn uniformly
      from min_size..max_size, in px (with PERCENT in hundredths).
    max_size: the largest size.
    resize: what has this size; LONG_SIDE with equal bounds squeezes images to squares.
    crop: height and width of the result, px.
    shift: width in px of a border that is put around the image before the crop. With
      min_size = max_size = crop, the image moves by up to this in each direction.
    flip: whether half of the images are mirrored.
    tones: how tones are made alike.
    augment: the colour and shape changes.
    brightness: LIGHT and COLORJITTER draw the factor from 1 +- this.
    contrast: COLORJITTER draws the factor from 1 +- this.
    saturation: COLORJITTER draws the factor from 1 +- this.
    hue: COLORJITTER turns the hue by a part of the circle from +- this, at most 0.5.
    randaugment_n: RANDAUGMENT draws so many operations for an image.
    randaugment_m: RANDAUGMENT draws magnitudes from 1 to this, exclusive.
    cutout: RANDAUGMENT ends with a black rectangle of this side, px (one more where it fits).
  """

  min_size: int = 320
  max_size: int = 640
  resize: Resize = Resize.LONG_SIDE
  crop: int = 512
  shift: int = 0
  flip: bool = True
  tones: Tones = Tones.NONE
  augment: Augment = Augment.RANDAUGMENT
  brightness: float = 0.3
  contrast: float = 0.3
  saturation: float = 0.3
  hue: float = 0.1
  randaugment_n: int = 2
  randaugment_m: int = 10
  cutout: int = 16

  @property
  def squeezes(self) -> bool:
    """Whether images of any form become squares; measurements then squeeze them, too."""
    return geometry.squeezes(self.resize, min_size=self.min_size, max_size=self.max_size)


def validate(config: TransformConfig, *, paired: bool = False, channels: int = 3) -> None:
  """Raises UserError with every number of the config that cannot work.

  Args:
    config: the numbers.
    paired: whether images have a target.
    channels: number of the images' channels.
  """
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
  if config.cutout < 0:
    wrong.append(f'cutout is {config.cutout}; 0 leaves it out')
  if paired and config.augment in _MOVING:
    wrong.append(
      f'augment is {config.augment.value}, which moves the image but not its target: '
      'use none, light or colorjitter'
    )
  for field, known in (
    ('augment', (Augment.NONE, Augment.LIGHT)),
    ('tones', (Tones.NONE, Tones.QUANTILE)),
  ):
    value = getattr(config, field)
    if channels != 3 and value not in known:
      wrong.append(
        f'{field} is {value.value}, which is of red, green and blue, but the images have '
        f'{channels} channels: use {" or ".join(x.value for x in known)}'
      )
  if wrong:
    raise errors.UserError('The transform cannot work: ' + '; '.join(wrong) + '.')


def train(
  image: np.ndarray, rng: np.random.Generator, config: TransformConfig
) -> tuple[np.ndarray, np.ndarray]:
  """The training transform of an image.

  Args:
    image: u8[H, W, C].
    rng: the only source of randomness.
    config: the numbers.

  Returns:
    u8[crop, crop, C], and the box i32[4] = (y0, x0, y1, x1) of the content in it.
  """
  pair = train_pair(image, None, rng, config)
  return pair.image, pair.box


def train_pair(
  image: np.ndarray,
  target: np.ndarray | None,
  rng: np.random.Generator,
  config: TransformConfig,
  *,
  fill: int = types.VOID,
  resample: Resample = Resample.NEAREST,
) -> Pair:
  """The training transform of an image and its target; `train` does the same to the image.

  Args:
    image: u8[H, W, C].
    target: u8[H, W], or None.
    rng: the only source of randomness.
    config: the numbers; `validate` accepts them as `paired` if there is a target.
    fill: the target's value outside of the content.
    resample: how the target is resized.

  Returns:
    The pair.
  """
  image, target = _before_crop(image, target, rng, config, resample)
  place = geometry.draw_place(image.shape[:2], rng, crop=config.crop, shift=config.shift)
  if target is not None:
    target = geometry.paste(target, place, crop=config.crop, fill=fill)
  image = geometry.paste(image, place, crop=config.crop, fill=0)
  return Pair(image, geometry.box(place), target)


def uncropped(image: np.ndarray, rng: np.random.Generator, config: TransformConfig) -> np.ndarray:
  """The part of `train` before the crop: u8[H, W, C] to u8[H', W', C]."""
  return _before_crop(image, None, rng, config, Resample.NEAREST)[0]


def _before_crop(image, target, rng, config, resample):
  """The image and its target, resized, mirrored and coloured."""
  shape, square = geometry.draw_size(
    image.shape[:2],
    rng,
    min_size=config.min_size,
    max_size=config.max_size,
    resize=config.resize,
  )
  image = (images.resize_bilinear if square else images.resize_bicubic)(image, shape)
  if target is not None:
    target = _RESIZES[resample](target, shape)
  if config.flip and rng.random() < 0.5:
    image = image[:, ::-1]
    target = None if target is None else target[:, ::-1]
  return _augment(_even_tones(image, config.tones), rng, config), target


def _even_tones(image, tones):
  if tones in (Tones.QUANTILE, Tones.QUANTILE_CLAHE):
    image = equalization.normalize_quantile(image)
  return equalization.clahe(image) if tones in _LIGHTNESS else image


def _augment(image, rng, config):
  if config.augment is Augment.LIGHT:
    image = colors.brightness(image, colors.random_factor(rng, config.brightness))
  if config.augment in (Augment.COLORJITTER, Augment.COLORJITTER_RANDAUGMENT):
    image = colors.color_jitter(
      image,
      rng,
      brightness_range=config.brightness,
      contrast_range=config.contrast,
      saturation_range=config.saturation,
      hue_range=config.hue,
    )
  if config.augment in _MOVING:
    image = randaugment.rand_augment(
      image, rng, n=config.randaugment_n, m=config.randaugment_m, cutout_size=config.cutout
    )
  return image


def valid(
  image: np.ndarray,
  mask: np.ndarray | None,
  *,
  size: int,
  squeeze: bool = False,
  resample: Resample = Resample.NEAREST,
  tones: Tones = Tones.NONE,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The transform of in-training validation: short side to `size`, tones, the top-left square.

  Args:
    image: u8[H, W, C].
    mask: u8[H, W] or None.
    size: height and width of the result, px.
    squeeze: whether the whole image is squeezed to the square, for a training that does so.
    resample: how the mask is resized.
    tones: how tones are made alike; those of the training.

  Returns:
    image u8[size, size, C], box i32[4], mask u8[size, size] (255 where there is none).
  """
  # As in torchvision's Resize, the long side is rounded down.
  shape = tuple(size * n // min(image.shape[:2]) for n in image.shape[:2])
  if squeeze:
    shape = (size, size)
  canvas = np.zeros((size, size, image.shape[2]), np.uint8)
  canvas[:] = _even_tones(images.resize_bilinear(image, shape), tones)[:size, :size]
  labels = np.full((size, size), types.VOID, np.uint8)
  if mask is not None:
    labels[:] = _RESIZES[resample](mask, shape)[:size, :size]
  return canvas, np.array([0, 0, size, size], np.int32), labels


_LIGHTNESS = (Tones.CLAHE, Tones.QUANTILE_CLAHE)
_MOVING = (Augment.RANDAUGMENT, Augment.COLORJITTER_RANDAUGMENT)
_RESIZES = {
  Resample.NEAREST: images.resize_nearest,
  Resample.BILINEAR: images.resize_bilinear,
}
