"""How rare classes count more: by showing their images more often, or by weights of the loss."""

import enum

import numpy as np


class Sampling(enum.Enum):
  """Which images an epoch shows."""

  UNIFORM = 'uniform'
  """Each at most once, in random order."""
  BALANCED = 'balanced'
  """As many, drawn with replacement, images of rare classes more often: `example_weights`."""


class ClassWeight(enum.Enum):
  """Factors of the classes' terms in the classification loss."""

  NONE = 'none'
  BALANCED = 'balanced'
  """`class_weights` of the training images' labels."""


def example_weights(labels: np.ndarray, *, largest: float = 10.0) -> np.ndarray:
  """Weights of the images in a balanced draw: `min(max over classes c of it f_max / f_c, largest)`.

  f_c is the number of images that show class c, f_max the largest of these (the reference's
  balanced sampler).

  Args:
    labels: f32[N, K], multi-hot.
    largest: bound of the weights.

  Returns:
    f64[N]; 0 for an image without a class.
  """
  rarity = np.minimum(_rarity(labels), largest)
  return np.max((labels > 0.5) * rarity, axis=1, initial=0.0)


def class_weights(labels: np.ndarray, *, largest: float = 10.0) -> np.ndarray:
  """Weights of the classes in the loss: `w_c = r_c / mean(r)`, `r_c = min(f_max / f_c, largest)`.

  Their mean is 1, so that the loss keeps its scale. The reference takes any weights and comes with
  none; these are those of its sampler.

  Args:
    labels: f32[N, K], multi-hot.
    largest: bound of r_c; classes that no image shows have it.

  Returns:
    f32[K].
  """
  rarity = np.minimum(_rarity(labels), largest)
  return (rarity / rarity.mean()).astype(np.float32)


def _rarity(labels):
  """f64[K]: f_max / f_c, where a class that no image shows counts as one image."""
  number = np.maximum((labels > 0.5).sum(axis=0), 1)
  return number.max() / number
