"""Chooses, for each image, the one class that will be erased (OC-CSE's label split)."""

import dataclasses
import enum

import chex
import flax.struct
import jax
import jax.numpy as jnp

from pnoc_jax import types


class Strategy(enum.Enum):
  """How a class is chosen among those of the image.

  Attributes:
    RANDOM: every class has the same probability.
    BALANCED: the probability is proportional to `choices ** -gamma`.
    LEAST_CHOSEN: the class with the smallest counter is taken, the first one of equals.
    FOCAL: the probability is proportional to `focal`.
  """

  RANDOM = 'random'
  BALANCED = 'balanced'
  LEAST_CHOSEN = 'least_chosen'
  FOCAL = 'focal'


@flax.struct.dataclass
class LabelSplitState:
  """What is remembered of the choices so far.

  Attributes:
    choices: f32[K], 1 + how often each class was chosen.
    focal: f32[K], how hard each class is for the ordinary classifier; starts at 1.
  """

  choices: types.Array
  focal: types.Array


def init_label_split(num_classes: int) -> LabelSplitState:
  """Returns the state before the first choice."""
  return LabelSplitState(jnp.ones(num_classes), jnp.ones(num_classes))


def split_label(
  keys: types.Key,
  label: types.Array,
  state: LabelSplitState,
  *,
  strategy: Strategy = Strategy.RANDOM,
  gamma: float = 1.0,
) -> tuple[types.Array, LabelSplitState]:
  """Picks one present class an image: `r` of OC-CSE; the rest of the label is `label - picked`.

  Differs from the reference: all images of a batch see the counters as they were before it; because
  there the counters change from image to image, so that the result depends on the batch's order.

  Args:
    keys: Key[B], one an example (`keys.example_keys`).
    label: f32[B, K], multi-hot (present: above one half).
    state: Counters before this batch.
    strategy: How to choose.
    gamma: Exponent of BALANCED.

  Returns:
    picked: f32[B, K], one-hot; a row without any present class is all 0.
    state: The counters after this batch.
  """
  chex.assert_rank(label, 2)
  chex.assert_shape(keys, label.shape[:1])
  chex.assert_shape([state.choices, state.focal], label.shape[1:])
  present = label > 0.5
  match strategy:
    case Strategy.RANDOM:
      score = jnp.zeros_like(state.choices)
    case Strategy.BALANCED:
      score = -gamma * jnp.log(jnp.maximum(state.choices, 1.0))
    case Strategy.FOCAL:
      score = jnp.log(jnp.maximum(state.focal, jnp.finfo(jnp.float32).tiny))
    case Strategy.LEAST_CHOSEN:
      score = -state.choices
  if strategy is not Strategy.LEAST_CHOSEN:
    # With Gumbel noise added, the largest is a draw with probabilities proportional to exp(score).
    noise = jax.vmap(lambda key: jax.random.gumbel(key, label.shape[1:]))(keys)
    score = score + noise
  best = jnp.argmax(jnp.where(present, score, -jnp.inf), axis=1)
  picked = jax.nn.one_hot(best, label.shape[1]) * present
  return picked, dataclasses.replace(state, choices=state.choices + picked.sum(0))


def update_focal(
  state: LabelSplitState,
  logits: types.Array,
  label_rest: types.Array,
  label: types.Array,
  *,
  momentum: float = 0.9,
  gamma: float = 2.0,
) -> LabelSplitState:
  """Moves the focal factor of the classes in the batch towards their present difficulty.

  `F_c <- momentum * F_c + (1 - momentum) * sum_b (1 - p_t) ** gamma / n_c`, where p_t is the
  probability that the ordinary classifier gives to the truth of class c (y without the picked
  class) on the erased image; the sum runs over all images, n_c counts those that show class c.

  Args:
    state: Before this batch.
    logits: [B, K], of the ordinary classifier on the erased images.
    label_rest: f32[B, K], multi-hot, the label without the picked class.
    label: f32[B, K], multi-hot.
    momentum: Weight of the past.
    gamma: Exponent.

  Returns:
    The state; classes that the batch does not show keep their factor.
  """
  chex.assert_equal_shape([logits, label_rest, label])
  z = jax.lax.stop_gradient(logits).astype(jnp.float32)
  missed = jax.nn.sigmoid(jnp.where(label_rest > 0.5, -z, z))
  number = (label > 0.5).sum(0)
  difficulty = (missed**gamma).sum(0) / jnp.maximum(number, 1)
  moved = momentum * state.focal + (1.0 - momentum) * difficulty
  return dataclasses.replace(state, focal=jnp.where(number > 0, moved, state.focal))
