"""A training small enough to follow by hand: a quadratic bowl whose centre moves with the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from pnoc_jax.parallel import arrays, compile
from pnoc_jax.parallel.compile import BATCH, REPLICATED

TX = optax.sgd(0.1, momentum=0.9)


@struct.dataclass
class State:
  """The arrays of the training."""

  params: dict
  opt_state: optax.OptState


def init() -> State:
  """Returns the state of step 0."""
  params = {'w': np.ones((4,), np.float32), 'half': np.ones((2,), jnp.bfloat16)}
  return State(params, TX.init(params))


def make_update(mesh):
  """Returns the compiled update."""

  def update(state, batch, step):
    def loss_fn(params):
      loss = jnp.mean((params['w'] - batch['x']) ** 2)
      return loss + jnp.mean(params['half'].astype(jnp.float32) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = TX.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state), {'loss/total': loss, 'schedule/step': step}

  return compile.jit(update, mesh, ins=(REPLICATED, BATCH, REPLICATED), donate=(0,))


def batches(mesh, start_step=0, *, size=8, poison_at=None, process_index=0, process_count=1):
  """Yields global batches; that of update `poison_at` (from 0) holds a NaN."""
  local = size // process_count
  step = start_step
  while True:
    index = np.arange(size, dtype=np.int32) + step * size
    x = np.random.default_rng(step).normal(size=(size, 4)).astype(np.float32)
    if step == poison_at:
      x[3] = np.nan
    rows = slice(process_index * local, (process_index + 1) * local)
    yield arrays.to_global({'x': x[rows], 'index': index[rows]}, mesh)
    step += 1
