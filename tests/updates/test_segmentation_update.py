"""A step of a segmentation network with dropout, against the loss spelled out."""

import jax
import numpy as np
import optax
from flax import linen as nn

from pnoc_jax import states
from pnoc_jax.updates import segmentation

LABELS, CHANNELS, RATE, SMOOTHING, LR = 3, 4, 0.5, 0.2, 0.1


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
  update = jax.jit(segmentation.make_segmentation_update(model, tx, smoothing=SMOOTHING))
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

  state, metrics = update(start, batch, key)
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
  assert abs(update(start, batch, other)[1]['loss/total'] - loss) > 1e-3
