"""The loss of the saliency network: cross-entropy with a mask or map, summed over each image."""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax import types
from pnoc_jax.losses import forward


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


def network_loss(
  params: types.PyTree,
  batch_stats: types.PyTree,
  batch: types.Batch,
  key: types.Key | None = None,
  *,
  model: nn.Module,
) -> tuple[types.Array, tuple[types.PyTree, types.Metrics]]:
  """PoolNet's loss.

  Args:
    params: of the network.
    batch_stats: its running statistics.
    batch: `image` f32[B, H, W, C] normalised, `target` f32[B, H, W] in [0, 1] and, where images are
      padded, `valid` bool[B, H, W], rectangles at the top left.
    key: not used; nothing is drawn.
    model: a network with the call and the result of `nn.poolnet.PoolNet`.

  Returns:
    The loss f32[]; the new running statistics and the loss of a pixel, `loss/pixel`.
  """
  del key
  valid = batch.get('valid')
  logits, batch_stats = forward.train(model, params, batch_stats, batch['image'], valid)
  loss = saliency_loss(logits, batch['target'], valid=valid)
  pixels = jnp.asarray(logits.size) if valid is None else valid.sum()
  return loss, (batch_stats, {'loss/pixel': loss * len(logits) / jnp.maximum(pixels, 1)})
