"""What every update does with the moving average that it is handed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoc_jax import keys, states
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.optim import ema
from pnoc_jax.updates import pnoc, update
from tests.updates import tiny


def _alone(model, tx, update_ema):
  def loss(params, batch_stats, batch, key):
    assert key is None
    total, (batch_stats, metrics, _) = losses.generator_loss(
      params, batch_stats, batch, model=model
    )
    return total, (batch_stats, metrics)

  step = update.make_update(loss, tx, update_ema=update_ema)
  return lambda state, batch: step(state, batch)[0]


def _generator(model, tx, update_ema):
  step = pnoc.make_generator_update(
    model, None, tx, lambda_re=None, lambda_cse=None, update_ema=update_ema
  )
  return lambda state, batch: step(state, None, None, batch, keys.root_key(0)).generator


@pytest.mark.parametrize('make', [_alone, _generator])
def test_the_average_follows_the_new_params_and_is_what_infers(make):
  variables, tx = tiny.variables(0), optax.sgd(0.1)
  step = jax.jit(make(tiny.Net(), tx, lambda e, p, t: ema.update(e, p, 0.5, t)))
  state = states.init_state(variables, tx, ema=True)
  average = state.ema
  for number in range(3):
    state = step(state, tiny.batch(number))
    weight = min(0.5, (1 + number) / (10 + number))
    average = jax.tree.map(lambda e, p, w=weight: w * e + (1 - w) * p, average, state.params)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, state.ema, average)
  assert state.eval_variables == {'params': state.ema, 'batch_stats': state.batch_stats}
  kernels = (tree['conv']['kernel'] for tree in (state.ema, state.params))
  assert jnp.abs(jnp.subtract(*kernels)).max() > 1e-5


def test_without_an_average_the_params_infer():
  tx = optax.sgd(0.1)
  state = states.init_state(tiny.variables(0), tx)
  state = jax.jit(_alone(tiny.Net(), tx, None))(state, tiny.batch())
  assert state.ema is None
  assert state.eval_variables['params'] is state.params
