"""The loss of semantic segmentation: cross-entropy of every labelled pixel."""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax import types
from pnoc_jax.losses import forward


def segmentation_loss(
  logits: types.Array, labels: types.Array, *, smoothing: float = 0.0, void: int = types.VOID
) -> types.Array:
  """Returns the mean cross-entropy of softmax over the labelled pixels of the whole batch.

  The target is `(1 - smoothing) * onehot + smoothing / K`, as torch's `CrossEntropyLoss` with
  `label_smoothing` and `ignore_index`.

  Args:
    logits: f[B, H, W, K].
    labels: int[B, H, W], 0..K-1 or `void`.
    smoothing: In [0, 1).
    void: The label of pixels that do not count.

  Returns:
    f32[].
  """
  chex.assert_rank(logits, 4)
  chex.assert_shape(labels, logits.shape[:3])
  logits, labels = logits.astype(jnp.float32), labels.astype(jnp.int32)
  # A sum over a mask: its gradient is elementwise, where that of a gather is a scatter.
  chosen = labels[..., None] == jnp.arange(logits.shape[-1])
  target = jnp.where(chosen, logits, 0.0).sum(-1)
  loss = jax.nn.logsumexp(logits, -1) - (1.0 - smoothing) * target - smoothing * logits.mean(-1)
  known = labels != void
  # Differs from the reference: without a labelled pixel the loss is 0; because there it is NaN.
  return jnp.where(known, loss, 0.0).sum() / jnp.maximum(known.sum(dtype=jnp.float32), 1.0)


def network_loss(
  params: types.PyTree,
  batch_stats: types.PyTree,
  batch: types.Batch,
  key: types.Key | None,
  *,
  model: nn.Module,
  smoothing: float = 0.0,
) -> tuple[types.Array, tuple[types.PyTree, types.Metrics]]:
  """The loss of a segmentation network.

  Args:
    params: of the network.
    batch_stats: its running statistics.
    batch: `image` f32[B, H, W, C] normalised, `target` u8[B, H, W] labels or 255.
    key: of the step's dropout.
    model: a network with the call of `nn.deeplab.DeepLab`.
    smoothing: label smoothing.

  Returns:
    The loss f32[]; the new running statistics and no further metrics.
  """
  logits, batch_stats = forward.train(
    model, params, batch_stats, batch['image'], rngs={'dropout': key}
  )
  return segmentation_loss(logits, batch['target'], smoothing=smoothing), (batch_stats, {})
