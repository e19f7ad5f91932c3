"""An exponential moving average of parameters, for evaluation."""

import jax
import jax.numpy as jnp

from pnoc_jax import types


def init(params: types.PyTree) -> types.PyTree:
  """Returns the average before the first update: a copy, as the parameters may be donated."""
  return jax.tree.map(lambda p: jnp.array(p, copy=True), params)


def update(
  ema: types.PyTree, params: types.PyTree, decay: float, step: int | types.Array
) -> types.PyTree:
  """Returns `d * ema + (1 - d) * params` with `d = min(decay, (1 + step) / (10 + step))`.

  The second term of the minimum lets the average leave its initial value quickly.

  Differs from the reference: the moving average is a tree of its own; because there it shares the
  memory of the parameters, so that it equals them.

  Args:
    ema: The average so far.
    params: The parameters after this step; same structure.
    decay: In [0, 1]; the largest weight of the past.
    step: Number of updates made before this one (int or i32[]).

  Returns:
    The new average, in the dtypes of `ema`.
  """
  step = jnp.asarray(step, jnp.float32)
  weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

  def average(old: types.Array, new: types.Array) -> types.Array:
    # In the form old + (1 - d) * (new - old), which is exact where the two agree.
    mean = old + (1.0 - weight) * (new.astype(jnp.float32) - old)
    return mean.astype(old.dtype)

  return jax.tree.map(average, ema, params)
