"""The saliency network's update: maps learnt from masks, at the images' own sizes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import states
from pnoc_jax.losses import poolnet as saliency
from pnoc_jax.types import Array, Batch, Metrics, PyTree


def make_saliency_update(
  model: nn.Module,
  tx: GradientTransformation,
  *,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> Callable[[states.TrainState, Batch], tuple[states.TrainState, Metrics]]:
  """Makes PoolNet's update.

  Args:
    model: a network with the call and the result of `nn.saliency_net.PoolNet`.
    tx: its optimiser.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(state, batch) -> (state, metrics)` with `batch['image']` f32[B, H, W, C] normalised,
    `batch['target']` f32[B, H, W] in [0, 1] and, where images are padded, `batch['valid']`
    bool[B, H, W], rectangles at the top left.
  """

  def loss_fn(params, batch_stats, batch):
    valid = batch.get('valid')
    logits, mutated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      batch['image'],
      valid,
      train=True,
      mutable=['batch_stats'],
    )
    loss = saliency.saliency_loss(logits, batch['target'], valid=valid)
    pixels = jnp.asarray(logits.size) if valid is None else valid.sum()
    metrics = {'loss/total': loss, 'loss/pixel': loss * len(logits) / jnp.maximum(pixels, 1)}
    return loss, (mutated.get('batch_stats', batch_stats), metrics)

  def update(state: states.TrainState, batch: Batch) -> tuple[states.TrainState, Metrics]:
    (_, (batch_stats, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, state.batch_stats, batch
    )
    state = states.apply_gradients(state, grads, batch_stats, tx, update_ema=update_ema)
    return state, metrics

  return update
