"""Semantic segmentation of images: multi-scale, flipped, in padded buckets."""

import functools
from collections.abc import Sequence

import jax
from flax import linen as nn

from pnoc_jax.predict import multi_scale
from pnoc_jax.types import Array, Variables


def logits(model: nn.Module, variables: Variables, image: Array) -> Array:
  """Logits of whole images: f32[B, H, W, C] normalised to f32[B, H, W, labels]."""
  return multi_scale.forward(model, variables, image)


def scale_logits(
  model: nn.Module, variables: Variables, image: Array, size: Array, *, flip: bool = True
) -> Array:
  """Logits of one scale, of the image and, added, of its mirror image.

  Args:
    model: a network with the call of `nn.deeplab.DeepLab`.
    variables: its variables.
    image: f32[B, H, W, C], normalised, content in the top-left corner, zero elsewhere.
    size: i32[B, 2], height and width of the content.
    flip: whether the mirror image is added.

  Returns:
    f32[B, H, W, labels], zero outside of the content.
  """
  total, _ = multi_scale.with_mirror(
    functools.partial(multi_scale.forward, model, variables),
    image,
    size,
    output_stride=1,
    activation=lambda raw: raw,
    flip=flip,
  )
  return total


def fuse_logits(
  parts: Sequence[Array], sizes: Sequence[Array], native: Array, *, shape: tuple[int, int]
) -> Array:
  """Averages the logits of all scales at the images' own sizes.

  Mirror images stay added, so the result is twice the average: the softmax is sharper.

  Args:
    parts: f32[B, H_s, W_s, labels] a scale, from `scale_logits`.
    sizes: i32[B, 2] a scale, the scaled images' heights and widths.
    native: i32[B, 2], heights and widths of the original images.
    shape: (H, W) of the bucket that holds the original images.

  Returns:
    f32[B, H, W, labels], of which `native` pixels count, zero elsewhere.
  """
  total = multi_scale.total(
    multi_scale.place(part, size, native, shape) for part, size in zip(parts, sizes, strict=True)
  )
  return total / len(parts)


def probabilities(
  model: nn.Module,
  variables: Variables,
  images: Sequence[Array],
  sizes: Sequence[Array],
  native: Array,
  *,
  shape: tuple[int, int],
  flip: bool = True,
) -> Array:
  """Segments images in one call: softmax of the mean over scales.

  Args:
    model: a network with the call of `nn.deeplab.DeepLab`.
    variables: its variables.
    images: f32[B, H_s, W_s, C] a scale, normalised, as for `scale_logits`.
    sizes: i32[B, 2] a scale, heights and widths of their contents.
    native: i32[B, 2], heights and widths of the original images.
    shape: (H, W) that holds these.
    flip: whether mirror images are added.

  Returns:
    f32[B, H, W, labels], of which `native` pixels count.
  """
  parts = [
    scale_logits(model, variables, image, size, flip=flip)
    for image, size in zip(images, sizes, strict=True)
  ]
  return jax.nn.softmax(fuse_logits(parts, sizes, native, shape=shape))
