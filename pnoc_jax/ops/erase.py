"""Erases from an image what a class activation map shows: softly for f, hard for the noc."""

import enum
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops import resize


class Over(enum.Enum):
  """Over what the maximum that normalises a mask is taken.

  Attributes:
    IMAGE: each image.
    BATCH: the whole (global) batch.
  """

  IMAGE = 'image'
  BATCH = 'batch'


def class_mask(
  cam: types.Array,
  picked: types.Array,
  *,
  size: Sequence[int],
  over: Over = Over.BATCH,
  eps: float = 1e-5,
) -> types.Array:
  """Returns the map of the picked class as a mask of the image: `psi(A^r)` of Eq. 2 and Eq. 3.

  The map is rectified, enlarged, and divided by its maximum. As in the reference, the soft mask
  takes the maximum over the whole (global) batch and the hard one over each image, and gradients
  flow into `cam`, also through the maximum.

  Args:
    cam: [B, h, w, K], raw.
    picked: f32[B, K], one-hot; an all-0 row gives an all-0 mask.
    size: (H, W) of the image.
    over: Where the maximum is taken.
    eps: Of the denominator.

  Returns:
    f32[B, H, W, 1], in [0, 1).
  """
  chex.assert_rank([cam, picked], [4, 2])
  chex.assert_shape(picked, (cam.shape[0], cam.shape[3]))
  # A sum of products with 0 and 1. A matrix product might round the map to bfloat16.
  one = (cam.astype(jnp.float32) * picked[:, None, None, :]).sum(-1, keepdims=True)
  # As the reference: rectify, then enlarge (OC-CSE's own code does it the other way round).
  mask = resize.bilinear(jax.nn.relu(one), size)
  match over:
    case Over.IMAGE:
      largest = mask.max((1, 2, 3), keepdims=True)
    case Over.BATCH:
      largest = mask.max()
  return mask / (largest + eps)


def erase_soft(image: types.Array, mask: types.Array) -> types.Array:
  """Fades the image to 0, the mean colour: `x * (1 - psi)` (Eq. 2).

  Args:
    image: f32[B, H, W, C], normalised.
    mask: f32[B, H, W, 1], in [0, 1].

  Returns:
    f32[B, H, W, C].
  """
  chex.assert_shape(mask, (*image.shape[:3], 1))
  return image * (1.0 - mask)


def erase_hard(image: types.Array, mask: types.Array, *, threshold: float = 0.2) -> types.Array:
  """Keeps the pixels whose mask is at most the threshold, and sets the others to 0 (Eq. 3).

  This is what the reference computes. Read literally, Eq. 3 says `1 - psi > delta`, which would
  keep masks below 0.8. The comparison has no gradient, so none reaches `mask`.

  Args:
    image: f32[B, H, W, C], normalised.
    mask: f32[B, H, W, 1], in [0, 1].
    threshold: delta of the paper.

  Returns:
    f32[B, H, W, C].
  """
  chex.assert_shape(mask, (*image.shape[:3], 1))
  return image * (mask <= threshold)
