import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.ops import erase, resize

_RNG = np.random.default_rng(0)
_CAM = _RNG.normal(size=(3, 4, 5, 6)).astype(np.float32)
_PICKED = np.eye(6, dtype=np.float32)[[1, 4, 0]]
_IMAGE = _RNG.normal(size=(3, 8, 10, 3)).astype(np.float32)


def _mask(cam, **options):
  return erase.class_mask(jnp.asarray(cam), jnp.asarray(_PICKED), size=(8, 10), **options)


def test_mask_is_rectified_then_enlarged_then_divided_by_its_maximum():
  one = np.stack([_CAM[0, :, :, 1], _CAM[1, :, :, 4], _CAM[2, :, :, 0]])[..., None]
  large = np.asarray(resize.bilinear(jnp.maximum(one, 0), (8, 10)))
  np.testing.assert_allclose(
    _mask(_CAM, over=erase.Over.BATCH), large / (large.max() + 1e-5), atol=1e-6
  )
  largest = large.max((1, 2, 3), keepdims=True)
  np.testing.assert_allclose(
    _mask(_CAM, over=erase.Over.IMAGE), large / (largest + 1e-5), atol=1e-6
  )


def test_rows_without_a_class_and_maps_without_evidence_erase_nothing():
  picked = jnp.asarray(_PICKED).at[1].set(0)
  mask = erase.class_mask(jnp.asarray(_CAM), picked, size=(8, 10), over=erase.Over.IMAGE)
  assert not np.asarray(mask)[1].any()
  image = jnp.asarray(_IMAGE)
  nothing = _mask(-np.abs(_CAM))
  np.testing.assert_array_equal(erase.erase_soft(image, nothing), _IMAGE)
  np.testing.assert_array_equal(erase.erase_hard(image, nothing), _IMAGE)


def test_erasing_by_hand():
  mask = jnp.array([0.0, 0.2, 0.3, 1.0]).reshape(1, 1, 4, 1)
  image = jnp.full((1, 1, 4, 2), 2.0)
  np.testing.assert_allclose(erase.erase_soft(image, mask)[0, 0, :, 0], [2, 1.6, 1.4, 0])
  # As the code of the reference keeps masks <= delta.
  np.testing.assert_allclose(erase.erase_hard(image, mask)[0, 0, :, 1], [2, 2, 0, 0])
  np.testing.assert_allclose(erase.erase_hard(image, mask, threshold=0.1)[0, 0, :, 1], [2, 0, 0, 0])


@pytest.mark.parametrize('over', list(erase.Over))
def test_gradients_flow_through_the_soft_mask_and_its_maximum(over):
  weight = jnp.asarray(_RNG.normal(size=_IMAGE.shape).astype(np.float32))

  def loss(cam):
    return (weight * erase.erase_soft(jnp.asarray(_IMAGE), _mask(cam, over=over))).sum()

  grad = np.asarray(jax.jit(jax.grad(loss))(_CAM))
  value = jax.jit(loss)
  classes = _PICKED.argmax(1)
  one = np.take_along_axis(_CAM, classes[:, None, None, None], 3)[..., 0]
  h = 1e-2
  cells = [cell for cell in np.ndindex(one.shape) if abs(one[cell]) > h][::5]
  # The cell of the maximum: its gradient is that of the denominator.
  cells.append(np.unravel_index(one.argmax(), one.shape))
  for b, y, x in cells:
    up, down = _CAM.copy(), _CAM.copy()
    up[b, y, x, classes[b]] += h
    down[b, y, x, classes[b]] -= h
    finite = (value(up) - value(down)) / (2 * h)
    np.testing.assert_allclose(grad[b, y, x, classes[b]], finite, rtol=2e-2, atol=2e-2)
  # Classes that were not picked get none.
  assert not np.where(_PICKED[:, None, None, :] == 0, grad, 0).any()


def test_only_the_maximum_over_the_batch_links_the_images():
  # The second image holds the maximum.
  cam = _CAM * np.array([0.1, 1, 0.1], np.float32)[:, None, None, None]

  def from_others(over):
    grad = jax.grad(lambda x: _mask(x, over=over)[0].sum())(cam)
    return np.abs(np.asarray(grad)[1:]).max((1, 2, 3))

  batch = from_others(erase.Over.BATCH)
  assert batch[0] > 0.1
  assert batch[1] == 0
  np.testing.assert_array_equal(from_others(erase.Over.IMAGE), 0)


def test_no_gradient_through_the_hard_mask():
  def loss(cam):
    return erase.erase_hard(jnp.asarray(_IMAGE), _mask(cam, over=erase.Over.IMAGE)).sum()

  assert not np.asarray(jax.grad(loss)(_CAM)).any()
