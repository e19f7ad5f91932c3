"""Which form of the radix convolution does this backend run well: grouped, or split and joined?

    python benchmarks/convolutions.py --size=512 --batch=16 --precision=bfloat16

Times ResNeSt's 3 x 3 convolution of two feature groups alone, at the shapes of layer1 to layer4 of
ResNeSt-50 and deeper at output stride 16: forward, gradient of the input, gradient of the kernel.
A ratio above 1 says that the split form is faster. Layers choose by `convolution.Radix.AUTO`:
grouped on TPUs, split elsewhere; `backbones.Options(radix=...)` overrides. Needs jax, flax, chex
and numpy.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax.nn import layers
from pnoc_jax.ops import convolution

# Planes, stride of the map, dilation.
_STAGES = ((64, 4, 1), (128, 8, 1), (256, 16, 1), (512, 16, 2))


def seconds(
  form: convolution.Radix, planes: int, side: int, dilation: int, settings
) -> list[float]:
  """Returns the median times of forward, input gradient and kernel gradient."""
  dtype = jnp.dtype(settings.precision)
  conv = layers.Conv(2 * planes, 3, dilation=dilation, groups=2, radix=form, dtype=dtype)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((settings.batch, side, side, planes), np.float32), dtype)
  kernel = jnp.asarray(rng.standard_normal((3, 3, planes // 2, 2 * planes), np.float32) / planes)
  g = jnp.asarray(rng.standard_normal((settings.batch, side, side, 2 * planes), np.float32), dtype)

  def forward(x, kernel):
    return conv.apply({'params': {'kernel': kernel}}, x)

  def input_gradient(x, kernel, g):
    return jax.vjp(lambda x: forward(x, kernel), x)[1](g)

  def kernel_gradient(x, kernel, g):
    return jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](g)

  runs = (
    (forward, (x, kernel)),
    (input_gradient, (x, kernel, g)),
    (kernel_gradient, (x, kernel, g)),
  )
  return [_time(jax.jit(fn), arguments, settings.steps) for fn, arguments in runs]


def _time(fn, arguments, steps) -> float:
  jax.block_until_ready(fn(*arguments))
  times = []
  for _ in range(steps):
    start = time.perf_counter()
    jax.block_until_ready(fn(*arguments))
    times.append(time.perf_counter() - start)
  return rows.median(times)


def main(argv: list[str] | None = None) -> list[dict]:
  """Reads the flags and prints the table; returns its rows."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--size', type=int, default=512, help='side of the images, px')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--steps', type=int, default=10, help='timed runs of each')
  settings = parser.parse_args(argv)
  device = jax.devices()[0]
  print(f'{device.device_kind}, jax {jax.__version__}, {settings.precision}; ms grouped / split')
  print(
    f'{"map":>14}  {"dilation":>8}  {"forward":>24}  {"of the input":>24}  {"of the kernel":>24}'
  )
  found = []
  for planes, stride, dilation in _STAGES:
    side = max(settings.size // stride, 1)
    grouped, split = (
      seconds(form, planes, side, dilation, settings)
      for form in (convolution.Radix.GROUPED, convolution.Radix.SPLIT)
    )
    ratios = [a / b for a, b in zip(grouped, split, strict=True)]
    found.append({'planes': planes, 'side': side, 'grouped': grouped, 'split': split})
    cells = [
      f'{1e3 * a:8.2f} /{1e3 * b:8.2f} ={r:4.1f}'
      for a, b, r in zip(grouped, split, ratios, strict=True)
    ]
    print(
      f'{f"{side}x{side}x{planes}":>14}  {dilation:>8}  ' + '  '.join(f'{c:>24}' for c in cells)
    )
  return found


if __name__ == '__main__':
  main()
