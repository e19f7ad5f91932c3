import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pnoc_jax import errors, trees
from pnoc_jax.optim import optimizer, schedules

_RNG = np.random.default_rng(0)
_SHAPES = {
  'backbone/conv/kernel': (3, 3, 2, 2),
  'backbone/bn/scale': (2,),
  'backbone/bn/bias': (2,),
  'classifier/kernel': (2, 5),
  'classifier/bias': (5,),
}


def _tree():
  named = {name: jnp.asarray(_RNG.normal(size=s), jnp.float32) for name, s in _SHAPES.items()}
  return trees.unflatten_names(named)


def _walk(tx, params, grads):
  step = jax.jit(functools.partial(_step, tx))
  state, path = tx.init(params), []
  for grad in grads:
    params, state = step(params, state, grad)
    path.append(trees.flatten_names(params))
  return path


def _step(tx, params, state, grad):
  updates, state = tx.update(grad, state, params)
  return optax.apply_updates(params, updates), state


def test_the_four_groups_take_the_exact_step_of_torch_sgd():
  params, grad = _tree(), _tree()
  tx = optimizer.make_optimizer(
    params, schedule=schedules.constant(0.1), groups=optimizer.classifier_groups(0.01)
  )
  (result,) = _walk(tx, params, [grad])
  expected = {
    'backbone/conv/kernel': (0.1, 0.01),
    # As the reference: scales of BatchNorm decay, biases do not.
    'backbone/bn/scale': (0.1, 0.01),
    'backbone/bn/bias': (0.2, 0.0),
    'classifier/kernel': (1.0, 0.01),
    'classifier/bias': (2.0, 0.0),
  }
  p, g = trees.flatten_names(params), trees.flatten_names(grad)
  for name, (lr, decay) in expected.items():
    wanted = p[name] - lr * (g[name] + decay * p[name])
    np.testing.assert_allclose(result[name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('nesterov', [False, True])
def test_momentum_is_that_of_torch(nesterov):
  params, grads = {'w': jnp.ones(3)}, [{'w': jnp.asarray(_RNG.normal(size=3))} for _ in range(3)]
  tx = optimizer.make_optimizer(
    params,
    schedule=schedules.polynomial(0.1, 4),
    groups=[optimizer.Group('.*', weight_decay=0.01)],
    descent=optimizer.Descent(momentum=0.9, nesterov=nesterov),
  )
  path = _walk(tx, params, grads)
  w, velocity = np.ones(3), np.zeros(3)
  for k, grad in enumerate(grads):
    g = np.asarray(grad['w']) + 0.01 * w
    velocity = 0.9 * velocity + g
    w = w - 0.1 * (1 - k / 4) ** 0.9 * (g + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(path[k]['w'], w, rtol=1e-5)


@pytest.mark.parametrize('grad_mean', [False, True])
def test_accumulation_sums_or_averages_and_counts_optimiser_steps(grad_mean):
  params, grads = {'w': jnp.ones(2)}, [{'w': jnp.full(2, float(i))} for i in range(1, 8)]
  tx = optimizer.make_optimizer(
    params,
    schedule=schedules.polynomial(0.1, 10, power=1.0),
    groups=[optimizer.Group('.*', weight_decay=0.1)],
    accumulate=3,
    grad_mean=grad_mean,
  )
  path = [np.asarray(p['w'])[0] for p in _walk(tx, params, grads)]
  divisor = 3 if grad_mean else 1
  first = 1 - 0.1 * (6 / divisor + 0.1)
  second = first - 0.09 * (15 / divisor + 0.1 * first)
  np.testing.assert_allclose(path, [1, 1, first, first, first, second, second], rtol=1e-5)


def test_frozen_parameters_stay_and_do_not_count_in_the_clipped_norm():
  params, grad = _tree(), _tree()
  grad['backbone']['conv']['kernel'] *= 1e6
  groups = optimizer.classifier_groups(0.0, frozen=('backbone/.*',), scratch_lr=1.0, bias_lr=1.0)
  tx = optimizer.make_optimizer(
    params, schedule=schedules.constant(1.0), groups=groups, clip_norm=0.5, accumulate=2,
    grad_mean=False,
  )  # fmt: skip
  result = _walk(tx, params, [grad, grad])[-1]
  p, g = trees.flatten_names(params), trees.flatten_names(grad)
  norm = 2 * np.sqrt(sum((np.asarray(g[n]) ** 2).sum() for n in g if n.startswith('classifier')))
  assert norm > 0.5
  for name in p:
    moved = 0 if name.startswith('backbone') else 2 * g[name] * 0.5 / norm
    np.testing.assert_allclose(result[name], p[name] - moved, rtol=1e-4, atol=1e-6, err_msg=name)


def test_sums_over_steps_hold_no_gradient_of_what_is_frozen():
  params, grad = _tree(), _tree()
  groups = optimizer.classifier_groups(0.0, frozen=('backbone/bn/.*',))
  tx = optimizer.make_optimizer(
    params, schedule=schedules.constant(1.0), groups=groups, accumulate=3
  )
  _, state = tx.update(grad, tx.init(params), params)
  assert isinstance(state, optax.MultiStepsState)
  for name, kept in trees.flatten_names(state.acc_grads).items():
    assert np.any(np.asarray(kept)) != name.startswith('backbone/bn'), name


def test_what_an_earlier_group_trains_a_later_frozen_one_does_not_stop():
  params = {'a': {'bias': jnp.ones(2)}, 'b': {'bias': jnp.ones(2)}}
  grad = jax.tree.map(jnp.ones_like, params)
  groups = [optimizer.Group('a/.*'), optimizer.Group('.*', frozen=True)]
  for accumulate in (1, 2):
    tx = optimizer.make_optimizer(
      params, schedule=schedules.constant(0.1), groups=groups, accumulate=accumulate
    )
    result = _walk(tx, params, [grad] * accumulate)[-1]
    np.testing.assert_allclose(result['a/bias'], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(result['b/bias'], 1.0)


def test_of_equal_patterns_the_first_group_counts():
  params, grad = _tree(), _tree()
  for pattern, still in (('(?:.*/)?bias', 'bias'), ('.*', '')):
    groups = optimizer.classifier_groups(0.0, scratch=(), frozen=(pattern,))
    tx = optimizer.make_optimizer(params, schedule=schedules.constant(1.0), groups=groups)
    (result,) = _walk(tx, params, [grad])
    for name, value in trees.flatten_names(params).items():
      assert np.array_equal(result[name], value) == name.endswith(still), (pattern, name)


@pytest.mark.parametrize(
  ('rule', 'oracle'),
  [
    (optimizer.Rule.ADAM, optax.adam),
    (optimizer.Rule.ADAMW, functools.partial(optax.adamw, weight_decay=0.1)),
    (optimizer.Rule.LION, functools.partial(optax.lion, weight_decay=0.1)),
    (optimizer.Rule.LAMB, functools.partial(optax.lamb, weight_decay=0.1)),
  ],
)
def test_other_rules_are_those_of_optax_with_the_rate_of_the_group(rule, oracle):
  params, grads = {'w': jnp.ones(4), 'v': jnp.ones(4)}, [{'w': jnp.arange(4.0)} for _ in range(2)]
  decay = 0.0 if rule is optimizer.Rule.ADAM else 0.1
  tx = optimizer.make_optimizer(
    params,
    descent=optimizer.Descent(rule),
    schedule=schedules.constant(0.01),
    groups=[optimizer.Group('w', lr=50.0, weight_decay=decay), optimizer.Group('v', frozen=True)],
  )
  path = _walk(tx, params, [{**g, 'v': jnp.ones(4)} for g in grads])
  expected = _walk(oracle(0.5), {'w': params['w']}, grads)
  np.testing.assert_allclose(path[-1]['w'], expected[-1]['w'], rtol=1e-5)
  np.testing.assert_array_equal(path[-1]['v'], 1)


def test_groups_must_cover_and_must_match():
  make = functools.partial(optimizer.make_optimizer, _tree(), schedule=schedules.constant(1.0))
  with pytest.raises(errors.UserError, match='classifier/kernel'):
    make(groups=[optimizer.Group('backbone/.*')])
  with pytest.raises(errors.UserError, match='klassifier'):
    make(groups=optimizer.classifier_groups(0.0, scratch=('klassifier',)))
  with pytest.raises(errors.UserError, match='stem'):
    make(groups=optimizer.classifier_groups(0.0, frozen=('backbone/stem/.*',)))
