"""The update of C2AM and C2AM-H: foreground and background part, and hints say which is which."""

from collections.abc import Callable

import jax
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import states
from pnoc_jax.losses import c2am as c2am_loss
from pnoc_jax.ops import resize
from pnoc_jax.types import Array, Batch, Metrics, PyTree
from pnoc_jax.updates import classifier


def make_c2am_update(
  model: nn.Module,
  tx: GradientTransformation,
  *,
  alpha: float = 0.25,
  w_hint: float = 1.0,
  threshold: float = 0.4,
  smoothing: float = 0.1,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> Callable[[states.TrainState, Batch], tuple[states.TrainState, Metrics]]:
  """Makes the update of C2AM, and of C2AM-H where the batch has hints (Eq. 5).

  Pairs are those of the whole batch, on however many devices it lies.

  Args:
    model: a network with the call and the result of `nn.c2am.C2AM`.
    tx: its optimiser.
    alpha: how fast less similar pairs lose weight.
    w_hint: lambda_h, the weight of the hint loss.
    threshold: delta_fg; cells whose hint reaches it are foreground.
    smoothing: label smoothing of the hinted cells' target.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(state, batch) -> (state, metrics)` with `batch['image']` f32[B, H, W, C] normalised and, for
    C2AM-H, `batch['hint']` f32[B, H, W, 1] in [0, 1].
  """

  def loss_fn(params, batch_stats, batch):
    found, batch_stats = classifier.train_forward(model, params, batch_stats, batch['image'])
    loss, metrics = c2am_loss.c2am_loss(found.foreground, found.background, alpha=alpha)
    metrics['share/foreground'] = jax.nn.sigmoid(found.logits).mean()
    if 'hint' in batch:
      hint = on_grid(batch['hint'], found.logits)
      metrics['loss/hint'] = c2am_loss.hint_loss(
        found.logits, hint, threshold=threshold, smoothing=smoothing
      )
      metrics['share/hinted'] = (hint >= threshold).mean()
      loss = loss + w_hint * metrics['loss/hint']
    return loss, (batch_stats, metrics)

  def update(state: states.TrainState, batch: Batch) -> tuple[states.TrainState, Metrics]:
    (loss, (batch_stats, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, state.batch_stats, batch
    )
    state = states.apply_gradients(state, grads, batch_stats, tx, update_ema=update_ema)
    return state, {'loss/total': loss, **metrics}

  return update


def on_grid(hint: Array, logits: Array) -> Array:
  """Hints f32[B, H, W, 1] on the grid of the logits [B, h, w, 1]: bicubic, not antialiased."""
  return resize.bicubic(hint, logits.shape[1:3])
