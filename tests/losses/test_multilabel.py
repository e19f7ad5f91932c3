import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.losses import multilabel

_RNG = np.random.default_rng(0)


def test_loss_matches_the_formula():
  z, y = _RNG.normal(size=(4, 5)), _RNG.uniform(size=(4, 5))
  weight = _RNG.uniform(size=5)
  p = 1 / (1 + np.exp(-z))
  terms = -y * np.log(p) - (1 - y) * np.log(1 - p)
  z, y = jnp.asarray(z, jnp.float32), jnp.asarray(y, jnp.float32)
  np.testing.assert_allclose(multilabel.multilabel_losses(z, y), terms.mean(1), rtol=1e-5)
  np.testing.assert_allclose(multilabel.multilabel_loss(z, y), terms.mean(), rtol=1e-5)
  weighted = multilabel.multilabel_loss(z, y, class_weight=jnp.asarray(weight))
  np.testing.assert_allclose(weighted, (terms * weight).mean(), rtol=1e-5)


def test_extreme_logits_stay_finite_and_half_precision_is_computed_in_float32():
  z = jnp.array([[1e4, -1e4]], jnp.bfloat16)
  loss, grad = jax.value_and_grad(multilabel.multilabel_loss)(z, jnp.array([[0.0, 1.0]]))
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, 1e4, rtol=1e-2)
  np.testing.assert_allclose(grad.astype(jnp.float32), [[0.5, -0.5]])


def test_smoothing_by_hand():
  np.testing.assert_allclose(multilabel.smooth_label(jnp.array([1.0, 0.0]), 0.1), [0.95, 0.05])
  np.testing.assert_array_equal(multilabel.smooth_label(jnp.array([1.0, 0.0]), 0.0), [1, 0])
