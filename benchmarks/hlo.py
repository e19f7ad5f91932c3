"""What a compiled program moves and computes, read off its text (`compiled.as_text()`).

Each top-level operation reads its operands and writes its results once, from and to the device's
memory: an upper bound, as caches are not known. A loop counts as often as it turns. What is sliced
counts as the slice, and arrays that lie in a TPU's vector memory do not count.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterator

from pnoc_jax.engine import cost
from pnoc_jax.parallel import targets

_BITS = {
  **dict.fromkeys(('f64', 's64', 'u64', 'c64'), 64),
  **dict.fromkeys(('f32', 's32', 'u32'), 32),
  **dict.fromkeys(('bf16', 'f16', 's16', 'u16'), 16),
  **dict.fromkeys(('s8', 'u8', 'pred', 'f8e4m3fn', 'f8e5m2'), 8),
  **dict.fromkeys(('s4', 'u4'), 4),
  'c128': 128,
}
_SHAPE = re.compile(r'\b(' + '|'.join(_BITS) + r')\[([0-9,]*)\](?:\{([^}]*)\})?')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{\s*$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_CALLED = re.compile(r'(?:body|to_apply|calls|called_computation)=%?([\w.\-]+)')
_FREE = {
  *('parameter', 'constant', 'bitcast', 'tuple', 'get-tuple-element', 'after-all', 'partition-id'),
  *('replica-id', 'opt-barrier', 'add-dependency', 'iota'),
}
_OUTER = ('while', 'call', 'conditional', 'async-start')
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
  'collective-broadcast',
)


@dataclasses.dataclass
class Operation:
  """A line of a program's text.

  Attributes:
    name: of its result.
    kind: the operation.
    out: its result's shapes, as text.
    operands: names.
    rest: all that follows the operation's name.
    root: whether its result is that of its computation.
  """

  name: str
  kind: str
  out: str
  operands: list[str]
  rest: str
  root: bool

  def attribute(self, name: str) -> str:
    """The value of `name={...}` or `name=...`, or nothing."""
    found = re.search(rf'\b{name}=(?:\{{([^}}]*)\}}|%?([\w.\-]+))', self.rest)
    return (found.group(1) or found.group(2) or '') if found else ''


Computation = dict[str, Operation]


@dataclasses.dataclass
class Traffic:
  """Sums over a program's operations.

  Attributes:
    bytes: by kind of operation.
    backward: bytes of the operations of gradients.
    flop: of products and convolutions.
    seconds: the larger of both times of each operation.
    collectives: kind -> times, bytes.
    endless: loops whose number of turns is not known; they count once.
  """

  bytes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  backward: float = 0.0
  flop: float = 0.0
  seconds: float = 0.0
  collectives: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  endless: int = 0

  @property
  def link_bytes(self) -> float:
    """Bytes that a device sends, at least: a sum passes twice, all else once."""
    return sum((2 if k == 'all-reduce' else 1) * b for k, (_, b) in self.collectives.items())


def read(text: str) -> tuple[dict[str, Computation], str]:
  """Reads a program: its computations, and the name of that it begins with."""
  found, entry, name = {}, '', ''
  for line in text.splitlines():
    head = None if line.startswith(' ') else _HEAD.match(line)
    if head:
      name = head.group(2)
      found[name] = {}
      entry = name if head.group(1) else entry
      continue
    match = _LINE.match(line)
    if match and name:
      operation = _operation(match.group(2), match.group(3), root=bool(match.group(1)))
      if operation is not None:
        found[name][operation.name] = operation
  return found, entry


def _operation(name: str, text: str, *, root: bool) -> Operation | None:
  end = _closing(text, 0) if text.startswith('(') else len(text.split(' ', 1)[0]) - 1
  match = re.match(r'\s+([a-z][a-z0-9\-]*)\(', text[end + 1 :])
  if not match:
    return None
  start = end + match.end()
  close = _closing(text, start)
  arguments = text[start + 1 : close]
  # With shapes or without: `f32[2]{0} %a, %b`.
  names = re.findall(r'%([\w.\-]+)', arguments) or re.findall(r'[\w.\-]+', arguments)
  return Operation(name, match.group(1), text[: end + 1], names, text[close + 1 :], root)


def _closing(text: str, start: int) -> int:
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if depth == 0:
      return i
  return len(text) - 1


def size(shapes: str, *, tpu: bool = False) -> float:
  """Bytes of the arrays in a text; of a TPU's with their padding, without its vector memory's."""
  total = 0.0
  for dtype, dims, layout in _SHAPE.findall(shapes):
    sides = [int(x) for x in dims.split(',') if x]
    if tpu:
      if 'S(1)' in layout:
        continue
      sides = _padded(sides, layout)
    total += math.prod(sides) * _BITS[dtype] / 8
  return total


def _padded(sides: list[int], layout: str) -> list[int]:
  order = [int(x) for x in layout.partition(':')[0].split(',') if x]
  tile = re.search(r'T\(([\d,]+)\)', layout)
  if tile is None or len(order) != len(sides):
    return sides
  sides = list(sides)
  # The last side of the tile is that of the most minor axis.
  for axis, n in zip(order, reversed([int(x) for x in tile.group(1).split(',')]), strict=False):
    sides[axis] = -(-sides[axis] // n) * n
  return sides


def traffic(text: str, target: targets.Target) -> Traffic:
  """Sums up what one device does."""
  computations, entry = read(text)
  found = Traffic()
  measure = _Measure(computations, tpu=target.platform == 'tpu')
  for operation, scope, times in _top_level(computations, entry, found):
    moved = measure.bytes(operation, scope)
    flop, bits = measure.flop(operation, scope)
    found.flop += times * flop
    device = target.device
    found.seconds += times * max(flop / device.flops(bits), moved / device.bandwidth)
    found.bytes[_title(operation)] += times * moved
    if 'transpose(' in operation.rest:
      found.backward += times * moved
    kind = operation.kind.removesuffix('-start')
    if kind in COLLECTIVES:
      sent = found.collectives.setdefault(kind, [0.0, 0.0])
      sent[0] += times
      results = size(operation.out)
      if operation.kind != kind and kind != 'all-reduce':
        # What begins an operation names its operands beside its results.
        results -= sum(size(scope[x].out) for x in operation.operands if x in scope)
      sent[1] += times * results
  return found


def _title(operation: Operation) -> str:
  if operation.kind == 'custom-call':
    target = re.search(r'custom_call_target="([^"]*)"', operation.rest)
    return target.group(1) if target else operation.kind
  if operation.kind == 'fusion':
    return 'fusion ' + re.sub(r'[.\d]+$', '', operation.name)
  return operation.kind


def _top_level(
  computations: dict[str, Computation], name: str, found: Traffic, times: float = 1
) -> Iterator[tuple[Operation, Computation, float]]:
  scope = computations[name]
  for operation in scope.values():
    if operation.kind in _FREE or operation.kind.endswith(('-done', '-update')):
      continue
    if _title(operation) == 'AllocateBuffer':
      continue
    inner = [x for x in _CALLED.findall(operation.rest) if x in computations]
    if operation.kind not in _OUTER or not inner:
      yield operation, scope, times
      continue
    turns = 1
    if operation.kind == 'while':
      known = _turns(operation, computations)
      found.endless += known is None
      turns = known or 1
    for called in inner:
      yield from _top_level(computations, called, found, times * turns)


def _turns(loop: Operation, computations: dict[str, Computation]) -> int | None:
  """How often a loop turns, where the compiler says so or it counts from 0 to a constant."""
  known = re.search(r'known_trip_count[^0-9]*(\d+)', loop.rest)
  if known:
    return int(known.group(1))
  inner = computations.get(loop.attribute('condition'), {})
  root = next((x for x in inner.values() if x.root), None)
  if root is None or root.kind != 'compare' or root.attribute('direction') != 'LT':
    return None
  bound = inner.get(root.operands[1])
  counted = bound is not None and bound.kind == 'constant' and bound.operands[:1]
  return int(counted[0]) if counted and counted[0].isdigit() else None


class _Measure:
  """Bytes and FLOPs of single operations."""

  def __init__(self, computations: dict[str, Computation], *, tpu: bool):
    self._computations, self._tpu = computations, tpu

  def bytes(self, operation: Operation, scope: Computation) -> float:
    """What it reads and writes."""
    inner = self._computations.get(operation.attribute('calls'))
    if operation.kind == 'fusion' and inner:
      return self._fused(inner)
    reads = [self._size(scope[x].out) for x in operation.operands if x in scope]
    out = self._size(operation.out)
    if operation.kind in ('dynamic-slice', 'slice', 'gather'):
      return 2 * out
    if operation.kind == 'dynamic-update-slice':
      return 2 * reads[1]
    if operation.kind in ('copy-start', 'slice-start'):
      # Source, destination and a flag: what crosses the border of the device's memory.
      return self._size(operation.out.removeprefix('(').rpartition(',')[0])
    return sum(reads) + out

  def _size(self, shapes: str) -> float:
    return size(shapes, tpu=self._tpu)

  def _fused(self, inner: Computation) -> float:
    parameters = [x for x in inner.values() if x.kind == 'parameter']
    users = collections.defaultdict(list)
    for x in inner.values():
      for operand in x.operands:
        users[operand].append(x)
    in_place = {x.operands[0] for x in inner.values() if x.kind == 'dynamic-update-slice'}
    total = sum(self._read(parameter, users, in_place) for parameter in parameters)
    root = next(x for x in inner.values() if x.root)
    results = [inner[x] for x in root.operands] if root.kind == 'tuple' else [root]
    return total + sum(self._written(x, inner) for x in results)

  def _read(
    self, parameter: Operation, users: dict[str, list[Operation]], in_place: set[str]
  ) -> float:
    """What a fusion reads of an array: its slices, where it needs no more."""
    whole, seen, todo = self._size(parameter.out), 0.0, [parameter.name]
    while todo:
      name = todo.pop()
      for user in users[name]:
        if user.kind in ('dynamic-slice', 'slice'):
          seen += self._size(user.out)
        elif user.kind == 'bitcast':
          todo.append(user.name)
        elif user.kind == 'dynamic-update-slice' and name in in_place:
          continue
        else:
          return whole
    return min(seen, whole)

  def _written(self, result: Operation, inner: Computation) -> float:
    while result.kind == 'bitcast' and result.operands[0] in inner:
      result = inner[result.operands[0]]
    if result.kind == 'dynamic-update-slice':
      return self._size(inner[result.operands[1]].out)
    return self._size(result.out)

  def flop(self, operation: Operation, scope: Computation) -> tuple[float, int]:
    """FLOPs, and the bits of the numbers that are multiplied."""
    inner = self._computations.get(operation.attribute('calls'))
    if operation.kind == 'fusion' and inner:
      found = [self.flop(x, inner) for x in inner.values()]
      counted = [x for x in found if x[0]] or [(0.0, 32)]
      return sum(x[0] for x in counted), min(x[1] for x in counted)
    read = _READERS.get(_title(operation) if operation.kind == 'custom-call' else operation.kind)
    shapes = [_sides(scope[x].out) for x in operation.operands if x in scope]
    if read is None or len(shapes) < 2:
      return 0.0, 32
    return read(operation, shapes, _sides(operation.out)), min(x[1] for x in shapes[:2])


_Sides = tuple[list[int], int]


def _sides(shapes: str) -> _Sides:
  """Sides and bits of the first array in a text."""
  match = _SHAPE.search(shapes)
  if match is None:
    return [], 32
  return [int(x) for x in match.group(2).split(',') if x], _BITS[match.group(1)]


def _dot(operation: Operation, shapes: list[_Sides], out: _Sides) -> float:
  axes = [int(x) for x in operation.attribute('lhs_contracting_dims').split(',') if x]
  return 2.0 * math.prod(out[0]) * math.prod(shapes[0][0][i] for i in axes)


def _gemm(operation: Operation, shapes: list[_Sides], out: _Sides) -> float:
  axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', operation.rest)
  chosen = re.findall(r'\d+', axes.group(1)) if axes else []
  return 2.0 * math.prod(out[0]) * math.prod(shapes[0][0][int(i)] for i in chosen)


def _convolution(operation: Operation, shapes: list[_Sides], out: _Sides) -> float:
  return _window_flop(operation, shapes[0][0], shapes[1][0], out[0])


def _window_flop(
  operation: Operation, image: list[int], kernel: list[int], out: list[int]
) -> float:
  left, _, rest = operation.attribute('dim_labels').partition('_')
  right, _, result = rest.partition('->')
  if not result:
    found = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', operation.rest)
    if found is None:
      return 0.0
    left, right, result = found.groups()
  window = operation.attribute('window')
  count, taps = sum(x.isdigit() for x in left), 1.0
  for i in range(count):
    taps *= cost.valid_taps(
      image[left.index(str(i))],
      kernel[right.index(str(i))],
      out[result.index(str(i))],
      stride=_window(window, 'stride', i, 1),
      padding=_window(window, 'pad', i, 0),
      dilations=(_window(window, 'lhs_dilate', i, 1), _window(window, 'rhs_dilate', i, 1)),
    )
  features = kernel[right.index('i')]
  return 2.0 * out[result.index('b')] * out[result.index('f')] * taps * features


def _window(window: str, field: str, axis: int, default: int) -> int:
  match = re.search(rf'\b{field}=(\S+)', window)
  if match is None:
    return default
  return int(match.group(1).split('x')[axis].partition('_')[0])


def _cudnn(order: tuple[int, int, int]) -> Callable[[Operation, list[_Sides], _Sides], float]:
  """The FLOPs of cuDNN's calls, whose window is that of the forward convolution.

  Args:
    order: places of image, kernel and result among the operands and (2) the result.
  """

  def flop(operation: Operation, shapes: list[_Sides], out: _Sides) -> float:
    arrays = [shapes[0][0], shapes[1][0], out[0]]
    return _window_flop(operation, *(arrays[i] for i in order))

  return flop


_READERS: dict[str, Callable[[Operation, list[_Sides], _Sides], float]] = {
  'dot': _dot,
  'convolution': _convolution,
  '__cublas$gemm': _gemm,
  '__cublas$lt$matmul': _gemm,
  '__cudnn$convForward': _cudnn((0, 1, 2)),
  '__cudnn$convBiasActivationForward': _cudnn((0, 1, 2)),
  '__cudnn$convBackwardInput': _cudnn((2, 1, 0)),
  '__cudnn$convBackwardFilter': _cudnn((0, 2, 1)),
}
