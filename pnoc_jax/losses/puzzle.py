"""The losses of Puzzle-CAM: the maps of an image and of its tiles shall agree."""

import enum

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops import cam as cam_ops


class Level(enum.Enum):
  """Which maps are compared.

  Attributes:
    FEATURE: raw maps.
    CAM: rectified maps, each divided by its maximum.
  """

  FEATURE = 'feature'
  CAM = 'cam'


class Distance(enum.Enum):
  """How a difference counts.

  Attributes:
    L1: its absolute value.
    L2: its square.
  """

  L1 = 'l1'
  L2 = 'l2'


class Selection(enum.Enum):
  """Which classes count.

  Attributes:
    MASK: the present ones. The mean still divides by the number of all classes, so that an image
      with more classes weighs more.
    SELECTION: the mean over the present ones, image by image.
    NONE: all.
  """

  MASK = 'mask'
  SELECTION = 'selection'
  NONE = 'none'


def reconstruction_loss(
  cam: types.Array,
  cam_re: types.Array,
  label: types.Array,
  *,
  level: Level = Level.FEATURE,
  distance: Distance = Distance.L1,
  selection: Selection = Selection.MASK,
) -> types.Array:
  """Returns how far the maps of the tiles are from those of the image: `L_re` of Eq. 1.

  As the reference, the defaults average `|A - A_re| * y_c` over all B * h * w * K numbers, the
  zeros of absent classes included; the label in Eq. 1 is left out there.

  Args:
    cam: [B, h, w, K], raw maps of the images.
    cam_re: [B, h, w, K], raw maps of the tiles, merged.
    label: f32[B, K], multi-hot, not smoothed.
    level: What is compared.
    distance: How a difference counts.
    selection: Which classes count.

  Returns:
    f32[].
  """
  chex.assert_rank([cam, label], [4, 2])
  chex.assert_equal_shape([cam, cam_re])
  chex.assert_shape(label, (cam.shape[0], cam.shape[3]))
  cam, cam_re = cam.astype(jnp.float32), cam_re.astype(jnp.float32)
  if level is Level.CAM:
    cam, cam_re = (cam_ops.normalize_max(x, axis=(1, 2)) for x in (cam, cam_re))
  difference = cam - cam_re
  apart = jnp.abs(difference) if distance is Distance.L1 else difference**2
  by_class = apart.mean((1, 2))
  match selection:
    case Selection.MASK:
      return (by_class * label).mean()
    case Selection.SELECTION:
      # Differs from the reference: with `selection`, an image without a class counts 0; because
      # there it is NaN.
      return ((by_class * label).sum(1) / jnp.maximum(label.sum(1), 1.0)).mean()
    case Selection.NONE:
      return by_class.mean()


def confidence_loss(logits: types.Array, *, eps: float = 1e-5) -> types.Array:
  """Returns the mean over tiles of `-sum_c s(z) log(s(z) + eps)`: small if tiles are sure.

  Args:
    logits: [pieces * B, K], of the tiles.
    eps: Inside the logarithm.

  Returns:
    f32[].
  """
  chex.assert_rank(logits, 2)
  p = jax.nn.sigmoid(logits.astype(jnp.float32))
  return -(p * jnp.log(p + eps)).sum(1).mean()
