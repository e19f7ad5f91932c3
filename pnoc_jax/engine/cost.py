"""What a program costs, from its trace alone: FLOPs, traffic in memory, time at best.

The FLOPs are those of products and convolutions, exactly: without padding, and with all turns of a
loop. The traffic is a guess at what a compiler fuses.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from pnoc_jax.parallel import targets

# They read what was computed before them in one pass, and their results are small.
_REDUCTIONS = ('reduce_', 'argmax', 'argmin')
# They read and write, and no compiler fuses them with all that stands around them.
_MOVES = ('gather', 'sort', 'cumsum', 'cummax', 'concatenate', 'top_k', 'reduce_window')


class Cost(NamedTuple):
  """The cost of a program; sums over its operations.

  Attributes:
    flop: of products and convolutions, two a multiplication.
    bytes: that go to or from memory, about.
    seconds: the larger of both times of each operation.
    at_peak: seconds of the FLOPs alone, each at the device's peak in its precision.
  """

  flop: float = 0.0
  bytes: float = 0.0
  seconds: float = 0.0
  at_peak: float = 0.0

  def plus(self, other: 'Cost', times: float = 1) -> 'Cost':
    """The cost of this, and of another program so many times."""
    return Cost(*(a + times * b for a, b in zip(self, other, strict=True)))


def estimate(jaxpr: Any, device: targets.Device) -> Cost:
  """Estimates a program as if one device ran all of it.

  Args:
    jaxpr: of `compiled.trace(*arguments).jaxpr`.
    device: what it runs on.
  """
  return _walk(getattr(jaxpr, 'jaxpr', jaxpr), device)


def _walk(jaxpr: Any, device: targets.Device) -> Cost:
  total = Cost()
  # Variables that lie in memory; others are computed where they are read.
  stored = {id(x) for x in (*jaxpr.invars, *jaxpr.constvars)}
  for operation in jaxpr.eqns:
    name, inner = operation.primitive.name, _inner(operation)
    if inner:
      costs = [_walk(x, device) for x in inner]
      if name == 'cond':
        total = total.plus(max(costs, key=lambda cost: cost.seconds))
      else:
        times = operation.params['length'] if name == 'scan' else 1
        total = functools.reduce(lambda a, b: a.plus(b, times), costs, total)
      stored |= {id(x) for x in operation.outvars}
      continue
    flop = _flop(operation)
    moves = name in _MOVES or name.startswith('scatter')
    if not flop and not moves and not name.startswith(_REDUCTIONS):
      continue
    moved = sum(_bytes(x) for x in operation.outvars)
    for x in operation.invars:
      size = _bytes(x)
      if name in ('gather', 'dynamic_slice') or name.startswith('scatter'):
        size = min(size, moved)
      if flop and id(x) not in stored and not hasattr(x, 'val'):
        # Computed in passing, from as much, and written for the product.
        size *= 3
        stored.add(id(x))
      moved += size
    bits = min(8 * getattr(x.aval, 'dtype', np.dtype('f4')).itemsize for x in operation.invars)
    at_peak = flop / device.flops(bits)
    total = total.plus(Cost(flop, moved, max(at_peak, moved / device.bandwidth), at_peak))
    stored |= {id(x) for x in operation.outvars}
  return total


def _inner(operation: Any) -> list[Any]:
  """The programs within an operation: of a loop, a branch, a call."""
  found = []
  for value in operation.params.values():
    for x in value if isinstance(value, (tuple, list)) else (value,):
      x = getattr(x, 'jaxpr', x)
      found += [x] if hasattr(x, 'eqns') else []
  return found


def _bytes(x: Any) -> int:
  aval = x.aval
  dtype = getattr(aval, 'dtype', None)
  return math.prod(aval.shape) * getattr(dtype, 'itemsize', 0) if hasattr(aval, 'shape') else 0


def _flop(operation: Any) -> float:
  if operation.primitive.name == 'dot_general':
    (contracted, _), _ = operation.params['dimension_numbers']
    left = operation.invars[0].aval.shape
    out = operation.outvars[0].aval.shape
    return 2.0 * math.prod(out) * math.prod(left[i] for i in contracted)
  if operation.primitive.name == 'conv_general_dilated':
    return _convolution_flop(operation)
  return 0.0


def _convolution_flop(operation: Any) -> float:
  numbers, params = operation.params['dimension_numbers'], operation.params
  left, right = (x.aval.shape for x in operation.invars)
  out = operation.outvars[0].aval.shape
  taps = 1.0
  for i in range(len(left) - 2):
    taps *= valid_taps(
      left[numbers.lhs_spec[2 + i]],
      right[numbers.rhs_spec[2 + i]],
      out[numbers.out_spec[2 + i]],
      stride=params['window_strides'][i],
      padding=params['padding'][i][0],
      dilations=(params['lhs_dilation'][i], params['rhs_dilation'][i]),
    )
  features = right[numbers.rhs_spec[1]]  # To a group.
  batch = left[numbers.lhs_spec[0]] / params['batch_group_count']
  return 2.0 * batch * taps * features * out[numbers.out_spec[1]]


@functools.lru_cache(maxsize=4096)
def valid_taps(
  size: int,
  kernel: int,
  out: int,
  *,
  stride: int,
  padding: int,
  dilations: tuple[int, int],
) -> int:
  """Pairs of an output and a tap of the kernel, along one axis, that meet a number of the input.

  Args:
    size: of the input.
    kernel: taps.
    out: of the output.
    stride: of the window.
    padding: before the input.
    dilations: of the input and of the kernel.
  """
  spread, dilation = dilations
  place = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - padding
  inside = (place >= 0) & (place <= (size - 1) * spread) & (place % spread == 0)
  return int(inside.sum())
