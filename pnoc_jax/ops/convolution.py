"""Computes convolutions and products with kernels in float32, in the arithmetic of the images.

In a lower precision they have gradients of their own. These differ from those of automatic
differentiation in one point: that of the kernel leaves its product in float32, so that devices add
up their parts in float32. In bfloat16 the sum over 64 devices is off by 1 %. One GPU adds nothing
up, and its library takes the operands in the type of the result: there the gradient of a
convolution leaves the product in the lower precision, as in PyTorch, in half the bytes. A kernel's
function `_x` has its gradients in `_x_backward`.
"""

import enum
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pnoc_jax import platforms
from pnoc_jax.types import Array


class Radix(enum.Enum):
  """How a convolution in groups is computed; its kernel is the same in every form.

  Of depthwise convolutions, `ops.depthwise` says what these forms are and which is AUTO.

  Attributes:
    AUTO: GROUPED on TPUs and SPLIT elsewhere, by `platforms.kind`.
    GROUPED: one convolution with feature groups. On CPUs and GPUs the compiler cannot split its
      batch over devices: it gathers the whole batch on each of them.
    SPLIT: an ordinary convolution for each group, and the concatenation of the results. On TPUs it
      moves more bytes than GROUPED.
    BY_PLATFORM: as AUTO, but by the devices that the program is lowered for, which may be several
      kinds at once: for programs that are exported. It is not meant for gradients.
  """

  AUTO = 'auto'
  GROUPED = 'grouped'
  SPLIT = 'split'
  BY_PLATFORM = 'by_platform'


class Window(NamedTuple):
  """How a kernel moves over an image.

  Attributes:
    stride: step in both directions.
    dilation: distance of neighbouring taps.
    groups: feature groups, in PyTorch's order (group-major).
    pad: zeros at each side of the image; None stands for PyTorch's `dilation * (k // 2)`.
  """

  stride: int = 1
  dilation: int = 1
  groups: int = 1
  pad: int | None = None

  def padding(self, size: int) -> int:
    """Returns the zeros at each side of the image for a kernel of this size."""
    return self.dilation * (size // 2) if self.pad is None else self.pad


def form(radix: Radix) -> Radix:
  """The form that AUTO means for these devices; any other stands for itself."""
  if radix is not Radix.AUTO:
    return radix
  return Radix.GROUPED if platforms.kind() == 'tpu' else Radix.SPLIT


def multiply(x: Array, kernel: Array) -> Array:
  """Multiplies x [B, H, W, I] by a kernel f32[I, O], in the arithmetic of x."""
  if x.dtype == kernel.dtype:
    return jnp.einsum('bhwi,io->bhwo', x, kernel)
  return _product(x, kernel)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
  return jnp.einsum('bhwi,io->bhwo', x, kernel.astype(x.dtype))


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
  return _product(x, kernel), (x, kernel)


def _product_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
  x, kernel = kept
  for_image = jnp.einsum('bhwo,io->bhwi', grad, kernel.astype(grad.dtype))
  for_kernel = jnp.einsum('bhwi,bhwo->io', x, grad, preferred_element_type=jnp.float32)
  return for_image, for_kernel


_product.defvjp(_product_forward, _product_backward)


def convolve(x: Array, kernel: Array, window: Window, *, radix: Radix = Radix.AUTO) -> Array:
  """Convolves images.

  Args:
    x: f[B, H, W, I].
    kernel: f32[k, k, I / groups, O], of odd k.
    window: how it moves.
    radix: how groups are computed.

  Returns:
    f[B, ceil(H / stride), ceil(W / stride), O] with the window's own padding, in the type of x.
  """
  if window.groups == 1:
    return _one_group(x, kernel, window)
  radix = form(radix)
  grouped = functools.partial(_grouped, window=window)
  split = functools.partial(_split, window=window)
  if radix is Radix.BY_PLATFORM:
    return jax.lax.platform_dependent(x, kernel, tpu=grouped, default=split)
  return grouped(x, kernel) if radix is Radix.GROUPED else split(x, kernel)


def _split(x: Array, kernel: Array, *, window: Window) -> Array:
  inputs = jnp.split(x, window.groups, axis=-1)
  kernels = jnp.split(kernel, window.groups, axis=-1)
  window = window._replace(groups=1)
  # Typed by hand: jax does not tell what a function with its own gradients returns.
  parts: list[Any] = [_one_group(x, k, window) for x, k in zip(inputs, kernels, strict=True)]
  return jnp.concatenate(parts, axis=-1)


def _grouped(x: Array, kernel: Array, *, window: Window) -> Array:
  if x.dtype == kernel.dtype:
    return _raw(x, kernel, window)
  return _groups(x, kernel, window)


def _raw(x: Array, kernel: Array, window: Window) -> Array:
  pad = window.padding(kernel.shape[0])
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(window.stride, window.stride),
    padding=((pad, pad), (pad, pad)),
    rhs_dilation=(window.dilation, window.dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=window.groups,
  )


def _one_group(x: Array, kernel: Array, window: Window) -> Array:
  if x.dtype == kernel.dtype:
    return _raw(x, kernel, window)
  return _convolve(x, kernel, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, window: Window) -> Array:
  return _raw(x, kernel.astype(x.dtype), window)


def _convolve_forward(x: Array, kernel: Array, window: Window) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(x, kernel, window), (x, kernel)


def _for_image(x: Array, kernel: Array, window: Window, grad: Array) -> Array:
  by_image = jax.linear_transpose(lambda x: _raw(x, kernel.astype(x.dtype), window), x)
  return by_image(grad)[0]


def _convolve_backward(
  window: Window, kept: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
  x, kernel = kept
  size, stride, dilation = kernel.shape[0], window.stride, window.dilation
  # The images' channels are convolved with the gradients, examples in the place of channels.
  pad = window.padding(size)
  for_kernel = jax.lax.conv_general_dilated(
    x,
    grad,
    window_strides=(dilation, dilation),
    padding=((pad, pad), (pad, pad)),
    rhs_dilation=(stride, stride),
    dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
    preferred_element_type=_sum_type(x.dtype),
  )
  # Rows that no stride reaches would make it larger.
  for_kernel = for_kernel[:size, :size].astype(kernel.dtype)
  return _for_image(x, kernel, window, grad), for_kernel


def _sum_type(dtype: jnp.dtype) -> jnp.dtype:
  """The type in which the gradient of a convolution's kernel leaves its product."""
  alone = platforms.kind() == 'gpu' and platforms.count() == 1
  return dtype if alone else jnp.dtype(jnp.float32)


_convolve.defvjp(_convolve_forward, _convolve_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _groups(x: Array, kernel: Array, window: Window) -> Array:
  return _raw(x, kernel.astype(x.dtype), window)


def _groups_forward(x: Array, kernel: Array, window: Window) -> tuple[Array, tuple[Array, Array]]:
  return _groups(x, kernel, window), (x, kernel)


def _groups_backward(window: Window, kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
  x, kernel = kept
  # Numbers of bfloat16 lose nothing in the precision that matrix units have for float32.
  wide = _sum_type(x.dtype)
  shape = jax.ShapeDtypeStruct(kernel.shape, wide)
  by_kernel = jax.linear_transpose(lambda kernel: _raw(x.astype(wide), kernel, window), shape)
  (for_kernel,) = by_kernel(grad.astype(wide))
  return _for_image(x, kernel, window, grad), for_kernel.astype(kernel.dtype)


_groups.defvjp(_groups_forward, _groups_backward)
