"""The loss of semantic segmentation: cross-entropy of every labelled pixel."""

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types


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
  # Differs from the reference: without a labelled pixel the loss is 0; because there it is not a
  # number.
  return jnp.where(known, loss, 0.0).sum() / jnp.maximum(known.sum(dtype=jnp.float32), 1.0)
