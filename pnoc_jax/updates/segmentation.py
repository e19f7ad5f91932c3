"""The segmentation network's update: cross-entropy against label maps, pseudo or true."""

from collections.abc import Callable

import jax
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import states
from pnoc_jax.losses import segmentation
from pnoc_jax.types import Array, Batch, Key, Metrics, PyTree


def make_segmentation_update(
  model: nn.Module,
  tx: GradientTransformation,
  *,
  smoothing: float = 0.0,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> Callable[[states.TrainState, Batch, Key], tuple[states.TrainState, Metrics]]:
  """Makes the update of a segmentation network.

  Args:
    model: a network with the call of `nn.deeplab.DeepLab`.
    tx: its optimiser; with accumulation it averages.
    smoothing: label smoothing.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(state, batch, key) -> (state, metrics)` with `batch['image']` f32[B, H, W, C] normalised,
    `batch['target']` u8[B, H, W] labels or 255, and the key of the step's dropout.
  """

  def loss_fn(params, batch_stats, batch, key):
    logits, mutated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      batch['image'],
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    loss = segmentation.segmentation_loss(logits, batch['target'], smoothing=smoothing)
    return loss, mutated.get('batch_stats', batch_stats)

  def update(state: states.TrainState, batch: Batch, key: Key) -> tuple[states.TrainState, Metrics]:
    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, state.batch_stats, batch, key
    )
    state = states.apply_gradients(state, grads, batch_stats, tx, update_ema=update_ema)
    return state, {'loss/total': loss}

  return update
