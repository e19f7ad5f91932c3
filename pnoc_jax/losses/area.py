"""The area of maps: a price on maps that spread over the background."""

import chex
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops import cam as cam_ops


def area_loss(cam: types.Array, label: types.Array) -> types.Array:
  """Returns the mean area of the present classes' maps, each divided by its own maximum.

  It is not of the paper: there nothing but the classification keeps a mask from growing once what
  it covers is erased. Scores are means of maps, so a map may become smaller where it is weak
  without its score falling.

  Args:
    cam: [B, h, w, K], raw maps.
    label: f32[B, K], multi-hot, not smoothed.

  Returns:
    f32[], in [0, 1): the mean over all classes of all images; 0 where no image has one.
  """
  chex.assert_rank([cam, label], [4, 2])
  chex.assert_equal_shape([cam[:, 0, 0], label])
  area = cam_ops.normalize_max(cam, axis=(1, 2)).mean((1, 2))
  return (area * label).sum() / jnp.maximum(label.sum(), 1.0)
