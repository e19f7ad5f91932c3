"""Computes the layers that the backbones share, each of them exact on images that are padded.

A `valid` mask (bool[B, H, W], one rectangle an image, anchored at the top left) says which pixels
exist. What a spatial operation reads outside of it is replaced by what PyTorch pads with, so that a
padded image gives what the image alone gives. `valid=None` means that every pixel exists, and costs
nothing.
"""

import enum
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from pnoc_jax.ops import convolution, depthwise, moments
from pnoc_jax.types import Array

# The name of what a loop over blocks keeps for its gradients: products with kernels and statistics.
# What lies between them is computed again, because it is cheap and would fill the memory.
KEPT = 'kept'


class Norm(enum.Enum):
  """Which statistics batch normalisation uses in training; in evaluation it uses the running ones.

  Attributes:
    BATCH: those of the global batch.
    FROZEN: the running ones.
  """

  BATCH = 'batch'
  FROZEN = 'frozen'


class Pool(enum.Enum):
  """How a stem ends.

  Attributes:
    NONE: without a pool, at stride 2.
    FLOOR: with a 3 x 3 max pool of stride 2, which turns n rows into ceil(n / 2).
    CEIL: with the same pool in the ceil mode of Caffe's networks: n rows become floor(n / 2) + 1.
  """

  NONE = 'none'
  FLOOR = 'floor'
  CEIL = 'ceil'


class Padding(enum.Enum):
  """Where the zeros around an image are.

  Attributes:
    SYMMETRIC: `dilation * (kernel_size // 2)` at each side, as in PyTorch.
    SAME: as in TensorFlow, only as many as the last window needs, half of them at the top and left;
      an odd one is at the bottom or right. It differs where a convolution strides: there the grid
      of an even number of rows begins a row further down than that of an odd number.
  """

  SYMMETRIC = 'symmetric'
  SAME = 'same'


class Conv(nn.Module):
  """A square convolution.

  Attributes:
    features: number of output channels.
    kernel_size: odd side length; 1 runs as a matrix product, which is faster on CPUs.
    stride: step in both directions.
    dilation: distance of neighbouring taps.
    groups: feature groups, in PyTorch's order (group-major); as many as channels make it depthwise.
    padding: where the zeros around the image are.
    use_bias: whether a bias is added.
    kernel_init: draws the kernel.
    radix: the form of a grouped convolution.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  padding: Padding = Padding.SYMMETRIC
  use_bias: bool = False
  kernel_init: Callable[..., Array] = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
  radix: convolution.Radix = convolution.Radix.AUTO
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None = None) -> Array:
    """Convolves x [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
    chex.assert_rank(x, 4)
    size = self.kernel_size
    kernel = self.param(
      'kernel',
      self.kernel_init,
      (size, size, x.shape[-1] // self.groups, self.features),
      jnp.float32,
    )
    x = x.astype(self.dtype)
    if size == 1:
      y = convolution.multiply(x[:, :: self.stride, :: self.stride], kernel[0, 0])
    else:
      y = self._spatial(zero_invalid(x, valid), valid, kernel)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
      y = y + bias.astype(self.dtype)
    return checkpoint_name(y, KEPT)

  def _spatial(self, x: Array, valid: Array | None, kernel: Array) -> Array:
    """Runs the k x k convolution of an image that is 0 where it does not exist."""
    window = convolution.Window(self.stride, self.dilation, self.groups)
    if self.padding is Padding.SAME and self.stride > 1:
      x = pad_same(x, valid, reach=self.dilation * (self.kernel_size - 1) + 1, stride=self.stride)
      window = window._replace(pad=0)
    depthwise_only = self.groups == self.features == x.shape[-1] > 1
    convolve = depthwise.convolve if depthwise_only else convolution.convolve
    return convolve(x, kernel, window, radix=self.radix)


class BatchNorm(nn.Module):
  """Batch normalisation over the global batch, with statistics and arithmetic in float32.

  Differs from the reference: BatchNorm's statistics are those of the whole batch; because its
  DataParallel takes those of each GPU's part, and keeps the running ones of the first GPU alone.

  As in PyTorch, the batch is normalised with its biased variance, and the running variance takes
  the unbiased one (flax's own layer takes the biased one). Invalid pixels count in neither.

  Attributes:
    dtype: type of the result.
    momentum: share of the old running statistics kept in an update (1 - PyTorch's momentum).
    eps: added to the variance.
    act: what follows, in one function with it.
  """

  dtype: jnp.dtype = jnp.float32
  momentum: float = 0.9
  eps: float = 1e-5
  act: moments.Act = moments.Act.NONE

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> Array:
    """Normalises x [B, H, W, C]; `train` uses (and updates) the batch's statistics."""
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,), jnp.float32)
    normalise = moments.normalise
    if train:
      mean, var, count = checkpoint_name(_moments(x.astype(jnp.float32), valid), KEPT)
      if valid is None and x.shape[1:3] != (1, 1):
        normalise = moments.normalise_batch
      if not self.is_initializing() and self.is_mutable_collection('batch_stats'):
        unbiased = var * (count / jnp.maximum(count - 1.0, 1.0))
        keep = self.momentum
        running_mean.value = keep * running_mean.value + (1.0 - keep) * mean
        running_var.value = keep * running_var.value + (1.0 - keep) * unbiased
    else:
      mean, var = running_mean.value, running_var.value
    inverse = jax.lax.rsqrt(var + self.eps)
    return normalise(x, mean, inverse, scale, bias, self.act, self.dtype)


def _moments(x: Array, valid: Array | None) -> tuple[Array, Array, Array]:
  """Returns mean [C], biased variance [C] and the number of pixels [] of x f32[B, H, W, C]."""
  count = jnp.asarray(x.size / x.shape[-1], jnp.float32)
  if valid is not None:
    x = zero_invalid(x, valid)
    count = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
  if x.shape[1:3] == (1, 1):
    # Pooled features of a batch are alike. Their variance is so small beside the square of their
    # mean that the formula below would lose it to rounding.
    mean = jnp.sum(x, axis=(0, 1, 2)) / count
    return mean, jnp.mean(jnp.square(x - mean), axis=(0, 1, 2)), count
  # The mean of the squares less the square of the mean needs one pass over the memory.
  total, squares = moments.sums(x)
  mean = total / count
  return mean, jnp.maximum(squares / count - jnp.square(mean), 0.0), count


class GroupNorm(nn.Module):
  """Group normalisation as PyTorch's, over the pixels that exist; in float32.

  Attributes:
    groups: number of groups of neighbouring channels.
    eps: added to the variance.
  """

  groups: int
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, valid: Array | None = None) -> Array:
    """Normalises x [B, H, W, C] by the mean and the variance of each image and group; f32."""
    chex.assert_rank(x, 4)
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    x = zero_invalid(x.astype(jnp.float32), valid)
    mean = self._mean(x, valid)
    centred = x - mean
    var = self._mean(jnp.square(centred), valid)
    return centred * (scale * jax.lax.rsqrt(var + self.eps)) + bias

  def _mean(self, x: Array, valid: Array | None) -> Array:
    """Returns each group's mean at each of its channels: f32[B, 1, 1, C]."""
    by_channel = global_mean(x, valid)
    batch, _, _, channels = by_channel.shape
    by_group = by_channel.reshape(batch, 1, 1, self.groups, -1).mean(-1, keepdims=True)
    shape = batch, 1, 1, self.groups, channels // self.groups
    return jnp.broadcast_to(by_group, shape).reshape(batch, 1, 1, channels)


def zero_invalid(x: Array, valid: Array | None, fill: float = 0.0) -> Array:
  """Returns x [B, H, W, C] with `fill` where valid bool[B, H, W] is False."""
  if valid is None:
    return x
  chex.assert_equal_shape_prefix([x, valid], 3)
  return jnp.where(valid[..., None], x, jnp.asarray(fill, x.dtype))


def pad_same(x: Array, valid: Array | None, *, reach: int, stride: int) -> Array:
  """Pads images with zeros as TensorFlow's `SAME` does, each by the size of what exists of it.

  Args:
    x: [B, H, W, C], 0 where `valid` is False.
    valid: bool[B, H, W], or None.
    reach: rows from a window's first to its last.
    stride: rows from a window to the next, at most `reach`.

  Returns:
    [B, h, w, C], whose windows without further padding are `ceil(H / stride)` by
    `ceil(W / stride)`.
  """
  sizes = None if valid is None else valid_sizes(valid)
  for axis in (1, 2):
    rows = x.shape[axis]
    length = (-(-rows // stride) - 1) * stride + reach
    if sizes is None:
      before, pads = _zeros_before(rows, reach, stride), [(0, 0)] * 4
      pads[axis] = before, length - before - rows
      # Not `lax.pad`: jax2onnx has no form of it for any number of images.
      x = jnp.pad(x, pads)
      continue
    # The zeros at the top depend on the image; there are `stride` possible numbers.
    before = _zeros_before(sizes[:, axis - 1], reach, stride)[:, None, None, None]
    least = (reach - stride) // 2
    padded = _pad_rows(x, axis, least, length)
    for number in range(least + 1, (reach - 1) // 2 + 1):
      padded = jnp.where(before == number, _pad_rows(x, axis, number, length), padded)
    x = padded
  return x


def _zeros_before(rows: Any, reach: int, stride: int) -> Any:
  """Returns how many zeros `SAME` puts before so many rows (an integer, or an array of them)."""
  return (-rows % stride + reach - stride) // 2


def _pad_rows(x: Array, axis: int, before: int, length: int) -> Array:
  pads = [(0, 0, 0)] * 4
  pads[axis] = (before, length - before - x.shape[axis], 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)


def stride_valid(valid: Array | None, stride: int) -> Array | None:
  """Returns the mask of a map that is `stride` times smaller (sizes round up, as the layers do)."""
  return None if valid is None else valid[:, ::stride, ::stride]


def valid_sizes(valid: Array) -> Array:
  """Returns i32[B, 2], height and width of the rectangles of a mask bool[B, H, W]."""
  return jnp.stack([valid.any(2).sum(1), valid.any(1).sum(1)], axis=1).astype(jnp.int32)


def pool_stem(x: Array, valid: Array | None, pool: Pool) -> tuple[Array, Array | None]:
  """Returns the features x [B, H, W, C] and their mask after a stem's pool."""
  if pool is Pool.NONE:
    return x, valid
  ceil = pool is Pool.CEIL
  return max_pool(x, valid, ceil=ceil), _pool_valid(valid, ceil)


def max_pool(x: Array, valid: Array | None, *, ceil: bool = False) -> Array:
  """Takes the maximum over 3 x 3 windows, stride 2, padding 1, of x [B, H, W, C].

  Equal maxima of a window share its gradient. `ceil` is PyTorch's `ceil_mode`: an even number of
  rows gets one window more, which holds the last row alone.
  """
  y = zero_invalid(x, valid, -jnp.inf)
  # The maximum is taken over rows, then over columns, as a maximum of shifted slices, because the
  # gradient of a window reduction is slow on CPUs (XLA:CPU).
  for axis in (1, 2):
    count = (x.shape[axis] - (not ceil)) // 2 + 1
    pads = [(0, 0)] * 4
    pads[axis] = (1, 1 + ceil)
    padded = jnp.pad(y, pads, constant_values=-jnp.inf)
    taps = [jax.lax.slice_in_dim(padded, i, i + 2 * (count - 1) + 1, 2, axis) for i in range(3)]
    y = jnp.maximum(jnp.maximum(taps[0], taps[1]), taps[2])
  return zero_invalid(y, _pool_valid(valid, ceil))


def _pool_valid(valid: Array | None, ceil: bool) -> Array | None:
  """Returns the mask of what `max_pool` gives."""
  if valid is None or not ceil:
    return stride_valid(valid, 2)
  # A window exists where its first row and its first column exist.
  for axis in (1, 2):
    first = jnp.maximum(2 * jnp.arange(valid.shape[axis] // 2 + 1) - 1, 0)
    valid = jnp.take(valid, first, axis=axis)
  return valid


def avg_pool(x: Array, valid: Array | None, *, stride: int) -> Array:
  """Averages 3 x 3 windows, padding 1, of x [B, H, W, C]; the padding counts as zeros."""
  return _sums(zero_invalid(x, valid), 3, stride, ((1, 1), (1, 1))) / 9


def shortcut_pool(x: Array, valid: Array | None, *, stride: int) -> Array:
  """Averages stride x stride windows of x [B, H, W, C] over the pixels that exist.

  As `AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)`.
  """
  if stride == 1:
    return x
  height, width = x.shape[1:3]
  pads = (0, -height % stride), (0, -width % stride)
  exists = jnp.ones((1, height, width), bool) if valid is None else valid
  count = _sums(exists[..., None].astype(x.dtype), stride, stride, pads)
  return _sums(zero_invalid(x, valid), stride, stride, pads) / jnp.maximum(count, 1.0)


def _sums(x: Array, side: int, stride: int, pads: tuple[tuple[int, int], ...]) -> Array:
  """Returns the sums of square windows of x [B, H, W, C]."""
  # Not nn.avg_pool: what exports to ONNX takes that for one without padding.
  window, strides = (1, side, side, 1), (1, stride, stride, 1)
  return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, ((0, 0), *pads, (0, 0)))


def global_mean(x: Array, valid: Array | None) -> Array:
  """Averages x [B, H, W, C] over the pixels that exist; f32[B, 1, 1, C]."""
  x = x.astype(jnp.float32)
  if valid is None:
    mean = moments.sums_by_image(x) / (x.shape[1] * x.shape[2])
    return checkpoint_name(mean[:, None, None], KEPT)
  count = jnp.maximum(jnp.sum(valid, axis=(1, 2), dtype=jnp.float32), 1.0)
  total = jnp.sum(zero_invalid(x, valid), axis=(1, 2), keepdims=True)
  return checkpoint_name(total / count[:, None, None, None], KEPT)
