"""Computes depthwise convolutions, which convolve every channel by itself.

XLA's form of them, a convolution with one feature group a channel, is slow on CPUs. There they are
a sum over the kernel's taps: a shifted image times the tap's values.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from pnoc_jax import platforms
from pnoc_jax.ops import convolution
from pnoc_jax.types import Array


def convolve(
  x: Array,
  kernel: Array,
  window: convolution.Window,
  *,
  radix: convolution.Radix = convolution.Radix.AUTO,
) -> Array:
  """Convolves every channel by itself.

  Args:
    x: f[B, H, W, C].
    kernel: f32[k, k, 1, C], of odd k.
    window: how it moves; its groups are C.
    radix: GROUPED, or SPLIT into the sum over the taps; AUTO is SPLIT on CPUs, on GPUs where the
      kernel is dilated (grouped, that took 1.7 to 3.6 times as long), and GROUPED elsewhere.

  Returns:
    f[B, h, w, C], in the type of x.
  """
  Radix = convolution.Radix
  if radix is Radix.BY_PLATFORM:
    grouped = functools.partial(_grouped, window=window)
    split = functools.partial(_split, window=window)
    return jax.lax.platform_dependent(x, kernel, cpu=split, default=grouped)
  is_split = radix is Radix.SPLIT
  if radix is Radix.AUTO:
    kind = platforms.kind()
    is_split = kind == 'cpu' or (kind == 'gpu' and window.dilation > 1)
  return _split(x, kernel, window) if is_split else _grouped(x, kernel, window)


def _grouped(x: Array, kernel: Array, window: convolution.Window) -> Array:
  window = window._replace(groups=x.shape[-1])
  return convolution.convolve(x, kernel, window, radix=convolution.Radix.GROUPED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _split(x: Array, kernel: Array, window: convolution.Window) -> Array:
  pad = window.padding(kernel.shape[0])
  return _sum_taps(_pad(x, (pad, pad, 0), (pad, pad, 0)), kernel, window)


def _split_forward(
  x: Array, kernel: Array, window: convolution.Window
) -> tuple[Array, tuple[Array, Array]]:
  return _split(x, kernel, window), (x, kernel)


def _split_backward(
  window: convolution.Window, kept: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
  x, kernel = kept
  pad = window.padding(kernel.shape[0])
  # The gradient of the image is a convolution too, of stride 1 with the reversed kernel. Between
  # the rows of the gradients are those that the stride skipped.
  step, reach = window.stride, window.dilation * (kernel.shape[0] - 1)
  high, wide = (
    (reach - pad, rows - 1 - (count - 1) * step + pad, step - 1)
    for rows, count in zip(x.shape[1:3], grad.shape[1:3], strict=True)
  )
  plain = window._replace(stride=1)
  for_image = _sum_taps(_pad(grad, high, wide), kernel[::-1, ::-1], plain)
  padded = _pad(x, (pad, pad, 0), (pad, pad, 0))
  return for_image, _kernel_gradient(padded, grad, kernel.shape, window)


_split.defvjp(_split_forward, _split_backward)


def _pad(x: Array, high: tuple[int, int, int], wide: tuple[int, int, int]) -> Array:
  """Pads rows and columns of x [B, H, W, C]: before, after, between."""
  padded = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), high, wide, (0, 0, 0)))
  # Without the barrier, XLA computes the padded image anew for every tap.
  return jax.lax.optimization_barrier(padded)


def _sum_taps(padded: Array, kernel: Array, window: convolution.Window) -> Array:
  """Returns the sum over the taps of the shifted image times the tap's values, by channel."""
  size = kernel.shape[0]
  reach = window.dilation * (size - 1)
  shape = tuple((rows - reach - 1) // window.stride + 1 for rows in padded.shape[1:3])
  total = jnp.zeros((), jnp.float32)
  for (i, j), tap in _taps(padded, size, shape, window):
    total = total + tap.astype(jnp.float32) * kernel[i, j, 0]
  return total.astype(padded.dtype)


def _taps(
  padded: Array, size: int, shape: tuple[int, ...], window: convolution.Window
) -> Iterator[tuple[tuple[int, int], Array]]:
  """Yields the position of every tap and what it sees of the image, [B, *shape, C]."""
  step = window.stride
  (height, width), (batch, _, _, channels) = shape, padded.shape
  for i in range(size):
    for j in range(size):
      top, left = i * window.dilation, j * window.dilation
      end = batch, top + (height - 1) * step + 1, left + (width - 1) * step + 1, channels
      yield (i, j), jax.lax.slice(padded, (0, top, left, 0), end, (1, step, step, 1))


def _kernel_gradient(
  padded: Array, grad: Array, shape: tuple[int, ...], window: convolution.Window
) -> Array:
  """Returns the gradient f32[k, k, 1, C] of the kernel: of each tap, the sum over all it saw."""
  weight = grad.astype(jnp.float32)
  taps = _taps(padded, shape[0], grad.shape[1:3], window)
  seen = [tap.astype(jnp.float32) * weight for _, tap in taps]
  # One reduction of all taps, image by image: an image stays in the cache for all of them, where a
  # reduction of each tap reads all images anew and takes four times as long.
  zeros = [jnp.zeros((), jnp.float32)] * len(seen)
  sums = jax.lax.reduce(seen, zeros, _add_all, (1, 2))
  return jnp.stack([by_image.sum(0) for by_image in sums]).reshape(shape)


def _add_all(a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
  return [x + y for x, y in zip(a, b, strict=True)]
