"""The alternation of P-NOC (Alg. 1): the generator against a fixed noc, then the noc against it.

Leaving parts out gives the other methods, which `METHODS` lists.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import keys, states
from pnoc_jax.losses import pnoc
from pnoc_jax.losses.pnoc import Erasure
from pnoc_jax.ops import label_split
from pnoc_jax.optim.schedules import Schedule
from pnoc_jax.types import Batch, Key, Metrics, PyTree, Variables
from pnoc_jax.updates.update import UpdateEma


class Method(NamedTuple):
  """Which parts a CAM method has.

  Attributes:
    title: as the literature writes it.
    tiles: a second pass sees the image's quarters, whose maps shall be those of the whole.
    judge: a trained classifier judges images from which a class is erased.
    noc: that classifier, which there must be, trains as well: on what the generator leaves of the
      class.
  """

  title: str
  tiles: bool = False
  judge: bool = False
  noc: bool = False


METHODS = {
  'vanilla': Method('Vanilla'),
  'puzzle': Method('Puzzle-CAM', tiles=True),
  'occse': Method('OC-CSE', judge=True),
  'poc': Method('P-OC', tiles=True, judge=True),
  'pnoc': Method('P-NOC', tiles=True, judge=True, noc=True),
  'noc': Method('P-NOC without tiles', judge=True, noc=True),
}
"""The CAM methods by their names in configs. A method is a row here, and nothing else."""


class Generated(NamedTuple):
  """What a generator's update gives.

  Attributes:
    generator: the state after the step.
    split: counters of the class-split strategy; None where nothing is erased.
    erasure: what the noc's update needs; None where nothing is erased.
    metrics: the terms of the loss, its sum `loss/total`, and the coefficients.
  """

  generator: states.TrainState
  split: label_split.LabelSplitState | None
  erasure: Erasure | None
  metrics: Metrics


GeneratorUpdate = Callable[
  [states.TrainState, Variables | None, label_split.LabelSplitState | None, Batch, Key], Generated
]
NocUpdate = Callable[[states.TrainState, Erasure, Batch], tuple[states.TrainState, Metrics]]


def make_generator_update(
  model: nn.Module,
  noc_model: nn.Module | None,
  tx: GradientTransformation,
  *,
  lambda_re: Schedule | None,
  lambda_cse: Schedule | None,
  terms: pnoc.Terms = pnoc.Terms(),
  leak_noc_grad: bool = False,
  update_ema: UpdateEma | None = None,
) -> GeneratorUpdate:
  """Makes the generator's update (Alg. 1 lines 3-6, Eqs. 1 and 2).

  Args:
    model: the CAM generator f.
    noc_model: the fixed classifier that judges erased images; None leaves erasing out.
    tx: the generator's optimiser.
    lambda_re: weight of the reconstruction loss as a function of the micro-step; None leaves the
      tiles out.
    lambda_cse: weight of the class-specific erasing loss; None exactly when `noc_model` is.
    terms: how the terms of the loss are computed.
    leak_noc_grad: also give the loss's gradient with respect to the noc, in `Erasure.leak`.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(generator, noc_variables, split, batch, key) -> Generated`. `batch` holds `image`
    f32[B, H, W, C] normalised, `label` f32[B, K] and `index` i32[B]; the draw for an example
    depends on `key` and its index.

  Raises:
    ValueError: if one of `noc_model` and `lambda_cse` is given without the other.
  """
  if (noc_model is None) != (lambda_cse is None):
    raise ValueError('noc_model and lambda_cse go together: give both, or neither')

  def update(
    generator: states.TrainState,
    noc_variables: Variables | None,
    split: label_split.LabelSplitState | None,
    batch: Batch,
    key: Key,
  ) -> Generated:
    label = batch['label']
    chex.assert_rank(batch['image'], 4)
    chex.assert_rank(label, 2)
    noc_variables = noc_variables or {'params': {}, 'batch_stats': {}}
    weights, picked = {}, None
    if lambda_re is not None:
      weights['re'] = lambda_re(generator.step)
    if lambda_cse is not None and split is not None:
      weights['cse'] = lambda_cse(generator.step)
      example_keys = keys.example_keys(key, batch['index'])
      picked, split = label_split.split_label(example_keys, label, split, strategy=terms.strategy)

    def loss(params: PyTree, noc_params: PyTree):
      judge = None
      if noc_model is not None and picked is not None:
        variables = {**noc_variables, 'params': noc_params}
        judge = pnoc.Judge(noc_model, variables, picked, weights['cse'])
      return pnoc.generator_loss(
        params,
        generator.batch_stats,
        batch,
        model=model,
        lambda_re=weights.get('re'),
        judge=judge,
        terms=terms,
      )

    grad_fn = jax.value_and_grad(loss, argnums=(0, 1) if leak_noc_grad else 0, has_aux=True)
    (total, (batch_stats, metrics, seen)), grads = grad_fn(
      generator.params, noc_variables['params']
    )
    # Differs from the reference: gradients of the generator's loss do not reach the noc by default;
    # because Alg. 1 fixes it here, and `leak_noc_grad` hands them to its update, as there.
    grads, leak = grads if leak_noc_grad else (grads, None)
    new = states.apply_gradients(generator, grads, batch_stats, tx, update_ema=update_ema)
    coefficients = {f'schedule/lambda_{name}': value for name, value in weights.items()}
    metrics = {**metrics, 'loss/total': total, **coefficients}
    if picked is None or split is None:
      return Generated(new, split, None, metrics)
    rest = jnp.maximum(label - picked, 0.0)
    split = label_split.update_focal(split, jax.lax.stop_gradient(seen.judged), rest, label)
    return Generated(new, split, Erasure(jax.lax.stop_gradient(seen.cam), picked, leak), metrics)

  return update


def make_noc_update(
  noc_model: nn.Module,
  tx: GradientTransformation,
  *,
  lambda_noc: Schedule,
  threshold: float = 0.2,
  terms: pnoc.Terms = pnoc.Terms(),
) -> NocUpdate:
  """Makes the noc's update (Alg. 1 lines 8-11, Eq. 3).

  Args:
    noc_model: the not-so-ordinary classifier, its BatchNorm frozen.
    tx: its optimiser.
    lambda_noc: weight of the loss, as a function of the noc's update count.
    threshold: delta_noc; pixels whose mask is above it are erased.
    terms: the label smoothing of the target, the classes' factors, and what the noc sees.

  Returns:
    `(noc, erasure, batch) -> (noc, metrics)`.
  """

  def update(
    noc: states.TrainState, erasure: Erasure, batch: Batch
  ) -> tuple[states.TrainState, Metrics]:
    weight = lambda_noc(noc.step)
    (_, (batch_stats, metrics)), grads = jax.value_and_grad(pnoc.noc_loss, has_aux=True)(
      noc.params,
      noc.batch_stats,
      batch,
      model=noc_model,
      erasure=erasure,
      lambda_noc=weight,
      threshold=threshold,
      terms=terms,
    )
    if erasure.leak is not None:
      grads = jax.tree.map(jnp.add, grads, erasure.leak)
    noc = states.apply_gradients(noc, grads, batch_stats, tx)
    return noc, {**metrics, 'schedule/lambda_noc': weight}

  return update
