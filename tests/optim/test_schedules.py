import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.optim import schedules

_TOTAL = 9915


@pytest.mark.parametrize(
  ('schedule', 'at_start', 'at_quarter', 'at_half', 'at_end'),
  [
    (schedules.ramp(0, 4, _TOTAL, 0.5), 0, 2, 4, 4),
    (schedules.ramp(0.3, 1, _TOTAL), 0.3, 0.475, 0.65, 1),
    (schedules.ramp(0, 1, _TOTAL), 0, 0.25, 0.5, 1),
    (schedules.ramp(1, 0.2, _TOTAL, 0.5), 1, 0.6, 0.2, 0.2),
    (schedules.ramp(0, 4, _TOTAL, 0), 4, 4, 4, 4),
    (schedules.constant(0.7), 0.7, 0.7, 0.7, 0.7),
  ],
)
def test_coefficients_of_the_recipe(schedule, at_start, at_quarter, at_half, at_end):
  steps = np.array([0, _TOTAL / 4, _TOTAL / 2, _TOTAL, 2 * _TOTAL])
  expected = [at_start, at_quarter, at_half, at_end, at_end]
  np.testing.assert_allclose([schedule(step) for step in steps], expected, atol=1e-6)
  np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(0)), at_start, atol=1e-6)


def test_polynomial_decay_by_hand():
  total = 4957
  schedule = schedules.polynomial(0.1, total)
  multiplier = [schedule(k) / 0.1 for k in (0, total / 2, 0.9 * total, total, total + 9)]
  np.testing.assert_allclose(multiplier, [1, 0.5359, 0.1259, 0, 0], atol=1e-4)
  assert schedule(total - 1) > 0
  np.testing.assert_allclose(
    schedules.polynomial(0.1, total, power=1.0)(total / 4), 0.075, rtol=1e-6
  )


def test_warmup_scales_the_first_steps():
  schedule = schedules.polynomial(1.0, 100, power=1.0, warmup=4)
  expected = [0.25, 0.5 * 0.99, 0.75 * 0.98, 0.97, 0.96]
  np.testing.assert_allclose([schedule(k) for k in range(5)], expected, rtol=1e-6)


def test_rate_of_the_noc_has_the_peak_of_figure_7():
  effective = schedules.product(schedules.polynomial(0.1, 1000), schedules.ramp(0, 1, 1000))
  values = np.asarray(effective(jnp.arange(1000)))
  assert abs(values.argmax() - 526) <= 1
  np.testing.assert_allclose(values.max(), 0.02686, atol=1e-5)
