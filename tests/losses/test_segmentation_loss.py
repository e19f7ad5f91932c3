"""The segmentation loss and its optimiser against PyTorch (tools/record_deeplab_fixture.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoc_jax import trees, types
from pnoc_jax.losses import segmentation
from pnoc_jax.optim import optimizer, schedules

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
