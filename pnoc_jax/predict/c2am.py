"""C2AM's class-agnostic map at inference: multi-scale, flipped, in padded buckets, normalised."""

import enum
from collections.abc import Sequence

import jax
from flax import linen as nn

from pnoc_jax.predict import multi_scale
from pnoc_jax.types import Array, Variables


class Activation(enum.Enum):
  """What a logit contributes to the map.

  Attributes:
    RELU: its positive part, as in class activation maps.
    SIGMOID: its probability.
  """

  RELU = 'relu'
  SIGMOID = 'sigmoid'


def scale_map(
  model: nn.Module,
  variables: Variables,
  image: Array,
  size: Array,
  *,
  output_stride: int,
  activation: Activation = Activation.RELU,
  inverted: bool = False,
  flip: bool = True,
) -> Array:
  """The foreground's map of one scale, summed over the image and its mirror image.

  Differs from the reference: an inverted network's logits change their sign; because that is the
  logit of the other part's probability. C2AM's code takes `1 - logit`, the refinement of P-NOC
  nothing at all.

  Args:
    model: a network with the call and the result of `nn.c2am.C2AM`.
    variables: its variables.
    image: f32[B, H, W, C], normalised, content in the top-left corner, zero elsewhere.
    size: i32[B, 2], height and width of the content.
    output_stride: pixels to a cell of the map.
    activation: what a logit contributes.
    inverted: whether the network calls the background what we call foreground.
    flip: whether the mirror image is added.

  Returns:
    f32[B, h, w, 1], of which the first `ceil(size / output_stride)` cells count, zero elsewhere.
  """

  def forward(image: Array, valid: Array) -> Array:
    logits = multi_scale.forward(model, variables, image, valid).logits
    return -logits if inverted else logits

  maps, _ = multi_scale.with_mirror(
    forward,
    image,
    size,
    output_stride=output_stride,
    activation=jax.nn.relu if activation is Activation.RELU else jax.nn.sigmoid,
    flip=flip,
  )
  return maps


def fuse_maps(
  maps: Sequence[Array],
  sizes: Sequence[Array],
  native: Array,
  *,
  output_stride: int,
  shape: tuple[int, int],
  eps: float = 1e-5,
) -> Array:
  """Averages the maps of all scales at the images' own sizes and divides by the maximum.

  Args:
    maps: f32[B, h_s, w_s, 1] a scale, from `scale_map`.
    sizes: i32[B, 2] a scale, the scaled images' heights and widths.
    native: i32[B, 2], heights and widths of the original images.
    output_stride: pixels to a cell of the maps.
    shape: (H, W) of the bucket that holds the original images.
    eps: added to the maximum.

  Returns:
    f32[B, H, W], in [0, 1): of which `native` pixels count, zero elsewhere.
  """
  total = multi_scale.total(
    multi_scale.enlarge(grid, size, native, output_stride=output_stride, shape=shape)
    for grid, size in zip(maps, sizes, strict=True)
  )
  mean = multi_scale.crop(total / len(maps), native, shape=shape)
  return multi_scale.over_maximum(mean, eps=eps)[..., 0]
