"""Sums of maps, and normalisation by them, in the forms of GPUs and of other devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_both_forms_sum_by_image():
  with platforms.traced_for('gpu'):
    ours = jax.jit(moments.sums_by_image)(_X)
  np.testing.assert_allclose(ours, _X.sum((1, 2)), rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(moments.sums_by_image(jnp.asarray(_X)), _X.sum((1, 2)))


def _normalised(x, scale, bias, act, dtype):
  total, squares = moments.sums(x.astype(jnp.float32))
  count = x.size / x.shape[-1]
  mean = total / count
  inverse = jax.lax.rsqrt(squares / count - jnp.square(mean) + 1e-5)
  return moments.normalise_batch(x, mean, inverse, scale, bias, act, dtype)


def _gradients(kind, act, dtype):
  """The result, and the gradients of all arguments, in the form of a kind of devices."""
  rng = np.random.default_rng(2)
  weights = jnp.asarray(rng.normal(size=_X.shape), dtype)
  scale, bias = jnp.array([3.0, -2.0, 4.0]), jnp.array([2.0, 3.0, 4.0])

  @jax.jit
  def both(x, scale, bias):
    y, back = jax.vjp(lambda *a: _normalised(*a, act, dtype), x, scale, bias)
    return y, *back(weights)

  with platforms.traced_for(kind):
    return both(jnp.asarray(3 + 2 * _X, dtype), scale, bias)


@pytest.mark.parametrize('act', list(moments.Act))
def test_both_forms_normalise_alike(act):
  ours, plain = (_gradients(kind, act, jnp.float32) for kind in ('gpu', 'cpu'))
  y = np.asarray(ours[0])
  assert (y.min() == 0) == (act is not moments.Act.NONE)
  assert (y.max() == 6) == (act is moments.Act.RELU6)
  for a, b in zip(ours, plain, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_lower_precision_rounds_results_alone():
  ours, plain = (_gradients('gpu', moments.Act.RELU, dtype=t) for t in (jnp.bfloat16, jnp.float32))
  assert [x.dtype for x in ours] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
  for a, b in zip(ours, plain, strict=True):
    b = np.asarray(b)
    np.testing.assert_allclose(a.astype(np.float32), b, atol=0.02 * np.abs(b).max())


def test_a_gpu_has_gradients_by_the_formula_and_sums_by_rows():
  def text(kind):  # Functions of its own: what was traced before keeps its form.
    vector = jnp.ones(3)
    args = vector, vector, vector, vector, moments.Act.RELU, jnp.float32
    with platforms.traced_for(kind):
      normalised = jax.make_jaxpr(lambda x: moments.normalise_batch(x, *args))(_X)
      return f'{normalised} {jax.make_jaxpr(lambda x: moments.sums_by_image(x))(_X)}'

  for name in ('custom_vjp', 'optimization_barrier'):
    assert name in text('gpu') and name not in text('cpu') + text('tpu')
