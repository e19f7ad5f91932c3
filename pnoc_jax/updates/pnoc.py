"""The two updates of P-NOC: the generator against a fixed noc, then the noc against the generator.

Leaving pieces out gives the other methods: without the noc's update it is P-OC, without erasure
Puzzle-CAM, without tiles OC-CSE, and without both the ordinary classifier.
"""

from collections.abc import Callable

import chex
import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import keys, states
from pnoc_jax.losses import multilabel
from pnoc_jax.losses import puzzle as puzzle_loss
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import erase, label_split, puzzle
from pnoc_jax.types import Array, Batch, Key, Metrics, PyTree, Variables
from pnoc_jax.updates import classifier

Schedule = Callable[[Array], Array]


@flax.struct.dataclass
class Erasure:
  """What the generator's update leaves for the noc's.

  Attributes:
    cam: f32[B, h, w, K], the maps of the full images *before* the generator's step, detached.
    picked: f32[B, K], one-hot of the class r erased from each image.
    leak: gradients of the generator's loss with respect to the noc's params, or None.
  """

  cam: Array
  picked: Array
  leak: PyTree | None = None


def make_generator_update(
  model: nn.Module,
  noc_model: nn.Module | None,
  tx: GradientTransformation,
  *,
  smoothing: float = 0.0,
  w_re: Schedule | None,
  w_cse: Schedule | None,
  strategy: label_split.Strategy = label_split.Strategy.RANDOM,
  reconstruct: Callable = puzzle_loss.reconstruction_loss,
  w_conf: float = 0.0,
  soft_mask: erase.Over = erase.Over.BATCH,
  leak_noc_grad: bool = False,
  class_weight: Array | None = None,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> Callable:
  """Makes the generator's update (Alg. 1 lines 3-6, Eqs. 1 and 2).

  Args:
    model: the CAM generator f.
    noc_model: the fixed classifier that judges erased images; None leaves erasure out.
    tx: the generator's optimiser.
    smoothing: label smoothing of every classification target.
    w_re: weight lambda_re of the reconstruction loss as a function of the micro-step; None leaves
      the tiles out.
    w_cse: weight lambda_cse of the class-specific erasing loss; None exactly when `noc_model` is.
    strategy: how the erased class is picked.
    reconstruct: the reconstruction loss, `(cam, cam_re, label) -> f32[]`, its options bound.
    w_conf: weight of the confidence loss of the tiles.
    soft_mask: over what the maximum that normalises the soft mask is taken.
    leak_noc_grad: also return the loss's gradient with respect to the noc in `Erasure.leak`.
    class_weight: f32[K] factors of the classification terms of f, or None.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(generator, noc_variables, split, batch, key) -> (generator, split, Erasure, metrics)`; split
    and Erasure are None where nothing is erased. `batch` holds `image` f32[B, H, W, C] normalised,
    `label` f32[B, K] and `index` i32[B]; the draw for an example depends on `key` and its index.

  Raises:
    ValueError: if one of `noc_model` and `w_cse` is given without the other.
  """
  if (noc_model is None) != (w_cse is None):
    raise ValueError('noc_model and w_cse go together: give both, or neither')

  def loss_fn(params, noc_params, batch_stats, noc_stats, picked, weights, batch):
    image, label = batch['image'], batch['label']
    target = multilabel.smooth_label(label, smoothing)
    terms = {}
    cam, batch_stats = classifier.train_forward(model, params, batch_stats, image)
    terms['loss/cls'] = multilabel.multilabel_loss(
      cam_ops.logits(cam), target, class_weight=class_weight
    )
    total = terms['loss/cls']
    if w_re is not None:
      # As the reference: a second pass of the same network, statistics updated by both.
      tiles, batch_stats = classifier.train_forward(model, params, batch_stats, puzzle.tile(image))
      cam_re = puzzle.merge(tiles)
      terms['loss/cls_re'] = multilabel.multilabel_loss(
        cam_ops.logits(cam_re), target, class_weight=class_weight
      )
      terms['loss/re'] = reconstruct(cam, cam_re, label)
      total = total + terms['loss/cls_re'] + weights['re'] * terms['loss/re']
      if w_conf:
        terms['loss/conf'] = puzzle_loss.confidence_loss(cam_ops.logits(tiles))
        total = total + w_conf * terms['loss/conf']
    logits_noc = None
    if w_cse is not None:
      # As the reference: no stop-gradient, neither through the mask nor through its maximum.
      mask = erase.class_mask(cam, picked, size=image.shape[1:3], over=soft_mask)
      erased = erase.erase_soft(image, mask)
      noc_variables = {'params': noc_params, 'batch_stats': noc_stats}
      logits_noc = cam_ops.logits(classifier.eval_forward(noc_model, noc_variables, erased))
      rest = multilabel.smooth_label(jnp.maximum(label - picked, 0.0), smoothing)
      terms['loss/cse'] = multilabel.multilabel_loss(logits_noc, rest)
      total = total + weights['cse'] * terms['loss/cse']
    terms['loss/total'] = total
    return total, (cam, batch_stats, logits_noc, terms)

  def update(
    generator: states.TrainState,
    noc_variables: Variables | None,
    split: label_split.LabelSplitState | None,
    batch: Batch,
    key: Key,
  ):
    label = batch['label']
    chex.assert_rank(batch['image'], 4)
    chex.assert_rank(label, 2)
    weights, picked = {}, None
    if w_re is not None:
      weights['re'] = w_re(generator.step)
    if w_cse is not None:
      weights['cse'] = w_cse(generator.step)
      example_keys = keys.example_keys(key, batch['index'])
      picked, split = label_split.split_label(example_keys, label, split, strategy=strategy)
    noc_variables = noc_variables or {'params': {}, 'batch_stats': {}}
    grad_fn = jax.value_and_grad(loss_fn, argnums=(0, 1) if leak_noc_grad else 0, has_aux=True)
    (_, (cam, batch_stats, logits_noc, metrics)), grads = grad_fn(
      generator.params,
      noc_variables['params'],
      generator.batch_stats,
      noc_variables['batch_stats'],
      picked,
      weights,
      batch,
    )
    # Differs from the reference: gradients of this loss do not reach the noc by default; because
    # Alg. 1 fixes it here. `leak_noc_grad` hands them to the noc's update, as the reference does.
    leak = None
    if leak_noc_grad:
      grads, leak = grads
    generator = states.apply_gradients(generator, grads, batch_stats, tx, update_ema=update_ema)
    metrics |= {f'schedule/lambda_{name}': value for name, value in weights.items()}
    if picked is None:
      return generator, split, None, metrics
    rest = jnp.maximum(label - picked, 0.0)
    split = label_split.update_focal(split, jax.lax.stop_gradient(logits_noc), rest, label)
    return generator, split, Erasure(jax.lax.stop_gradient(cam), picked, leak), metrics

  return update


def make_noc_update(
  noc_model: nn.Module,
  tx: GradientTransformation,
  *,
  smoothing: float = 0.0,
  w_noc: Schedule,
  threshold: float = 0.2,
) -> Callable:
  """Makes the noc's update (Alg. 1 lines 8-11, Eq. 3): find the class in what f left of it.

  Args:
    noc_model: the not-so-ordinary classifier, its BatchNorm frozen.
    tx: its optimiser.
    smoothing: label smoothing of the target.
    w_noc: weight lambda_noc of the loss, as a function of the noc's update count.
    threshold: delta_noc; pixels whose mask is above it are erased.

  Returns:
    `(noc, erasure, batch) -> (noc, metrics)`. The erased image is a constant: no gradient reaches
    the generator. The target is the full label: the erased class is still in the image.
  """

  def loss_fn(params, batch_stats, erased, label, weight):
    cam, batch_stats = classifier.train_forward(noc_model, params, batch_stats, erased)
    target = multilabel.smooth_label(label, smoothing)
    loss = weight * multilabel.multilabel_loss(cam_ops.logits(cam), target)
    return loss, batch_stats

  def update(
    noc: states.TrainState, erasure: Erasure, batch: Batch
  ) -> tuple[states.TrainState, Metrics]:
    image = batch['image']
    # As the reference: the mask of the generator as it was before its step of this batch.
    mask = erase.class_mask(
      erasure.cam, erasure.picked, size=image.shape[1:3], over=erase.Over.IMAGE
    )
    erased = jax.lax.stop_gradient(erase.erase_hard(image, mask, threshold=threshold))
    weight = w_noc(noc.step)
    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      noc.params, noc.batch_stats, erased, batch['label'], weight
    )
    if erasure.leak is not None:
      grads = jax.tree.map(jnp.add, grads, erasure.leak)
    noc = states.apply_gradients(noc, grads, batch_stats, tx)
    return noc, {'loss/noc': loss, 'schedule/lambda_noc': weight}

  return update
