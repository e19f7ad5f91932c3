"""Does this machine's accelerator compute what its CPU does, and how fast is the CRF on it?

    python benchmarks/agreement.py --part step        # two updates of P-NOC
    python benchmarks/agreement.py --part crf         # the dense CRF

step: losses, and the way that the weights of generator and noc go in one step, on the accelerator
against the CPU, in float32 with products in full precision (bound: 1e-4); then, on the accelerator,
products as it makes them by default, and bfloat16, against that. `difference` is the largest of the
losses' relative differences, `weights` the length of the difference of the ways over the way's.
crf: lattice and all pairs, on a picture of noise and edges: milliseconds of each device, pixels
with equal labels, largest difference of the marginals.

Needs jax, flax, optax, chex and numpy alone. On a machine without an accelerator the CPU is
compared with itself.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows, step
from pnoc_jax import keys, trees
from pnoc_jax.ops import crf

_BOUND = 1e-4


def step_rows(settings: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Compares the two updates of P-NOC; see above."""
  cpu, device = jax.local_devices(backend='cpu')[0], jax.devices()[0]
  kind, expected = device.device_kind, _step(settings, 'float32', 'highest', cpu)
  exact = expected if device == cpu else _step(settings, 'float32', 'highest', device)
  yield _compare(f'float32, {kind} against CPU', exact, expected) | {'bound': _BOUND}
  for what, dtype in (('bfloat16', 'bfloat16'), ('products by default', 'float32')):
    found = _step(settings, dtype, 'default', device)
    yield _compare(f'{what} against float32, {kind}', found, exact)


def _step(settings, dtype: str, products: str, device) -> tuple[dict, dict]:
  """Losses and, by name, how far each weight of generator and noc goes in one step."""
  options = {'method': 'pnoc', 'precision': dtype}
  made = step.make_step(
    argparse.Namespace(**{**vars(settings), **options}), remat=False, scan=False
  )
  with jax.default_matmul_precision(products):
    begin = made.init()
    generator, noc, _, split = jax.device_put(begin, device)
    batch = jax.device_put(rows.make_batch(settings), device)
    key = jax.device_put(keys.root_key(3), device)
    generator, split, erasure, metrics = jax.jit(made.generator)(
      generator, noc.variables, split, batch, key
    )
    noc, noc_metrics = jax.jit(made.noc)(noc, erasure, batch)
  losses = {
    name: float(x) for name, x in (metrics | noc_metrics).items() if name.startswith('loss/')
  }
  after = trees.flatten_names({'generator': generator.params, 'noc': noc.params})
  before = trees.flatten_names({'generator': begin[0].params, 'noc': begin[1].params})
  return losses, {name: np.asarray(x) - np.asarray(before[name]) for name, x in after.items()}


def _compare(what: str, found: tuple[dict, dict], expected: tuple[dict, dict]) -> dict[str, Any]:
  losses = {name: abs(found[0][name] - x) / max(abs(x), 1e-6) for name, x in expected[0].items()}
  away = sum(float(((found[1][name] - x) ** 2).sum()) for name, x in expected[1].items())
  way = sum(float((x**2).sum()) for x in expected[1].values())
  return {
    'what': what,
    'difference': max(losses.values()),
    'weights': (away / way) ** 0.5,
    'losses': losses,
  }


def crf_rows(settings: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Compares the dense CRF; see above."""
  cpu, device = jax.local_devices(backend='cpu')[0], jax.devices()[0]
  height, width = 3 * settings.side // 4, settings.side
  rng = np.random.default_rng(0)
  y, x = np.indices((height, width))
  edges = ((x // 37 + y // 29) % 4)[..., None] * np.array([50, 20, 60])
  image = (edges + rng.integers(0, 40, (height, width, 3))).astype(np.uint8)
  labels = ((x // 40 + y // 31) % settings.labels).astype(np.int32)
  on_cpu, expected = _infer(crf.Filter.LATTICE, (labels, image), cpu, settings)
  # All pairs of a photograph's pixels are too many for a CPU.
  filters = crf.Filter if device != cpu else (crf.Filter.LATTICE,)
  for filter in filters:
    ms, marginals = _infer(filter, (labels, image), device, settings)
    yield {
      'what': f'{filter.value}, {width} x {height} px, {settings.labels} labels, '
      f'{device.device_kind} against the lattice on the CPU',
      'device_ms': ms,
      'cpu_ms': on_cpu,
      'equal': 100 * float((marginals.argmax(-1) == expected.argmax(-1)).mean()),
      'difference': float(np.abs(marginals - expected).max()),
    }


def _infer(filter: crf.Filter, scene: tuple, device, settings) -> tuple[float, np.ndarray]:
  """Milliseconds and marginals of the dense CRF of (labels, image)."""

  def infer(labels, image):
    unary = crf.label_unary(labels, settings.labels, 0.7)
    return crf.dense_crf(unary, image, steps=10, filter=filter)

  return _time(jax.jit(infer), jax.device_put(scene, device))


def _time(infer: Callable, arguments: tuple) -> tuple[float, np.ndarray]:
  result, times = jax.block_until_ready(infer(*arguments)), []
  for _ in range(3):
    start = time.perf_counter()
    jax.block_until_ready(infer(*arguments))
    times.append(time.perf_counter() - start)
  return 1e3 * rows.median(times), np.asarray(result)


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  """Reads the flags and prints the rows; returns them."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--part', choices=('step', 'crf'), required=True)
  add('--backbone', default='resnest_tiny', help='step: a name of pnoc_jax.nn.backbones')
  add('--output_stride', type=int, default=8, help='step')
  add('--size', type=int, default=64, help='step: side of the images, px')
  add('--batch', type=int, default=4, help='step: images')
  add('--classes', type=int, default=6, help='step')
  add('--side', type=int, default=500, help='crf: width of the picture, px')
  add('--labels', type=int, default=4, help='crf')
  add('--json', type=Path, help='also write the rows to this file')
  settings = parser.parse_args(argv)
  found = []
  for row in step_rows(settings) if settings.part == 'step' else crf_rows(settings):
    found.append(row)
    print({name: x for name, x in row.items() if name != 'losses'}, flush=True)
    if settings.json:
      # After every row: what is measured is measured.
      settings.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
  return found


if __name__ == '__main__':
  main()
