"""Sums a map and its squares in one pass over the memory, whatever compiles it."""

import jax
import jax.numpy as jnp

from pnoc_jax import platforms
from pnoc_jax.types import Array

_PIXELS = (0, 1, 2)


def sums(x: Array) -> tuple[Array, Array]:
  """Returns the sums f32[C] of a map f32[B, H, W, C] and of its squares."""
  return _at_once(x) if platforms.kind() == 'gpu' else _plain(x)


def _plain(x: Array) -> tuple[Array, Array]:
  """Takes two reductions, which the compilers of CPUs and TPUs join."""
  return jnp.sum(x, axis=_PIXELS), jnp.sum(jnp.square(x), axis=_PIXELS)


@jax.custom_jvp
def _at_once(x: Array) -> tuple[Array, Array]:
  """Takes one reduction of pairs: XLA's GPU compiler reads a wide map twice for two reductions."""
  zero = jnp.zeros((), jnp.float32)

  def add(a, b):
    return a[0] + b[0], a[1] + b[1]

  # Each image by itself: for a reduction of pairs over images, devices would gather them.
  total, squares = jax.lax.reduce((x, jnp.square(x)), (zero, zero), add, (1, 2))
  return jnp.sum(total, axis=0), jnp.sum(squares, axis=0)


@_at_once.defjvp
def _at_once_jvp(primals, tangents):
  """The derivatives of the plain form."""
  (x,), (change,) = primals, tangents
  derivatives = jnp.sum(change, axis=_PIXELS), jnp.sum(change * (2.0 * x), axis=_PIXELS)
  return _at_once(x), derivatives
