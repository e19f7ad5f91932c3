"""Which form of a grouped convolution does this backend run well: grouped, or split?

    python benchmarks/convolutions.py --kind=radix --size=512 --batch=16 --precision=bfloat16
    python benchmarks/convolutions.py --kind=depthwise --size=224 --batch=16

Times a convolution alone: forward, gradient of the input, gradient of the kernel. `radix` is
ResNeSt's 3 x 3 convolution of two feature groups, at the shapes of layer1 to layer4 of ResNeSt-50
and deeper at output stride 16; its split form is an ordinary convolution for each group.
`depthwise` are the convolutions of EfficientNet-Lite0 at output stride 16; their split form is a
sum over the kernel's taps. The two forms take turns, so that a busy machine slows both. A ratio
above 1 says that the split form is faster. Layers choose by `convolution.Radix.AUTO`;
`backbones.Options(radix=...)` overrides. Needs jax, flax, chex and numpy.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax.ops import convolution, depthwise

FORMS = convolution.Radix.GROUPED, convolution.Radix.SPLIT


class Shape(NamedTuple):
  """A convolution.

  Attributes:
    channels: of its input.
    features: channels of its output.
    map_stride: pixels to a cell of its input.
    size: side of the kernel.
    window: how the kernel moves.
  """

  channels: int
  features: int
  map_stride: int
  size: int
  window: convolution.Window


def radix(planes: int, map_stride: int, dilation: int) -> Shape:
  """The convolution of a split attention."""
  window = convolution.Window(dilation=dilation, groups=2)
  return Shape(planes, 2 * planes, map_stride, 3, window)


def of_channels(
  channels: int, map_stride: int, size: int, stride: int = 1, dilation: int = 1
) -> Shape:
  """A depthwise convolution."""
  window = convolution.Window(stride, dilation, channels)
  return Shape(channels, channels, map_stride, size, window)


KINDS = {
  'radix': (radix(64, 4, 1), radix(128, 8, 1), radix(256, 16, 1), radix(512, 16, 2)),
  'depthwise': (
    of_channels(32, 2, 3),
    of_channels(96, 2, 3, stride=2),
    of_channels(144, 4, 3),
    of_channels(144, 4, 5, stride=2),
    of_channels(240, 8, 5),
    of_channels(240, 8, 3, stride=2),
    of_channels(480, 16, 3),
    of_channels(672, 16, 5),
    of_channels(1152, 16, 5, dilation=2),
    of_channels(1152, 16, 3, dilation=2),
  ),
}


def seconds(shape: Shape, settings: argparse.Namespace) -> list[tuple[float, float]]:
  """Returns the median times, grouped and split, of forward, input and kernel gradient."""
  dtype, window = jnp.dtype(settings.precision), shape.window
  side = max(settings.size // shape.map_stride, 1)
  out = -(-side // window.stride)
  rng = np.random.default_rng(0)

  def draw(*shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape, np.float32))

  x = draw(settings.batch, side, side, shape.channels).astype(dtype)
  g = draw(settings.batch, out, out, shape.features).astype(dtype)
  kernel = draw(shape.size, shape.size, shape.channels // window.groups, shape.features)
  kernel = kernel / (shape.size * kernel.shape[2] ** 0.5)
  convolve = depthwise.convolve if window.groups == shape.channels else convolution.convolve

  def forward(form: convolution.Radix) -> Callable[..., Any]:
    return lambda x, kernel: convolve(x, kernel, window, radix=form)

  def input_gradient(form: convolution.Radix) -> Callable[..., Any]:
    return lambda x, kernel, g: jax.vjp(lambda x: forward(form)(x, kernel), x)[1](g)

  def kernel_gradient(form: convolution.Radix) -> Callable[..., Any]:
    return lambda x, kernel, g: jax.vjp(lambda kernel: forward(form)(x, kernel), kernel)[1](g)

  runs = (forward, (x, kernel)), (input_gradient, (x, kernel, g)), (kernel_gradient, (x, kernel, g))
  return [
    _time_pair([jax.jit(make(form)) for form in FORMS], arguments, settings.steps)
    for make, arguments in runs
  ]


def _time_pair(functions, arguments, steps) -> tuple[float, float]:
  """Returns the median times of two functions that take turns."""
  times = [], []
  for step in range(steps + 1):
    for function, found in zip(functions, times, strict=True):
      start = time.perf_counter()
      jax.block_until_ready(function(*arguments))
      if step:  # The first one compiles.
        found.append(time.perf_counter() - start)
  return rows.median(times[0]), rows.median(times[1])


def main(argv: list[str] | None = None) -> list[dict]:
  """Reads the flags and prints the table; returns its rows."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kind', choices=tuple(KINDS), default='radix')
  parser.add_argument('--size', type=int, default=512, help='side of the images, px')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--steps', type=int, default=10, help='timed runs of each')
  parser.add_argument('--json', type=Path, help='also write the rows to this file')
  settings = parser.parse_args(argv)
  device = jax.devices()[0]
  print(f'{device.device_kind}, jax {jax.__version__}, {settings.precision}; ms grouped / split')
  titles = 'forward', 'of the input', 'of the kernel'
  print(
    f'{"map":>14}  {"kernel":>6}  {"stride":>6}  {"dilation":>8}  '
    + '  '.join(f'{title:>24}' for title in titles)
  )
  found = []
  for shape in KINDS[settings.kind]:
    side, pairs = max(settings.size // shape.map_stride, 1), seconds(shape, settings)
    grouped, split = ([pair[i] for pair in pairs] for i in range(2))
    found.append(
      {
        'what': f'{side}x{side}x{shape.channels}, grouped / split: forward, of input, of kernel',
        'ratios': ', '.join(f'{a / b:.2f}' for a, b in pairs),
        'channels': shape.channels,
        'side': side,
        'grouped': grouped,
        'split': split,
      }
    )
    cells = [f'{1e3 * a:8.2f} /{1e3 * b:8.2f} ={a / b:5.1f}' for a, b in pairs]
    window = shape.window
    print(
      f'{f"{side}x{side}x{shape.channels}":>14}  {shape.size:>6}  {window.stride:>6}  '
      f'{window.dilation:>8}  ' + '  '.join(f'{cell:>24}' for cell in cells),
      flush=True,
    )
  if settings.json:
    settings.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
  return found


if __name__ == '__main__':
  main()
