"""What the compiler makes of a training step for several devices: what travels between them."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import platforms, states
from pnoc_jax.losses import forward, multilabel
from pnoc_jax.nn import classifier, layers
from pnoc_jax.ops import cam, convolution, depthwise
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from tests import networks

DEVICES, SIZE = 4, 16


def _loss(dtype=jnp.float32):
  """A narrow ResNeSt's loss, and shapes of its variables."""
  backbone = networks.make_backbone(
    'resnest_tiny', widths=(4, 4, 4, 4), last_stage='layer1', dtype=dtype
  )
  model = classifier.Classifier(backbone, 3)

  def loss(params, stats, image, label):
    found, stats = forward.train(model, params, stats, image)
    return multilabel.multilabel_loss(cam.logits(found), label), stats

  def init():
    return states.init_variables(model, jax.random.key(0), (SIZE, SIZE, 3))

  return loss, init


@pytest.mark.parametrize(('kind', 'gathers'), [('gpu', False), ('tpu', True)])
def test_no_device_gathers_the_batch_in_the_form_of_gpus(kind, gathers):
  with platforms.traced_for(kind):
    loss, init = _loss()
    variables = jax.eval_shape(init)
    step = compiler.jit(
      jax.value_and_grad(loss, has_aux=True),
      meshes.make_mesh(jax.devices()[:DEVICES]),
      ins=(REPLICATED, REPLICATED, BATCH, BATCH),
    )
    image = jax.ShapeDtypeStruct((DEVICES, SIZE, SIZE, 3), jnp.float32)
    label = jax.ShapeDtypeStruct((DEVICES, 3), jnp.float32)
    lowered = step.lower(variables['params'], variables['batch_stats'], image, label)
  text = lowered.compile().as_text()
  kinds = r' (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\('
  found = collections.Counter(re.findall(kinds, text))
  # Gradients and the sums of the normalisation are added up in any case.
  assert found['all-reduce']
  # A TPU's form is why there are two: the compiler of CPUs and GPUs gathers images for it.
  assert bool(set(found) - {'all-reduce'}) is gathers
  assert convolution.form(convolution.Radix.AUTO) is convolution.Radix.SPLIT


def test_gradients_of_kernels_leave_a_bfloat16_product_in_float32():
  loss, init = _loss(dtype=jnp.bfloat16)
  variables = init()
  keys = jax.random.split(jax.random.key(1))
  image = jax.random.normal(keys[0], (2, SIZE, SIZE, 3))
  label = (jax.random.uniform(keys[1], (2, 3)) > 0.5).astype(jnp.float32)
  grads, _ = jax.jit(jax.grad(loss, has_aux=True))(
    variables['params'], variables['batch_stats'], image, label
  )
  kernels = {
    jax.tree_util.keystr(path): np.asarray(x)
    for path, x in jax.tree_util.tree_leaves_with_path(grads)
    if 'kernel' in jax.tree_util.keystr(path)
  }
  assert len(kernels) >= 7
  for name, grad in kernels.items():
    rounded = grad.astype(jnp.bfloat16).astype(np.float32)
    assert grad.dtype == np.float32
    # A sum in bfloat16 would hold nothing but numbers of bfloat16.
    assert (grad != rounded).mean() > 0.5, name


@pytest.mark.parametrize(
  ('kind', 'count', 'rounded'),
  [('cpu', 1, False), ('tpu', 1, False), ('tpu', 4, False), ('gpu', 4, False), ('gpu', 1, True)],
)
def test_every_form_keeps_the_sum_of_a_kernel_but_on_one_gpu(kind, count, rounded):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 5, 6, 4)), jnp.bfloat16)
  forms = {
    'plain': (convolution.convolve, convolution.Window(), 4),
    'radix': (convolution.convolve, convolution.Window(groups=2), 2),
    'depthwise': (depthwise.convolve, convolution.Window(groups=4), 1),
  }
  for name, (convolve, window, inputs) in forms.items():
    kernel = jnp.asarray(rng.normal(size=(3, 3, inputs, 4)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(2, 5, 6, 4)), jnp.float32)

    def loss(x, kernel, convolve=convolve, window=window, weight=weight):
      return jnp.vdot(convolve(x, kernel, window).astype(jnp.float32), weight)

    with platforms.traced_for(kind, count):
      low = jax.grad(loss, (0, 1))(x, kernel)
    exact = jax.grad(loss, (0, 1))(x.astype(jnp.float32), kernel)
    assert low[0].dtype == jnp.bfloat16 and low[1].dtype == jnp.float32
    is_rounded = low[1] == low[1].astype(jnp.bfloat16).astype(jnp.float32)
    assert bool(is_rounded.mean() > 0.5) is rounded, name
    for ours, expected in zip(low, exact, strict=True):
      away = jnp.abs(ours.astype(jnp.float32) - expected).max()
      assert away < 0.02 * jnp.abs(expected).max(), name


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3, 7])
def test_gradients_in_bfloat16_are_those_in_float32(size, stride):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 9, 12, 3)), jnp.bfloat16)
  kernel = jnp.asarray(rng.normal(size=(size, size, 3, 5)), jnp.bfloat16).astype(jnp.float32)
  dilation = 2 if size == 3 else 1

  def loss(x, kernel, dtype):
    conv = layers.Conv(5, size, stride=stride, dilation=dilation, dtype=dtype)
    return jnp.sum(conv.apply({'params': {'kernel': kernel}}, x).astype(jnp.float32))

  gradients = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
  low, full = (gradients(x, kernel, dtype) for dtype in (jnp.bfloat16, jnp.float32))
  assert low[0].dtype == jnp.bfloat16 and low[1].dtype == jnp.float32
  # Products of ones with numbers of bfloat16: exact, but for the order of the sum.
  np.testing.assert_allclose(low[1], full[1], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(*(g[0].astype(jnp.float32) for g in (low, full)), rtol=2e-2, atol=2e-2)
