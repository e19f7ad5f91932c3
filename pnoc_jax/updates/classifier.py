"""The ordinary classifier's update: multi-label classification from image labels alone."""

from collections.abc import Callable

import jax
from flax import linen as nn
from optax import GradientTransformation

from pnoc_jax import states
from pnoc_jax.losses import multilabel
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.types import Array, Batch, Metrics, PyTree, Variables


def train_forward(
  model: nn.Module, params: PyTree, batch_stats: PyTree, image: Array
) -> tuple[Array, PyTree]:
  """A forward pass in training mode.

  Args:
    model: a network with the call of `nn.classifier.Classifier`.
    params: its parameters.
    batch_stats: its running statistics.
    image: f32[B, H, W, C], normalised.

  Returns:
    The class activation maps f32[B, h, w, K], and the new running statistics.
  """
  cam, mutated = model.apply(
    {'params': params, 'batch_stats': batch_stats}, image, train=True, mutable=['batch_stats']
  )
  return cam, mutated.get('batch_stats', batch_stats)


def eval_forward(model: nn.Module, variables: Variables, image: Array) -> Array:
  """A forward pass on running statistics: f32[B, H, W, C] to maps f32[B, h, w, K]."""
  return model.apply(variables, image, train=False)


def make_classifier_update(
  model: nn.Module,
  tx: GradientTransformation,
  *,
  smoothing: float = 0.0,
  class_weight: Array | None = None,
  update_ema: Callable[[PyTree, PyTree, Array], PyTree] | None = None,
) -> Callable[[states.TrainState, Batch], tuple[states.TrainState, Metrics]]:
  """Makes the update of the ordinary classifier (the paper's baseline and fixed `oc`).

  Args:
    model: the classifier.
    tx: its optimiser.
    smoothing: label smoothing alpha; targets become `(1 - alpha) y + alpha / 2`.
    class_weight: f32[K] factors of the classes' loss terms, or None.
    update_ema: see `states.apply_gradients`.

  Returns:
    `(state, batch) -> (state, metrics)` with `batch['image']` f32[B, H, W, C] normalised and
    `batch['label']` f32[B, K] multi-hot.
  """

  def loss_fn(params, batch_stats, batch):
    cam, batch_stats = train_forward(model, params, batch_stats, batch['image'])
    target = multilabel.smooth_label(batch['label'], smoothing)
    loss = multilabel.multilabel_loss(cam_ops.logits(cam), target, class_weight=class_weight)
    return loss, batch_stats

  def update(state: states.TrainState, batch: Batch) -> tuple[states.TrainState, Metrics]:
    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, state.batch_stats, batch
    )
    state = states.apply_gradients(state, grads, batch_stats, tx, update_ema=update_ema)
    return state, {'loss/total': loss, 'loss/cls': loss}

  return update
