"""TensorFlow's padding, alone and on padded images."""

import jax
import numpy as np
import pytest

from pnoc_jax.nn import layers


@pytest.mark.parametrize(('size', 'stride', 'groups'), [(3, 2, 1), (5, 2, 4), (5, 3, 1), (3, 1, 4)])
def test_same_padding_is_xlas_of_every_image(size, stride, groups):
  conv = layers.Conv(4, size, stride, groups=groups, padding=layers.Padding.SAME)
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(size, size, 4 // groups, 4)).astype(np.float32)
  canvas = rng.normal(size=(3, 12, 11, 4)).astype(np.float32)
  valid, sizes = np.zeros(canvas.shape[:3], bool), ((12, 11), (9, 10), (10, 7))
  for i, (height, width) in enumerate(sizes):
    valid[i, :height, :width] = True
  apply = jax.jit(lambda x, valid=None: conv.apply({'params': {'kernel': kernel}}, x, valid))
  padded = np.asarray(apply(canvas, valid))
  for i, (height, width) in enumerate(sizes):
    image = canvas[i : i + 1, :height, :width]
    expected = jax.lax.conv_general_dilated(
      image,
      kernel,
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )
    np.testing.assert_allclose(apply(image), expected, atol=1e-5)
    _, rows, columns, _ = expected.shape
    np.testing.assert_allclose(padded[i, :rows, :columns], expected[0], atol=1e-5)
