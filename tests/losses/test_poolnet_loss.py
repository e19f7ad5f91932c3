import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.losses import poolnet as saliency


def test_loss_is_the_sum_over_valid_pixels_and_the_mean_over_images():
  rng = np.random.default_rng(0)
  z = rng.normal(0, 3, (2, 4, 5))
  target = rng.integers(0, 256, z.shape) / 255
  valid = rng.random(z.shape) < 0.7
  p = 1 / (1 + np.exp(-z))
  losses = -target * np.log(p) - (1 - target) * np.log(1 - p)
  arrays = jnp.asarray(z, jnp.float32), jnp.asarray(target, jnp.float32)
  np.testing.assert_allclose(saliency.saliency_loss(*arrays), losses.sum() / 2, rtol=1e-5)
  found = saliency.saliency_loss(*arrays, valid=jnp.asarray(valid))
  np.testing.assert_allclose(found, losses[valid].sum() / 2, rtol=1e-5)


def test_extreme_logits_and_garbage_in_the_padding_stay_finite():
  z = jnp.array([[[1e4, -1e4, jnp.nan]]])
  target = jnp.array([[[0.0, 1.0, 0.5]]])
  valid = jnp.array([[[True, True, False]]])
  loss = lambda z: saliency.saliency_loss(z, target, valid=valid)  # noqa: E731
  np.testing.assert_allclose(loss(z), 2e4, rtol=1e-6)
  np.testing.assert_allclose(jax.grad(loss)(z.at[..., 2].set(0.0)), [[[1.0, -1.0, 0.0]]])
