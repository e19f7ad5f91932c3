"""The losses of AffinityNet: edges shall stand between classes, and nowhere else (IRNet)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax import types
from pnoc_jax.losses import forward
from pnoc_jax.ops import affinity, resize


class AffinityLosses(NamedTuple):
  """The means over the three kinds of pairs, each over all pairs of the batch.

  Attributes:
    background: f32[], pairs within the background.
    foreground: f32[], pairs within a class.
    different: f32[], pairs across classes.
  """

  background: types.Array
  foreground: types.Array
  different: types.Array

  @property
  def total(self) -> types.Array:
    """f32[], half for equal pairs (background and classes alike), half for different ones."""
    return self.background / 4 + self.foreground / 4 + self.different / 2


def affinity_losses(
  edge: types.Array,
  labels: types.Array,
  *,
  num_classes: int,
  radius: int = 10,
  eps: float = 1e-5,
) -> AffinityLosses:
  """Returns the losses of the affinities `a` that the edges imply.

  `-log(a + eps)` for pairs of the same label and `-log(1 + eps - a)` for those of different ones,
  summed over the batch and divided by the number of such pairs plus eps: a kind that does not occur
  costs nothing.

  Args:
    edge: f32[B, h, w], probability of an edge in each cell, in [0, 1].
    labels: i32[B, h, w], 0 background, 1..K classes, 255 unknown.
    num_classes: K.
    radius: Pairs are closer than this, in cells.
    eps: In the logarithms and in the denominators.
  """
  chex.assert_rank(edge, 3)
  chex.assert_equal_shape([edge, labels])
  edge, labels = edge.astype(jnp.float32), labels.astype(jnp.int32)

  def add(carry, direction, cells):
    a = affinity.path_affinity(edge, cells, radius=radius)
    kinds = affinity.pairs(labels, direction, num_classes=num_classes, radius=radius)
    same, different = -jnp.log(a + eps), -jnp.log(1.0 + eps - a)
    terms = [
      (jnp.where(kind, loss, 0.0).sum((1, 2)), kind.sum((1, 2), dtype=jnp.float32))
      for kind, loss in zip(kinds, (same, same, different), strict=True)
    ]
    return carry + jnp.array(terms)

  # Sums and counts of each example: on a sharded batch they are added up once, at the end.
  zeros = jnp.zeros((3, 2, edge.shape[0]), jnp.float32)
  sums = affinity.scan_directions(add, zeros, radius=radius).sum(-1)
  return AffinityLosses(*(sums[:, 0] / (sums[:, 1] + eps)))


def network_loss(
  params: types.PyTree,
  batch_stats: types.PyTree,
  batch: types.Batch,
  key: types.Key | None = None,
  *,
  model: nn.Module,
  num_classes: int,
  radius: int = 10,
) -> tuple[types.Array, tuple[types.PyTree, types.Metrics]]:
  """AffinityNet's loss: edges from the pairs whose labels are known (IRNet, without its flows).

  Only `params['edges']` has a gradient: the backbone stays as it is, if the optimiser does not
  decay it.

  Args:
    params: of the network.
    batch_stats: its running statistics, which do not move.
    batch: `image` f32[B, H, W, C] normalised, `target` u8[B, H, W]: 0 background, 1..K classes,
      255 unknown.
    key: not used; nothing is drawn.
    model: a network with the call of `nn.affinity_net.AffinityNet`.
    num_classes: K, without the background.
    radius: pairs are closer than this, in cells of the edges' grid.

  Returns:
    The loss f32[]; the running statistics, its three parts, and `edge`, the mean of the edges.
  """
  del key
  params = {**jax.lax.stop_gradient(params), 'edges': params['edges']}
  variables = {'params': params, 'batch_stats': batch_stats}
  edge = jax.nn.sigmoid(forward.evaluate(model, variables, batch['image']))
  labels = grid_labels(batch['target'], (edge.shape[1], edge.shape[2]))
  losses = affinity_losses(edge, labels, num_classes=num_classes, radius=radius)
  parts = {f'loss/{name}': x for name, x in losses._asdict().items()}
  return losses.total, (batch_stats, {**parts, 'edge': edge.mean()})


def grid_labels(labels: types.Array, size: tuple[int, int]) -> types.Array:
  """Reduces label maps to a grid, each cell that of the pixel at its centre, as Pillow does.

  Args:
    labels: u8[B, H, W].
    size: (h, w) of the grid.

  Returns:
    i32[B, h, w].
  """
  chex.assert_rank(labels, 3)
  return resize.nearest_centre(labels[..., None], size)[..., 0].astype(jnp.int32)
