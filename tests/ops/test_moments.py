"""Sums of maps and of their squares."""

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import platforms
from pnoc_jax.ops import moments

_X = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)


def test_both_forms_are_the_sums():
  expected = _X.sum((0, 1, 2), np.float64), np.square(_X).sum((0, 1, 2), np.float64)
  for form in (moments._plain, moments._at_once):
    for ours, sums in zip(form(jnp.asarray(_X)), expected, strict=True):
      np.testing.assert_allclose(ours, sums, rtol=1e-5, atol=1e-5)


def test_both_forms_have_equal_gradients():
  weights = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)

  def loss(x, form):
    total, squares = form(x)
    return jnp.sum(total * weights[0] + squares * weights[1])

  once, plain = (jax.grad(loss)(jnp.asarray(_X), f) for f in (moments._at_once, moments._plain))
  np.testing.assert_array_equal(once, plain)


def test_a_gpu_reduces_pairs():
  def text():
    return jax.jit(lambda x: moments.sums(x)).lower(_X).as_text()

  pair = f'tensor<{"x".join(map(str, _X.shape))}xf32>, ' * 2
  assert platforms.kind() == 'cpu' and pair not in text()
  with platforms.traced_for('gpu'):
    assert pair in text()
  assert platforms.kind() == 'cpu' and pair not in text()
