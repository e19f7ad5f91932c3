import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.optim import ema


def test_the_average_is_a_copy_that_survives_donation():
  params = {'w': jnp.ones(3)}
  average = ema.init(params)
  step = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)
  moved = step(params)
  np.testing.assert_array_equal(average['w'], 1)
  np.testing.assert_array_equal(moved['w'], 2)


def test_update_follows_the_formula_and_warms_up():
  rng = np.random.default_rng(0)
  average, expected = {'w': jnp.zeros(4)}, np.zeros(4)
  update = jax.jit(lambda e, p, t: ema.update(e, p, 0.9, t))
  for t in range(120):
    new = rng.normal(size=4).astype(np.float32)
    weight = min(0.9, (1 + t) / (10 + t))
    expected = weight * expected + (1 - weight) * new
    average = update(average, {'w': jnp.asarray(new)}, t)
  np.testing.assert_allclose(average['w'], expected, rtol=1e-4, atol=1e-6)


def test_equal_parameters_are_a_fixed_point_and_dtypes_stay():
  params = {'w': jnp.asarray(np.random.default_rng(0).normal(size=9), jnp.bfloat16)}
  average = ema.update(params, params, 0.999, 1000)
  assert average['w'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(average['w'], params['w'])
