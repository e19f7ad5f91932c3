"""The update of a network that trains alone: one optimiser step down one loss."""

from collections.abc import Callable

import jax
from optax import GradientTransformation

from pnoc_jax import states
from pnoc_jax.types import Array, Batch, Key, Metrics, PyTree

# (params, batch_stats, batch, key) -> loss f32[], (new batch_stats, metrics).
Loss = Callable[[PyTree, PyTree, Batch, Key | None], tuple[Array, tuple[PyTree, Metrics]]]
Update = Callable[[states.TrainState, Batch, Key | None], tuple[states.TrainState, Metrics]]
# (average, params, step) -> average.
UpdateEma = Callable[[PyTree, PyTree, Array], PyTree]


def make_update(
  loss: Loss, tx: GradientTransformation, *, update_ema: UpdateEma | None = None
) -> Update:
  """Makes the update of a network.

  Args:
    loss: of `losses`, its options bound: `functools.partial(poolnet.network_loss, model=model)`.
    tx: the optimiser.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(state, batch, key) -> (state, metrics)`, pure; the key is that of the step's draws, or None
    for a loss that draws nothing. The metrics are the loss's own and `loss/total`.
  """

  def update(
    state: states.TrainState, batch: Batch, key: Key | None = None
  ) -> tuple[states.TrainState, Metrics]:
    (total, (batch_stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
      state.params, state.batch_stats, batch, key
    )
    state = states.apply_gradients(state, grads, batch_stats, tx, update_ema=update_ema)
    return state, {'loss/total': total, **metrics}

  return update
