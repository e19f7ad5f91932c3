"""Schedules, functions of the step: ramps for loss coefficients, decays for learning rates."""

from collections.abc import Callable

import jax.numpy as jnp

from pnoc_jax import types

Schedule = Callable[[int | types.Array], types.Array]


def constant(value: float) -> Schedule:
  """Returns the schedule that is always `value`."""
  return lambda step: jnp.full(jnp.shape(step), value, jnp.float32)


def ramp(start: float, end: float, total: int, portion: float = 1.0) -> Schedule:
  """Goes linearly from `start` to `end`, then stays: lambda_re, lambda_cse and lambda_noc.

  The reference counts micro-steps here, not optimiser steps.

  Args:
    start: Value at step 0.
    end: Value from step `portion * total` on.
    total: Number of (micro-)steps of the run.
    portion: The part of the run that the ramp takes; 0 gives `end` from the first step on.

  Returns:
    A function from a step (int or i32[]) to f32[].
  """
  if total <= 0 or portion < 0:
    raise ValueError(f'total is {total} and portion {portion}, expected total > 0, portion >= 0')
  if portion == 0:
    return constant(end)

  # Differs from the reference: a ramp may decrease; because its min(value, end) is the end from the
  # first step on where start > end.
  def schedule(step: int | types.Array) -> types.Array:
    fraction = jnp.clip(jnp.asarray(step, jnp.float32) / (total * portion), 0.0, 1.0)
    return start + (end - start) * fraction

  return schedule


def polynomial(peak: float, total: int, power: float = 0.9, warmup: int = 0) -> Schedule:
  """Decays as `peak * (1 - step / total) ** power`, and is 0 from `total` on.

  Args:
    peak: Value at step 0 (without warm-up).
    total: Number of optimiser steps of the run.
    power: 0.9 is the reference's; 1 is the linear decay of the paper's text.
    warmup: The first `warmup` steps are multiplied by `(step + 1) / warmup`, on top of the decay.

  Returns:
    A function from an optimiser step (int or i32[]) to f32[].
  """
  if total <= 0 or warmup < 0:
    raise ValueError(f'total is {total} and warmup {warmup}, expected total > 0, warmup >= 0')

  # Differs from the reference: the rate is 0 after the last step; because there it keeps its last
  # value, which no training should use.
  def schedule(step: int | types.Array) -> types.Array:
    step = jnp.asarray(step, jnp.float32)
    decay = jnp.clip(1.0 - step / total, 0.0, 1.0) ** power
    return peak * decay * jnp.minimum((step + 1.0) / max(warmup, 1), 1.0)

  return schedule


def product(first: Schedule, second: Schedule) -> Schedule:
  """Returns the product of two schedules, e.g. a learning rate times the ramp of lambda_noc."""
  return lambda step: first(step) * second(step)
