"""The state of a training run: arrays, and nothing else."""

import dataclasses
from collections.abc import Callable

import chex
import flax.struct
import jax.numpy as jnp
import optax
from flax import linen as nn

from pnoc_jax.ops import label_split
from pnoc_jax.optim import ema as ema_lib
from pnoc_jax.types import Array, Key, PyTree, Variables


@flax.struct.dataclass
class TrainState:
  """One network in training.

  Attributes:
    step: i32[], micro-steps taken so far.
    params: the parameters, float32.
    batch_stats: running statistics of the normalisation layers, float32.
    opt_state: the optimiser's state.
    ema: exponential moving average of `params`, or None when none is kept.
  """

  step: Array
  params: PyTree
  batch_stats: PyTree
  opt_state: PyTree
  ema: PyTree | None = None

  @property
  def variables(self) -> Variables:
    """The network's variables as `model.apply` takes them."""
    return {'params': self.params, 'batch_stats': self.batch_stats}

  @property
  def eval_variables(self) -> Variables:
    """The variables to infer with: the moving average where one is kept."""
    params = self.params if self.ema is None else self.ema
    return {'params': params, 'batch_stats': self.batch_stats}


@flax.struct.dataclass
class PnocState:
  """The states of the generator and of what is trained with it.

  Attributes:
    generator: the network whose class activation maps are wanted.
    noc: the not-so-ordinary classifier, or None where it does not train.
    split: counters of the class-split strategy, or None where nothing is erased.
    leak: gradients of the generator's loss with respect to the noc, summed since the noc's last
      update; None unless the reference's leak is reproduced.
  """

  generator: TrainState
  noc: TrainState | None = None
  split: label_split.LabelSplitState | None = None
  leak: PyTree | None = None


def init_variables(model: nn.Module, key: Key, image_shape: tuple[int, int, int]) -> Variables:
  """Draws a network's variables for images of shape `[H, W, C]`."""
  variables = model.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False)
  return {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}


def init_state(
  variables: Variables, tx: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
  """Makes the state of step 0 around `variables`; the average starts as a copy of the params."""
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables['batch_stats'],
    opt_state=tx.init(params),
    ema=ema_lib.init(params) if ema else None,
  )


def apply_gradients(
  state: TrainState,
  grads: PyTree,
  batch_stats: PyTree,
  tx: optax.GradientTransformation,
  *,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> TrainState:
  """Takes one micro-step.

  Args:
    state: the state before the step.
    grads: gradients, a tree like `state.params`.
    batch_stats: the running statistics after the step's forward passes.
    tx: the optimiser that made `state.opt_state`.
    update_ema: `(ema, params, step) -> ema`, called with the new params where an average is kept.

  Returns:
    The state after the step.
  """
  chex.assert_trees_all_equal_structs(grads, state.params)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  average = state.ema
  if average is not None and update_ema is not None:
    average = update_ema(average, params, state.step)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    ema=average,
  )
