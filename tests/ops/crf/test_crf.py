import functools
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from pnoc_jax.ops import crf

_FIXTURE = Path(__file__).parents[2] / 'fixtures' / 'crf.npz'
_BOTH = pytest.mark.parametrize('filter', list(crf.Filter))


@functools.cache
def _crf(steps=10, kernels=crf.LABELS, filter=crf.Filter.LATTICE):
  return jax.jit(functools.partial(crf.dense_crf, steps=steps, kernels=kernels, filter=filter))


def _scene(shape, num_labels=3, seed=0):
  """Returns a smooth image with noise, and labels in blocks."""
  rng = np.random.default_rng(seed)
  y, x = np.indices(shape)
  base = np.stack([6 * x, 5 * y, 3 * (x + y)], -1) % 90
  image = (base + rng.integers(0, 12, (*shape, 3))).astype(np.uint8)
  return image, ((x // 5 + y // 7) % num_labels).astype(np.int32)


def test_bucketed_batch_has_the_marginals_of_pydensecrf():
  recorded = np.load(_FIXTURE)
  h, w = recorded['labels'].shape
  image, valid = np.full((2, h + 2, w + 3, 3), 77, np.uint8), np.zeros((2, h + 2, w + 3), bool)
  # What lies outside is not read, whatever it is.
  unary = np.full((2, h + 2, w + 3, 3), np.nan, np.float32)
  image[0, :h, :w] = recorded['image']
  unary[0, :h, :w] = crf.label_unary(recorded['labels'], 3, 0.7)
  valid[0, :h, :w] = True
  # The other example is another part of the scene, of another size.
  image[1, : h - 6, : w - 4] = recorded['image'][6:, 4:]
  unary[1, : h - 6, : w - 4] = crf.label_unary(recorded['labels'][6:, 4:], 3, 0.7)
  valid[1, : h - 6, : w - 4] = True
  result = np.asarray(jax.jit(jax.vmap(_crf()))(unary, image, valid))
  np.testing.assert_allclose(result[0, :h, :w], recorded['from_labels'], atol=1e-4)
  np.testing.assert_allclose(result[1, : h - 6, : w - 4], recorded['from_part'], atol=1e-4)
  assert not result[~valid].any()
  # The scene is not trivial: the CRF moves many pixels.
  assert (recorded['from_labels'].argmax(-1) != recorded['labels']).mean() > 0.05


def test_softmax_marginals_are_those_of_pydensecrf():
  recorded = np.load(_FIXTURE)
  unary = crf.softmax_unary(recorded['probabilities'])
  marginals = _crf(10, crf.PROBABILITIES)(unary, recorded['image'])
  np.testing.assert_allclose(marginals, recorded['from_softmax'], atol=1e-4)


def test_exact_filter_equals_all_pairs_in_numpy():
  image, labels = _scene((30, 40))
  unary = np.asarray(crf.label_unary(labels, 3, 0.7), np.float64).reshape(-1, 3)
  y, x = np.indices(labels.shape)
  place = np.stack([x, y], -1).reshape(-1, 2).astype(float)
  joint = np.concatenate([place / 50, image.reshape(-1, 3) / 5.0], 1)
  kernels = []
  for features, weight in ((place / 3, 3), (joint, 10)):
    kernel = np.exp(-0.5 * ((features[:, None] - features) ** 2).sum(-1))
    norm = kernel.sum(1) ** -0.5
    kernels.append(weight * norm[:, None] * kernel * norm)
  q = np.exp(-unary)
  for _ in range(5):
    q = np.exp(-unary + sum(kernel @ q for kernel in kernels))
    q /= q.sum(1, keepdims=True)
  result = _crf(5, filter=crf.Filter.EXACT)(unary.reshape(30, 40, 3), image)
  np.testing.assert_allclose(result.reshape(-1, 3), q, atol=1e-4)


def test_exact_filter_is_near_the_lattice():
  recorded = np.load(_FIXTURE)
  unary = crf.label_unary(recorded['labels'], 3, 0.7)
  exact = np.asarray(_crf(filter=crf.Filter.EXACT)(unary, recorded['image']))
  assert (exact.argmax(-1) == recorded['from_labels'].argmax(-1)).mean() > 0.97


def test_bucketed_equals_unbucketed_with_the_exact_filter():
  image, labels = _scene((14, 20))
  unary = np.asarray(crf.label_unary(labels, 3, 0.7))
  pad = ((0, 4), (0, 3), (0, 0))
  valid = np.pad(np.ones((14, 20), bool), pad[:2])
  run = _crf(3, filter=crf.Filter.EXACT)
  result = np.asarray(run(np.pad(unary, pad, constant_values=np.nan), np.pad(image, pad), valid))
  np.testing.assert_allclose(result[:14, :20], run(unary, image), atol=1e-5)
  assert not result[~valid].any()


@_BOTH
def test_gradient_is_that_of_finite_differences(filter):
  image, labels = _scene((9, 11))
  unary = np.asarray(crf.label_unary(labels, 3, 0.7))
  rng = np.random.default_rng(3)
  # A large direction: float32 leaves few digits to differences.
  cotangent, direction = rng.normal(size=(2, *unary.shape)).astype(np.float32)
  valid = np.ones((9, 11), bool)
  valid[7:] = False

  def loss(u, image):
    soft = crf.Kernels(3.0, 0.5, 20.0, 10.0, 1.0)
    q = crf.dense_crf(u, image, valid, steps=3, kernels=soft, filter=filter)
    return (q * cotangent).sum()

  step = 1e-2
  unaries = np.stack([unary, unary + step * direction, unary - step * direction])
  # As a batch: gradients go through vmap, too.
  losses, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(unaries, np.stack([image] * 3))
  gradient = np.asarray(gradients[0])
  assert not gradient[7:].any()
  slope = (losses[1] - losses[2]) / (2 * step)
  np.testing.assert_allclose(slope, np.vdot(gradient, direction), rtol=5e-3)


def test_label_unary_energies():
  labels = np.array([[0, 1]])
  two = np.asarray(crf.label_unary(labels, 2, 0.7))
  np.testing.assert_allclose(two, [[[0.3567, 1.2040], [1.2040, 0.3567]]], atol=1e-4)
  three = np.asarray(crf.label_unary(labels, 3, 0.7))
  np.testing.assert_allclose(three[0, 0], [0.3567, 1.8971, 1.8971], atol=1e-4)
  # Of four labels this image has three: energies as of three, and the fourth never wins.
  four = np.asarray(crf.label_unary(labels, 4, 0.7, present=np.array([1, 1, 0, 1], bool)))
  np.testing.assert_allclose(four[..., [0, 1, 3]], three, atol=1e-6)
  assert np.asarray(jax.nn.softmax(-four))[..., 2].max() == 0
  with pytest.raises(ValueError, match='strictly within'):
    crf.label_unary(labels, 2, 1.0)


def test_absent_labels_leave_the_others_alone():
  image, labels = _scene((12, 13))
  run = _crf(3, filter=crf.Filter.EXACT)
  three = run(crf.label_unary(labels, 3, 0.7), image)
  present = np.array([1, 1, 0, 1, 0], bool)
  wide = np.flatnonzero(present)[labels]
  five = np.asarray(run(crf.label_unary(wide, 5, 0.7, present=present), image))
  np.testing.assert_allclose(five[..., present], three, atol=1e-5)
  np.testing.assert_array_equal(five[..., ~present], 0)


def test_softmax_unary_energies():
  p = np.array([[[0.5, 0.5, 0.0]]], np.float32)
  np.testing.assert_allclose(
    crf.softmax_unary(p)[0, 0], [math.log(2), math.log(2), -math.log(1e-5)], rtol=1e-6
  )
  scaled = np.asarray(crf.softmax_unary(p, scale=0.7))[0, 0]
  np.testing.assert_allclose(np.exp(-scaled), [0.45, 0.45, 0.1], rtol=1e-5)


def test_no_step_returns_the_labels():
  image, labels = _scene((8, 9))
  q = np.asarray(_crf(0, filter=crf.Filter.EXACT)(crf.label_unary(labels, 3, 0.7), image))
  np.testing.assert_array_equal(q.argmax(-1), labels)
  np.testing.assert_allclose(q.max(-1), 0.7, atol=1e-5)


@pytest.mark.parametrize('name', ['gaussian_sxy', 'bilateral_sxy', 'bilateral_srgb'])
def test_kernels_without_a_width_are_refused(name):
  with pytest.raises(ValueError, match=f'{name} is 0.0; the width of a kernel is above 0'):
    crf.Kernels(**{name: 0.0})


def test_scaled_kernels_shrink_in_space_only():
  assert crf.LABELS.scaled(2.0) == crf.Kernels(1.5, 3.0, 25.0, 5.0, 10.0)
