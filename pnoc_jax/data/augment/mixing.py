"""Makes one training image of two, and one label: CutMix, MixUp, or either.

The second image is drawn from the whole split. All draws depend on the seed and on the example's
place in the stream alone, and the first image is transformed as it is without mixing.
"""

import dataclasses
import enum

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import positions


class Mix(enum.Enum):
  """How two images become one.

  Attributes:
    NONE: images are not mixed.
    CUTMIX: a rectangle of the second is pasted into the first.
    MIXUP: both are averaged with a random weight.
    CUT_OR_MIX: a fair coin chooses CUTMIX or MIXUP.
  """

  NONE = 'none'
  CUTMIX = 'cutmix'
  MIXUP = 'mixup'
  CUT_OR_MIX = 'cut_or_mix'


@dataclasses.dataclass(slots=True)
class MixConfig:
  """Mixing of training images; the numbers are the reference's, whose recipes do not mix.

  Attributes:
    kind: how two images become one.
    cutmix_probability: the part of the images that CutMix changes.
    mixup_probability: the part of the images that MixUp changes.
    beta: weights are drawn from Beta(beta, beta); 1 is uniform.
  """

  kind: Mix = Mix.NONE
  cutmix_probability: float = 0.5
  mixup_probability: float = 1.0
  beta: float = 1.0


def faults(config: MixConfig) -> list[str]:
  """The fields of a config that cannot work, each with a reason."""
  wrong = []
  for name in ('cutmix_probability', 'mixup_probability'):
    if not 0 <= getattr(config, name) <= 1:
      wrong.append(f'{name} is {getattr(config, name)}; it lies in [0, 1]')
  if config.beta <= 0:
    wrong.append(f'beta is {config.beta}; it must be positive')
  return wrong


class Mixer:
  """Mixes an example of a training stream with another example of its split."""

  def __init__(
    self,
    source: info.Source,
    partners: np.ndarray,
    transform: transforms.TransformConfig,
    config: MixConfig,
    *,
    seed: int,
  ):
    """Keeps its arguments.

    Args:
      source: the examples.
      partners: i64[N], indices of the examples that may be the second one.
      transform: the transform of both images.
      config: how to mix.
      seed: the stream's seed.
    """
    self._source, self._partners, self._transform = source, partners, transform
    self._config, self._seed = config, seed
    self._mean = np.rint(255 * np.asarray(source.info.mean)).astype(np.uint8)

  def __call__(
    self, image: np.ndarray, box: np.ndarray, label: np.ndarray, *, position: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixes one example, or leaves it as it is.

    Args:
      image: u8[S, S, C], transformed.
      box: i32[4] = (y0, x0, y1, x1) of its content.
      label: f32[K].
      position: in the stream.

    Returns:
      The image, box and label. A mixed image is content throughout.
    """
    rng = np.random.default_rng([positions.MIX, self._seed, position])
    kind = choose(self._config, rng)
    if kind is Mix.NONE:
      return image, box, label
    other = self._source.example(int(self._partners[rng.integers(len(self._partners))]))
    # Differs from the reference: borders of a crop that is mixed have the mean colour rounded to
    # 8 bits; because one box cannot tell the borders of two images. They are within 0.01 of 0.
    image = fill_border(image, box, color=self._mean)
    weight = rng.beta(self._config.beta, self._config.beta)
    if kind is Mix.CUTMIX:
      second = transforms.uncropped(other['image'], rng, self._transform)
      image, share = cutmix(image, second, rng, ratio=1 - weight)
    else:
      second = fill_border(*transforms.train(other['image'], rng, self._transform), self._mean)
      image, share = mixup(image, second, weight=weight)
    whole = np.array([0, 0, *image.shape[:2]], np.int32)
    return image, whole, mix_labels(label, other['label'], share=share)


def choose(config: MixConfig, rng: np.random.Generator) -> Mix:
  """Draws what happens to an example: CUTMIX, MIXUP or NONE."""
  kind = config.kind
  if kind is Mix.CUT_OR_MIX:
    kind = Mix.CUTMIX if rng.random() < 0.5 else Mix.MIXUP
  if kind is Mix.CUTMIX and rng.random() >= config.cutmix_probability:
    return Mix.NONE
  if kind is Mix.MIXUP and rng.random() >= config.mixup_probability:
    return Mix.NONE
  return kind


def cutmix(
  image: np.ndarray, other: np.ndarray, rng: np.random.Generator, *, ratio: float
) -> tuple[np.ndarray, float]:
  """Pastes the middle of another image at a uniform place.

  Args:
    image: u8[S, S, C].
    other: u8[H, W, C], resized and not cropped.
    rng: draws the place.
    ratio: in [0, 1], the area of the rectangle to that of the image; a smaller `other` is pasted
      whole.

  Returns:
    A new u8[S, S, C], and the part of it that is still `image`.
  """
  size = image.shape[:2]
  sides = [min(int(n * ratio**0.5), m) for n, m in zip(size, other.shape[:2], strict=True)]
  cut = [slice((m - n) // 2, (m - n) // 2 + n) for n, m in zip(sides, other.shape[:2], strict=True)]
  first = [int(rng.integers(n - side, endpoint=True)) for n, side in zip(size, sides, strict=True)]
  place = [slice(at, at + side) for at, side in zip(first, sides, strict=True)]
  mixed = image.copy()
  mixed[tuple(place)] = other[tuple(cut)]
  return mixed, 1 - sides[0] * sides[1] / (size[0] * size[1])


def mixup(image: np.ndarray, other: np.ndarray, *, weight: float) -> tuple[np.ndarray, float]:
  """Averages two images u8[S, S, C] with weights `weight` and `1 - weight`.

  Returns:
    u8[S, S, C], rounded, and `weight`.
  """
  mean = np.float32(weight) * image + np.float32(1 - weight) * other
  return np.rint(mean).astype(np.uint8), weight


def mix_labels(label: np.ndarray, other: np.ndarray, *, share: float) -> np.ndarray:
  """`share * label + (1 - share) * other`, a new f32[K].

  Differs from the reference: no label is changed in place; because CutMix there scales the labels
  that its data set keeps, for all later epochs.
  """
  return (share * label + (1 - share) * other).astype(np.float32)


def fill_border(image: np.ndarray, box: np.ndarray, color: np.ndarray) -> np.ndarray:
  """A copy of u8[S, S, C] with `color` outside of its content's box."""
  y0, x0, y1, x1 = box
  filled = np.empty_like(image)
  filled[:] = color
  filled[y0:y1, x0:x1] = image[y0:y1, x0:x1]
  return filled
