"""AffinityNet's update: edges from the pairs whose labels are known (IRNet, without its flows)."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import states
from pnoc_jax.losses import affinity
from pnoc_jax.ops import resize
from pnoc_jax.types import Array, Batch, Metrics, PyTree


def make_affinity_update(
  model: nn.Module,
  tx: GradientTransformation,
  *,
  num_classes: int,
  radius: int = 10,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> Callable[[states.TrainState, Batch], tuple[states.TrainState, Metrics]]:
  """Makes the update of the edge branch.

  Gradients are taken for `params['edges']` alone: what else the network has stays as it is, if
  `tx` does not decay it.

  Args:
    model: a network with the call of `nn.affinity_net.AffinityNet`.
    tx: its optimiser.
    num_classes: K, without the background.
    radius: pairs are closer than this, in cells of the edges' grid.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(state, batch) -> (state, metrics)` with `batch['image']` f32[B, H, W, C] normalised and
    `batch['target']` u8[B, H, W], labels of the pixels: 0 background, 1..K classes, 255 unknown.
    The metrics are the loss, its three parts, and `edge`, the mean of the edges.
  """

  def loss_fn(edges, state, batch):
    params = {**state.params, 'edges': edges}
    logits = model.apply(
      {'params': params, 'batch_stats': state.batch_stats}, batch['image'], train=False
    )
    edge = jax.nn.sigmoid(logits)
    losses = affinity.affinity_losses(
      edge, grid_labels(batch['target'], edge.shape[1:]), num_classes=num_classes, radius=radius
    )
    return losses.total, (losses, edge.mean())

  def update(state: states.TrainState, batch: Batch) -> tuple[states.TrainState, Metrics]:
    (loss, (losses, edge)), found = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params['edges'], state, batch
    )
    grads = {**jax.tree.map(jnp.zeros_like, state.params), 'edges': found}
    state = states.apply_gradients(state, grads, state.batch_stats, tx, update_ema=update_ema)
    parts = {f'loss/{name}': x for name, x in losses._asdict().items()}
    return state, {'loss/total': loss, **parts, 'edge': edge}

  return update


def grid_labels(labels: Array, size: tuple[int, int]) -> Array:
  """Reduces label maps to a grid, each cell that of the pixel at its centre, as Pillow does.

  Args:
    labels: u8[B, H, W].
    size: (h, w) of the grid.

  Returns:
    i32[B, h, w].
  """
  chex.assert_rank(labels, 3)
  return resize.nearest_centre(labels[..., None], size)[..., 0].astype(jnp.int32)
