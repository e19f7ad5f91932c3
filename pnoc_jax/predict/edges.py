"""Edges of whole images, and the walk of their priors within them, in padded buckets."""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import normalize, pseudo_labels, random_walk
from pnoc_jax.predict import multi_scale
from pnoc_jax.types import Array, Variables


def edges(
  model: nn.Module,
  variables: Variables,
  image: Array,
  size: Array,
  *,
  stride: int,
  flip: bool = True,
) -> Array:
  """Probabilities of an edge: the logits of the image and of its mirror image are averaged.

  Differs from the reference: an edge is that of the image alone; because the reference pads images
  with zeros to one square first, which its network takes for image.

  Differs from the reference: nothing is padded by the other side's length; because its latest code
  exchanges height and width there, which moves edges by up to 0.14.

  Args:
    model: a network with the call of `nn.affinity_net.AffinityNet`.
    variables: its variables.
    image: f32[B, H, W, C], normalised, content in the top-left corner, zero elsewhere.
    size: i32[B, 2], height and width of the content.
    stride: pixels to a cell of the edges.
    flip: whether the mirror image is averaged in.

  Returns:
    f32[B, h, w], of which the first `ceil(size / stride)` cells count; 1 elsewhere.
  """
  chex.assert_rank(image, 4)
  valid = normalize.size_valid(size, image.shape[1:3])
  logits = multi_scale.forward(model, variables, image, valid)
  cells = -(-size // stride)
  if flip:
    mirrored = multi_scale.forward(model, variables, cam_ops.flip(image, size[:, 1]), valid)
    logits = (logits + cam_ops.flip(mirrored[..., None], cells[:, 1])[..., 0]) / 2
  return jnp.where(normalize.size_valid(cells, logits.shape[1:]), jax.nn.sigmoid(logits), 1.0)


def walk(
  low: Array,
  edge: Array,
  size: Array,
  *,
  stride: int,
  shape: tuple[int, int],
  radius: int = 5,
  beta: float = 10.0,
  exp_times: int = 8,
) -> tuple[Array, Array]:
  """Walks priors within the edges, and enlarges them to the image's pixels.

  Args:
    low: f32[B, ceil(H / 4), ceil(W / 4), P], priors of the present classes, 0 for a class that only
      fills up; the first `ceil(size / 4)` cells count.
    edge: f32[B, h, w], from `edges`.
    size: i32[B, 2], height and width of the images.
    stride: pixels to a cell of the edges; where it is not that of the priors, these are resized.
    shape: (H, W) of the bucket.
    radius: of the walk, in cells.
    beta: see `random_walk.random_walk`.
    exp_times: see `random_walk.random_walk`.

  Returns:
    f32[B, H, W, P], of each image over its largest score, 0 outside of `size`; and the cells that
    they are enlarged from, f32[B, h, w, P], of which the first `ceil(size / stride)` count.
  """
  chex.assert_rank([low, edge], [4, 3])
  grid = edge.shape[1:]
  cells = -(-size // stride)
  if stride != multi_scale.PRIOR_STRIDE:
    low = multi_scale.place(low, -(-size // multi_scale.PRIOR_STRIDE), cells, grid)
  scores = random_walk.random_walk(
    low,
    edge,
    valid=normalize.size_valid(cells, grid),
    radius=radius,
    beta=beta,
    exp_times=exp_times,
  )
  # What is below 0 is rounding.
  scores = jnp.maximum(scores, 0.0)
  large = multi_scale.place(scores, cells, stride * cells, (stride * grid[0], stride * grid[1]))
  large = large[:, : shape[0], : shape[1]]
  large = jnp.where(normalize.size_valid(size, shape)[..., None], large, 0.0)
  largest = large.max((1, 2, 3), keepdims=True)
  cells = jnp.where(largest > 0, scores / jnp.where(largest > 0, largest, 1.0), 0.0)
  return pseudo_labels.normalize_walk(large), cells
