import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.losses import c2am

_RNG = np.random.default_rng(0)


def _cosines(a, b):
  a, b = a.astype(np.float64), b.astype(np.float64)
  a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
  return np.clip(a @ b.T, 0.0005, 0.9995)


def _vectors(n=6, channels=5):
  # Some cosines below the lower bound, most above.
  return (_RNG.normal(size=(n, channels)) + 0.4).astype(np.float32)


@pytest.mark.parametrize('alpha', [0.25, 1.0])
def test_positive_loss_weighs_by_rank(alpha):
  v = _vectors()
  cosines = _cosines(v, v)
  total = 0.0
  for i, row in enumerate(cosines):
    # The vector itself is the most similar.
    order = sorted(range(len(row)), key=lambda j: (-row[j], j))
    assert order[0] == i
    for j, value in enumerate(row):
      total += np.exp(-alpha * (order.index(j) - 1)) * -np.log(value)
  found = c2am.positive_loss(jnp.asarray(v), alpha=alpha)
  np.testing.assert_allclose(found, total / len(v) ** 2, rtol=1e-4)


def test_negative_loss_counts_every_pair():
  v_b, v_f = _vectors(), _vectors()
  expected = -np.log(1 - _cosines(v_b, v_f)).mean()
  found = c2am.negative_loss(jnp.asarray(v_b), jnp.asarray(v_f))
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_total_is_the_sum_of_its_parts():
  v_f, v_b = jnp.asarray(_vectors()), jnp.asarray(_vectors())
  total, parts = c2am.c2am_loss(v_f, v_b, alpha=0.5)
  np.testing.assert_allclose(parts['loss/foreground'], c2am.positive_loss(v_f, alpha=0.5))
  np.testing.assert_allclose(parts['loss/background'], c2am.positive_loss(v_b, alpha=0.5))
  np.testing.assert_allclose(parts['loss/contrast'], c2am.negative_loss(v_b, v_f))
  np.testing.assert_allclose(total, sum(parts.values()), rtol=1e-6)


def test_equal_opposite_and_vanishing_vectors_stay_finite():
  one = np.ones((1, 4), np.float32)
  v = jnp.asarray(np.concatenate([one, one, -one, 0 * one]))

  def loss(v_f, v_b):
    return c2am.c2am_loss(v_f, v_b)[0]

  # In bfloat16 0.9995 is 1: the losses must not be computed there.
  gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  for dtype in (jnp.float32, jnp.bfloat16):
    value, grads = gradients(v.astype(dtype), v.astype(dtype))
    assert np.isfinite(value)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in grads)


def test_gradients_are_finite_differences():
  v_f, v_b = _vectors(), _vectors()

  def loss(v_f, v_b):
    return c2am.c2am_loss(v_f, v_b)[0]

  value = jax.jit(loss)
  grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(v_f, v_b)
  h = 1e-3
  for argument in (0, 1):
    # Along the gradient, where float32 tells the two values apart.
    direction = np.asarray(grads[argument])
    direction = direction / np.linalg.norm(direction)
    values = []
    for sign in (1, -1):
      moved = [v_f, v_b]
      moved[argument] = moved[argument] + sign * h * direction
      values.append(value(*moved))
    finite = (values[0] - values[1]) / (2 * h)
    np.testing.assert_allclose((grads[argument] * direction).sum(), finite, rtol=1e-2)


def test_hint_loss_is_the_mean_over_hinted_cells():
  logits = _RNG.normal(size=(2, 3, 4, 1)).astype(np.float32)
  hint = _RNG.uniform(size=(2, 3, 4, 1)).astype(np.float32)
  hint[0, 0, 0] = 0.4
  valid = np.ones((2, 3, 4), bool)
  valid[1, :, 2:] = False
  for smoothing, target in ((0.0, 1.0), (0.1, 0.95)):
    for mask in (None, valid):
      p = 1 / (1 + np.exp(-logits.astype(np.float64)))
      losses = -target * np.log(p) - (1 - target) * np.log(1 - p)
      chosen = (hint >= np.float32(0.4)) & (True if mask is None else mask[..., None])
      found = c2am.hint_loss(
        jnp.asarray(logits), jnp.asarray(hint), threshold=0.4, smoothing=smoothing, valid=mask
      )
      np.testing.assert_allclose(found, losses[chosen].mean(), rtol=1e-5)


def test_hint_loss_without_hints_is_zero_with_zero_gradient():
  logits = jnp.asarray(_RNG.normal(size=(2, 3, 4, 1)), jnp.float32)
  value, grad = jax.value_and_grad(c2am.hint_loss)(logits, jnp.full(logits.shape, 0.39))
  assert value == 0
  assert not np.asarray(grad).any()
