"""FLOPs of a trace are those of the mathematics, and of XLA's own count."""

import jax
import jax.numpy as jnp
import pytest

from pnoc_jax.engine import cost
from pnoc_jax.errors import UserError
from pnoc_jax.parallel import targets

DEVICE = targets.DEVICES['H100']


def _flop(fn, *shapes):
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return cost.estimate(jax.make_jaxpr(fn)(*arguments), DEVICE).flop


def test_a_product_takes_two_a_multiplication():
  assert _flop(jnp.dot, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
  assert _flop(lambda x: jnp.einsum('bij,bkj->bik', x, x), (2, 3, 5)) == 2 * 2 * 3 * 3 * 5


def test_a_loop_counts_every_turn():
  def loop(x):
    return jax.lax.scan(lambda c, _: (jnp.dot(c, c), None), x, length=9)[0]

  assert _flop(loop, (4, 4)) == 9 * 2 * 4**3
  branch = jax.lax.cond
  assert _flop(lambda x: branch(x[0, 0] > 0, lambda: jnp.dot(x, x), lambda: x), (4, 4)) == 2 * 4**3


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('groups', [1, 2])
def test_convolutions_and_their_gradients_are_counted_as_xla_counts_them(stride, dilation, groups):
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      'SAME',
      rhs_dilation=(dilation, dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  def pullback(x, kernel, y):
    found, pull = jax.vjp(convolve, x, kernel)
    return found, pull(y)

  x, kernel = (2, 9, 7, 4), (3, 3, 4 // groups, 6)
  y = jax.eval_shape(convolve, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in (x, kernel))).shape
  for fn, shapes in ((convolve, (x, kernel)), (pullback, (x, kernel, y))):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    known = jax.jit(fn).lower(*arguments).cost_analysis()['flops']
    assert _flop(fn, *shapes) == pytest.approx(known, rel=0.02)


def test_time_is_the_larger_of_arithmetic_and_traffic():
  small = jax.make_jaxpr(jnp.dot)(*[jax.ShapeDtypeStruct((8, 8), jnp.float32)] * 2)
  large = jax.make_jaxpr(jnp.dot)(*[jax.ShapeDtypeStruct((8192, 8192), jnp.float32)] * 2)
  assert cost.estimate(small, DEVICE).seconds == 3 * 8 * 8 * 4 / DEVICE.bandwidth
  assert cost.estimate(large, DEVICE).seconds == 2 * 8192**3 / DEVICE.float32


def test_arithmetic_has_the_peak_of_its_precision():
  for dtype, bits in ((jnp.float32, 32), (jnp.bfloat16, 16)):
    product = jax.make_jaxpr(jnp.dot)(*[jax.ShapeDtypeStruct((8, 8), dtype)] * 2)
    found = cost.estimate(product, DEVICE)
    assert found.at_peak == 2 * 8**3 / DEVICE.flops(bits)
    assert found.at_peak < found.seconds
  assert DEVICE.flops(16) > DEVICE.flops(32)


@pytest.mark.parametrize(
  ('name', 'count', 'memory'), [('h100:8', 8, 80e9), ('v5e:4x4', 16, 2**34), ('cpu', 1, 2**34)]
)
def test_targets_are_kinds_and_numbers(name, count, memory):
  target = targets.parse(name)
  assert target.count == count and target.device.memory == memory
  assert target.name.startswith(name)


@pytest.mark.parametrize(
  ('name', 'said'),
  [('h1000:8', 'did you mean h100'), ('v5e:4x', 'no number'), ('h100:0', 'no n')],
)
def test_wrong_targets_are_explained(name, said):
  with pytest.raises(UserError, match=said):
    targets.parse(name)
