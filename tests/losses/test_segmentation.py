"""The segmentation loss, its optimiser and a step with dropout.

Against PyTorch (tools/record_deeplab_fixture.py), and against the loss spelled out.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from pnoc_jax import states, trees, types
from pnoc_jax.losses import segmentation
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.updates import update

LABELS, CHANNELS, RATE, SMOOTHING, LR = 3, 4, 0.5, 0.2, 0.1
FIXTURE = pathlib.Path(__file__).parent.parent / 'fixtures' / 'segmentation_step.npz'


@pytest.fixture(scope='module')
def recorded():
  with np.load(FIXTURE) as file:
    return {name: file[name] for name in file.files}


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_loss_and_gradient_equal_torch(recorded, smoothing):
  logits, labels = recorded['logits'], recorded['labels']
  assert (labels == types.VOID).sum() > 5
  loss, grad = jax.value_and_grad(segmentation.segmentation_loss)(
    jnp.asarray(logits), labels, smoothing=smoothing
  )
  np.testing.assert_allclose(loss, recorded[f'loss/{smoothing}'], rtol=1e-6)
  np.testing.assert_allclose(grad, recorded[f'grad/{smoothing}'], atol=1e-7)


def test_without_a_labelled_pixel_there_is_nothing_to_learn():
  logits = jnp.ones((1, 2, 2, 3))
  labels = np.full((1, 2, 2), types.VOID, np.uint8)
  loss, grad = jax.value_and_grad(segmentation.segmentation_loss)(logits, labels, smoothing=0.1)
  assert loss == 0
  assert not grad.any()


def test_nesterov_with_groups_and_decay_equals_torch(recorded):
  params = [trees.unflatten_names(named(recorded, f'params{step}/')) for step in range(3)]
  groups = optimizer.classifier_groups(0.1, scratch=('decoder',))
  tx = optimizer.make_optimizer(
    params[0],
    schedule=schedules.constant(0.007),
    groups=groups,
    descent=optimizer.Descent(momentum=0.9, nesterov=True),
  )
  state, found = tx.init(params[0]), params[0]
  for step in range(2):
    grads = trees.unflatten_names(named(recorded, f'grads{step}/'))
    updates, state = tx.update(grads, state, found)
    found = optax.apply_updates(found, updates)
    jax.tree.map(
      lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6),
      found,
      params[step + 1],
    )


def named(recorded, prefix):
  """Returns the arrays whose names begin so, without the prefix."""
  return {name.removeprefix(prefix): x for name, x in recorded.items() if name.startswith(prefix)}


class Net(nn.Module):
  """Dropout of features that a dense layer makes, and another one that classifies them."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid
    x = nn.Dense(CHANNELS, name='features')(image)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name='norm')(x)
    x = nn.Dropout(RATE, name='dropout')(x, deterministic=not train)
    return nn.Dense(LABELS, name='classifier')(x)


def test_a_step_goes_down_the_smoothed_cross_entropy_of_what_the_key_leaves():
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.normal(size=(2, 5, 6, 3)).astype(np.float32),
    'target': rng.choice(np.array([0, 1, 2, 255], np.uint8), (2, 5, 6)),
  }
  model, tx = Net(), optax.sgd(LR)
  variables = states.init_variables(model, jax.random.key(0), (5, 6, 3))
  network_loss = functools.partial(segmentation.network_loss, model=model, smoothing=SMOOTHING)
  step = jax.jit(update.make_update(network_loss, tx))
  start = states.init_state(variables, tx)
  key, other = jax.random.split(jax.random.key(1))

  @jax.jit
  @jax.value_and_grad
  def oracle(params):
    logits, _ = model.apply(
      {**variables, 'params': params},
      batch['image'],
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    target = (1 - SMOOTHING) * jax.nn.one_hot(batch['target'], LABELS) + SMOOTHING / LABELS
    entropy = -(target * jax.nn.log_softmax(logits)).sum(-1)
    return entropy[batch['target'] != 255].mean()

  state, metrics = step(start, batch, key)
  loss, grads = oracle(variables['params'])
  np.testing.assert_allclose(metrics['loss/total'], loss, rtol=1e-5)
  jax.tree.map(
    lambda new, old, g: np.testing.assert_allclose(new, old - LR * g, rtol=1e-4, atol=1e-6),
    state.params,
    variables['params'],
    grads,
  )
  assert state.step == 1
  # Running statistics move, and another key drops other features.
  assert (state.batch_stats['norm']['mean'] != 0).all()
  assert abs(step(start, batch, other)[1]['loss/total'] - loss) > 1e-3
