"""The losses of C2AM and C2AM-H: foregrounds are alike, backgrounds too, and the two differ.

All cosines are between the vectors of the whole (global) batch, in float32 and clamped: in bfloat16
the upper bound would be 1, and the logarithm of the difference infinite.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax import types
from pnoc_jax.losses import forward, multilabel
from pnoc_jax.ops import resize


def similarity(a: types.Array, b: types.Array, *, bound: float = 0.0005) -> types.Array:
  """Returns all cosines between two sets of vectors, clamped to [bound, 1 - bound].

  Args:
    a: f[n, C].
    b: f[m, C].
    bound: Distance of the limits from 0 and 1; there is no gradient beyond them.

  Returns:
    f32[n, m].
  """
  chex.assert_rank([a, b], 2)
  a, b = _unit(a), _unit(b)
  cosine = jnp.einsum('ic,jc->ij', a, b, precision=jax.lax.Precision.HIGHEST)
  return jnp.clip(cosine, bound, 1.0 - bound)


def _unit(x: types.Array, eps: float = 1e-12) -> types.Array:
  x = x.astype(jnp.float32)
  # The maximum inside the root: the gradient at 0 is 0.
  return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(1, keepdims=True), eps**2))


def positive_loss(v: types.Array, *, alpha: float = 0.25, bound: float = 0.0005) -> types.Array:
  """Returns the mean of `-exp(-alpha rank) log(cosine)`: vectors shall resemble their nearest ones.

  A row's ranks count from -1, its most similar vector (itself), so that its nearest neighbour has
  weight 1. As the reference, and unlike the paper's sums, the mean is over all n^2 pairs, those of
  a vector with itself included (each of them about `5e-4 exp(alpha)`, without gradient).

  Args:
    v: f[n, C], foregrounds or backgrounds.
    alpha: How fast less similar pairs lose weight.
    bound: See `similarity`.

  Returns:
    f32[].
  """
  cosine = similarity(v, v, bound=bound)
  order = jnp.argsort(-jax.lax.stop_gradient(cosine), axis=1)
  rank = jnp.argsort(order, axis=1) - 1
  weight = jnp.exp(-alpha * rank.astype(jnp.float32))
  return -(weight * jnp.log(cosine)).mean()


def negative_loss(
  background: types.Array, foreground: types.Array, *, bound: float = 0.0005
) -> types.Array:
  """Returns the mean of `-log(1 - cosine)` over all pairs of a background and a foreground.

  Args:
    background: f[n, C].
    foreground: f[n, C].
    bound: See `similarity`.

  Returns:
    f32[].
  """
  return -jnp.log(1.0 - similarity(background, foreground, bound=bound)).mean()


def c2am_loss(
  foreground: types.Array, background: types.Array, *, alpha: float = 0.25
) -> tuple[types.Array, dict[str, types.Array]]:
  """Returns the loss of C2AM: foregrounds attract each other, backgrounds too, the two repel.

  Args:
    foreground: f[n, C], of `nn.c2am`.
    background: f[n, C].
    alpha: See `positive_loss`.

  Returns:
    f32[], and its parts `loss/foreground`, `loss/background`, `loss/contrast`.
  """
  parts = {
    'loss/foreground': positive_loss(foreground, alpha=alpha),
    'loss/background': positive_loss(background, alpha=alpha),
    'loss/contrast': negative_loss(background, foreground),
  }
  return sum(parts.values(), jnp.zeros(())), parts


def hint_loss(
  logits: types.Array,
  hint: types.Array,
  *,
  threshold: float = 0.4,
  smoothing: float = 0.0,
  valid: types.Array | None = None,
) -> types.Array:
  """Returns the cross-entropy that pulls hinted cells to the foreground: C2AM-H, Eq. 5.

  As the reference, the mean over the hinted cells of the batch, where Eq. 5 has a sum.
  Differs from the reference: without a hinted cell the hint loss is 0; because there it is NaN.

  Args:
    logits: f[B, h, w, 1], of the foreground.
    hint: f32[B, h, w, 1], the largest prior over the classes, on this grid.
    threshold: delta_fg; cells from it on are hinted.
    smoothing: Label smoothing: 0.1 makes the target 0.95.
    valid: bool[B, h, w], the cells that are image; None: all.

  Returns:
    f32[].
  """
  chex.assert_rank(logits, 4)
  chex.assert_equal_shape([logits, hint])
  hinted = hint >= threshold
  if valid is not None:
    chex.assert_shape(valid, logits.shape[:3])
    hinted &= valid[..., None]
  z = jnp.where(hinted, logits.astype(jnp.float32), 0.0)
  target = multilabel.smooth_label(jnp.ones_like(z), smoothing)
  losses = -target * jax.nn.log_sigmoid(z) - (1.0 - target) * jax.nn.log_sigmoid(-z)
  return jnp.where(hinted, losses, 0.0).sum() / jnp.maximum(hinted.sum(), 1)


@dataclasses.dataclass(frozen=True)
class Terms:
  """How the terms of `network_loss` are computed.

  Attributes:
    alpha: how fast less similar pairs lose weight.
    lambda_h: weight of the hint loss.
    threshold: delta_fg; cells whose hint reaches it are foreground.
    smoothing: label smoothing of the hinted cells' target.
  """

  alpha: float = 0.25
  lambda_h: float = 1.0
  threshold: float = 0.4
  smoothing: float = 0.1


def network_loss(
  params: types.PyTree,
  batch_stats: types.PyTree,
  batch: types.Batch,
  key: types.Key | None = None,
  *,
  model: nn.Module,
  terms: Terms = Terms(),
) -> tuple[types.Array, tuple[types.PyTree, types.Metrics]]:
  """The loss of C2AM, and of C2AM-H where the batch has hints (Eq. 5).

  Pairs are those of the whole batch, on however many devices it lies.

  Args:
    params: of the network.
    batch_stats: its running statistics.
    batch: `image` f32[B, H, W, C] normalised and, for C2AM-H, `hint` f32[B, H, W, 1] in [0, 1].
    key: not used; nothing is drawn.
    model: a network with the call and the result of `nn.c2am.C2AM`.
    terms: how the terms are computed.

  Returns:
    The loss f32[]; the new running statistics and the metrics.
  """
  del key
  found, batch_stats = forward.train(model, params, batch_stats, batch['image'])
  loss, metrics = c2am_loss(found.foreground, found.background, alpha=terms.alpha)
  metrics['share/foreground'] = jax.nn.sigmoid(found.logits).mean()
  if 'hint' in batch:
    hint = on_grid(batch['hint'], found.logits)
    metrics['loss/hint'] = hint_loss(
      found.logits, hint, threshold=terms.threshold, smoothing=terms.smoothing
    )
    metrics['share/hinted'] = (hint >= terms.threshold).mean()
    loss = loss + terms.lambda_h * metrics['loss/hint']
  return loss, (batch_stats, metrics)


def on_grid(hint: types.Array, logits: types.Array) -> types.Array:
  """Hints f32[B, H, W, 1] on the grid of the logits [B, h, w, 1]: bicubic, not antialiased."""
  return resize.bicubic(hint, logits.shape[1:3])
