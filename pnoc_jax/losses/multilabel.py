"""The classification loss: mean binary cross-entropy over the classes of multi-hot labels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import types


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
