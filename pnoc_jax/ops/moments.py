"""Sums maps, and normalises them by what was summed, in few passes over the memory.

XLA's compiler for GPUs writes a map out where several of its kernels need it, and reads a wide one
twice for two sums. So GPUs have forms of their own here, which move fewer bytes as it compiles them
(`docs/performance.md`); CPUs and TPUs take the plain ones, with automatic differentiation.
"""

import enum

import jax
import jax.numpy as jnp

from pnoc_jax import platforms
from pnoc_jax.types import Array

_PIXELS = (0, 1, 2)


class Act(enum.Enum):
  """What follows a normalisation.

  Attributes:
    NONE: nothing.
    RELU: negative numbers become 0.
    RELU6: the same, and those above 6 become 6.
  """

  NONE = 'none'
  RELU = 'relu'
  RELU6 = 'relu6'


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


def sums_by_image(x: Array) -> Array:
  """Returns the sums f32[B, C] over the pixels of maps f32[B, H, W, C]."""
  if platforms.kind() != 'gpu':
    return jnp.sum(x, axis=(1, 2))
  # By rows first: one sum over all pixels has so few results that XLA's GPU compiler writes out
  # what is summed, so that more of its threads compute that.
  return jnp.sum(jax.lax.optimization_barrier(jnp.sum(x, axis=2)), axis=1)


def normalise(
  x: Array, mean: Array, inverse: Array, scale: Array, bias: Array, act: Act, dtype: jnp.dtype
) -> Array:
  """Normalises a map in float32.

  Args:
    x: f[B, H, W, C].
    mean: f32[C].
    inverse: f32[C], 1 / the standard deviation.
    scale: f32[C].
    bias: f32[C].
    act: what is done to the result.
    dtype: of the result.

  Returns:
    [B, H, W, C].
  """
  y = ((x.astype(jnp.float32) - mean) * (scale * inverse) + bias).astype(dtype)
  if act is Act.RELU6:
    return jnp.clip(y, 0.0, 6.0)
  return jax.nn.relu(y) if act is Act.RELU else y


def normalise_batch(
  x: Array, mean: Array, inverse: Array, scale: Array, bias: Array, act: Act, dtype: jnp.dtype
) -> Array:
  """As `normalise`, where `mean` and `inverse` are those of x over its first three axes.

  On GPUs these two get no gradients: that of x holds what reaches it by way of them.
  """
  form = _normalise_own if platforms.kind() == 'gpu' else normalise
  return form(x, mean, inverse, scale, bias, act, dtype)


_normalise_own = jax.custom_vjp(normalise, nondiff_argnums=(5, 6))

_Kept = tuple[Array, Array, Array, Array, Array]


def _normalise_forward(
  x: Array, mean: Array, inverse: Array, scale: Array, bias: Array, act: Act, dtype: jnp.dtype
) -> tuple[Array, _Kept]:
  y = normalise(x, mean, inverse, scale, bias, act, dtype)
  return y, (x, mean, inverse, scale, bias)


def _normalise_backward(
  act: Act, dtype: jnp.dtype, kept: _Kept, grad: Array
) -> tuple[Array, Array, Array, Array, Array]:
  """The two sums of the formula, then the gradient: two passes over the map and what came back."""
  del dtype
  x, mean, inverse, scale, bias = kept
  centred = x.astype(jnp.float32) - mean
  grad = grad.astype(jnp.float32)
  if act is not Act.NONE:
    # Multiplied by 1 or 0: what a comparison decides would be written out.
    y = centred * (scale * inverse) + bias
    grad = grad * jnp.sign(jnp.maximum(y * (6.0 - y) if act is Act.RELU6 else y, 0.0))
  count = x.size / x.shape[-1]
  total = jnp.sum(grad, axis=_PIXELS)
  along = jnp.sum(grad * centred, axis=_PIXELS)
  change = grad - total / count - centred * (along * jnp.square(inverse) / count)
  none = jnp.zeros_like(mean)
  return (change * (scale * inverse)).astype(x.dtype), none, none, along * inverse, total


_normalise_own.defvjp(_normalise_forward, _normalise_backward)
