"""The classification loss: mean binary cross-entropy over the classes of multi-hot labels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax import types
from pnoc_jax.losses import forward
from pnoc_jax.ops import cam as cam_ops


def smooth_label(label: types.Array, alpha: float) -> types.Array:
  """Returns `(1 - alpha) * label + alpha / 2`: 0.1 turns 1 into 0.95 and 0 into 0.05.

  Args:
    label: f32[...], multi-hot.
    alpha: In [0, 1]; 0 changes nothing.

  Returns:
    f32, the shape of `label`. For targets only; masks by class take the label itself.
  """
  return (1.0 - alpha) * label + alpha / 2.0


def multilabel_losses(
  logits: types.Array, label: types.Array, *, class_weight: types.Array | np.ndarray | None = None
) -> types.Array:
  """Returns each example's `mean_c w_c * (-y log s(z) - (1 - y) log s(-z))`.

  torch's MultiLabelSoftMarginLoss.

  Args:
    logits: [B, K].
    label: f32[B, K], in [0, 1], perhaps smoothed.
    class_weight: f32[K]; None: ones. The mean divides by K, not by the weights' sum.

  Returns:
    f32[B].
  """
  chex.assert_rank(logits, 2)
  chex.assert_equal_shape([logits, label])
  z = logits.astype(jnp.float32)
  losses = -label * jax.nn.log_sigmoid(z) - (1.0 - label) * jax.nn.log_sigmoid(-z)
  if class_weight is not None:
    chex.assert_shape(class_weight, z.shape[1:])
    losses = losses * class_weight
  return losses.mean(1)


def multilabel_loss(
  logits: types.Array, label: types.Array, *, class_weight: types.Array | np.ndarray | None = None
) -> types.Array:
  """Returns f32[], the mean of `multilabel_losses` over the batch: every term `l` of the paper."""
  return multilabel_losses(logits, label, class_weight=class_weight).mean()


def network_loss(
  params: types.PyTree,
  batch_stats: types.PyTree,
  batch: types.Batch,
  key: types.Key | None = None,
  *,
  model: nn.Module,
  smoothing: float = 0.0,
  class_weight: types.Array | np.ndarray | None = None,
) -> tuple[types.Array, tuple[types.PyTree, types.Metrics]]:
  """The loss of the ordinary classifier: the paper's baseline, judge, and first noc.

  Args:
    params: of the network.
    batch_stats: its running statistics.
    batch: `image` f32[B, H, W, C] normalised, `label` f32[B, K] multi-hot.
    key: not used; nothing is drawn.
    model: the network, which gives class activation maps.
    smoothing: label smoothing alpha; targets become `(1 - alpha) y + alpha / 2`.
    class_weight: f32[K] factors of the classes' terms, or None.

  Returns:
    The loss f32[]; the new running statistics and the metrics.
  """
  del key
  cam, batch_stats = forward.train(model, params, batch_stats, batch['image'])
  target = smooth_label(batch['label'], smoothing)
  loss = multilabel_loss(cam_ops.logits(cam), target, class_weight=class_weight)
  return loss, (batch_stats, {'loss/cls': loss})
