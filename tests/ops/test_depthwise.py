"""The sum over the taps against a loop in numpy, and against XLA's grouped form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.ops import convolution, depthwise

Radix = convolution.Radix
WINDOWS = {
  'plain': (3, convolution.Window()),
  'strided': (5, convolution.Window(stride=2)),
  'dilated': (3, convolution.Window(dilation=2)),
  'padded_before': (3, convolution.Window(stride=2, pad=0)),
}


def _arrays(size):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)
  return x, rng.normal(size=(size, size, 1, 3)).astype(np.float32)


def _oracle(x, kernel, window):
  size, pad = len(kernel), window.padding(len(kernel))
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))).astype(np.float64)
  reach = window.dilation * (size - 1) + 1
  rows, columns = (range(0, n - reach + 1, window.stride) for n in x.shape[1:3])
  y = np.zeros((len(x), len(rows), len(columns), x.shape[3]))
  for a, top in enumerate(rows):
    for b, left in enumerate(columns):
      seen = x[:, top : top + reach : window.dilation, left : left + reach : window.dilation]
      y[:, a, b] = (seen * kernel[:, :, 0]).sum((1, 2))
  return y


@pytest.mark.parametrize(('size', 'window'), WINDOWS.values(), ids=WINDOWS)
def test_both_forms_and_their_gradients(size, window):
  x, kernel = _arrays(size)
  expected = _oracle(x, kernel, window)
  weight = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)

  @functools.partial(jax.jit, static_argnums=0)
  def run(radix, x, kernel):
    def loss(x, kernel):
      y = depthwise.convolve(x, kernel, window, radix=radix)
      return jnp.vdot(y, weight), y

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)

  split, grouped = run(Radix.SPLIT, x, kernel), run(Radix.GROUPED, x, kernel)
  np.testing.assert_allclose(split[1], expected, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), split, grouped)


def test_in_bfloat16_the_kernel_has_a_gradient_in_float32():
  x, kernel = _arrays(3)

  @jax.jit
  def gradient(x, kernel):
    def loss(x, kernel):
      y = depthwise.convolve(x, kernel, convolution.Window(), radix=Radix.SPLIT)
      assert y.dtype == x.dtype
      return y.astype(jnp.float32).sum()

    return jax.grad(loss, argnums=(0, 1))(x, kernel)

  exact = gradient(x, kernel)
  for_image, for_kernel = gradient(x.astype(jnp.bfloat16), kernel)
  assert (for_image.dtype, for_kernel.dtype) == (jnp.bfloat16, jnp.float32)
  np.testing.assert_allclose(for_image, exact[0], atol=0.05)
  np.testing.assert_allclose(for_kernel, exact[1], rtol=0.01, atol=0.05)


def test_the_form_follows_the_platform():
  x, kernel = _arrays(3)
  jaxpr = {r: str(jax.make_jaxpr(_convolve(r))(x, kernel)) for r in (Radix.AUTO, Radix.GROUPED)}
  assert 'conv_general_dilated' not in jaxpr[Radix.AUTO]  # The tests run on CPUs.
  assert 'conv_general_dilated' in jaxpr[Radix.GROUPED]
  lowered = jax.jit(_convolve(Radix.BY_PLATFORM)).trace(x, kernel)
  for platform, convolves in (('cpu', False), ('cuda', True), ('tpu', True)):
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert ('stablehlo.convolution' in text) == convolves


def _convolve(radix):
  return lambda x, kernel: depthwise.convolve(x, kernel, convolution.Window(), radix=radix)
