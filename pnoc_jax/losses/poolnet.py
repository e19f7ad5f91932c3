"""The loss of the saliency network: cross-entropy with a mask or map, summed over each image."""

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types


def saliency_loss(
  logits: types.Array, target: types.Array, *, valid: types.Array | None = None
) -> types.Array:
  """Returns the binary cross-entropy, summed over pixels, mean over images.

  The sum makes large images count more than small ones, as PoolNet's released code does with its
  batches of one image.

  Args:
    logits: f[B, H, W].
    target: f32[B, H, W], probabilities in [0, 1].
    valid: bool[B, H, W], the pixels that are image; None: all.

  Returns:
    f32[].
  """
  chex.assert_rank(logits, 3)
  chex.assert_equal_shape([logits, target])
  z = logits.astype(jnp.float32)
  losses = -target * jax.nn.log_sigmoid(z) - (1.0 - target) * jax.nn.log_sigmoid(-z)
  if valid is not None:
    chex.assert_equal_shape([logits, valid])
    losses = jnp.where(valid, losses, 0.0)
  return losses.sum() / len(losses)
