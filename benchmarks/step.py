"""How fast is a training step, what does it cost, and how long does it compile?

    python benchmarks/step.py --backbone resnest50 resnest101 --size=512 --batch=16 \\
        --precision=bfloat16 --remat                                        # a GPU or a TPU
    python benchmarks/step.py --backbone resnest_tiny --output_stride=8 --size=64    # a CPU

One row for each backbone and method; the step is the one of training (normalisation on the device,
SGD with its four parameter groups; P-NOC: the generator's update, then the noc's) on a synthetic
batch, on one device, with donated states. Needs jax, flax, optax, chex and numpy alone.

images/s    batch / median time of the timed steps, each waited for
GFLOP       of a step, by XLA's cost analysis of the lowered program without remat and loops: what
            the mathematics asks for, not what remat computes again (a loop's body counts once
            there); `flop_compiled` in the JSON is the same analysis of the compiled program
MFU         GFLOP / time / peak of the device: by its sheet, or what a large matmul reaches here
plan MiB    largest program's arguments + results + temporaries, by XLA's memory analysis
peak MiB    the allocator's peak, where the device tells it
trace s     Python and lowering; compile s: XLA from cold; cached s: both again, from the
            persistent cache
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax import keys, states
from pnoc_jax.data import info
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.nn import backbones, classifier, layers
from pnoc_jax.ops import label_split, normalize
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.updates import pnoc

_TOTAL = 10_000  # Steps of the imagined run, for schedules.
_MIB = 2**20


@dataclasses.dataclass
class Step:
  """A method's step.

  Attributes:
    generator: `(generator, noc variables, split, batch, key) -> Generated`.
    noc: `(noc, erasure, batch) -> (noc, metrics)`, or None.
    init: key-free maker of (generator state, noc state, noc variables, split), as host arrays.
  """

  generator: Callable
  noc: Callable | None
  init: Callable[[], tuple]


def make_step(settings: argparse.Namespace, *, remat: bool, scan: bool) -> Step:
  """Builds networks, optimisers and updates of a row."""
  method, shape = pnoc.METHODS[settings.method], (64, 64, 3)

  def network(norm):
    options = backbones.Options(
      output_stride=settings.output_stride,
      norm=norm,
      dtype=jnp.dtype(settings.precision),
      remat=remat,
      scan=scan,
    )
    return classifier.Classifier(
      backbones.make_backbone(settings.backbone, options), settings.classes
    )

  def abstract(model):
    return jax.eval_shape(lambda: states.init_variables(model, keys.root_key(0), shape))

  def sgd(params, frozen=()):
    return optimizer.make_optimizer(
      params,
      schedule=schedules.polynomial(0.01, _TOTAL, power=1.0),
      groups=optimizer.classifier_groups(1e-4, frozen=frozen),
    )

  model = network(layers.Norm.BATCH)
  shapes = abstract(model)
  tx = sgd(shapes['params'])
  noc_model = noc_tx = noc_update = None
  if method.judge:
    noc_model = network(layers.Norm.FROZEN)
  if method.noc:
    frozen = (r'backbone/(?:.*/)?(?:bn\d*|shortcut_bn)/(?:scale|bias)',)
    noc_tx = sgd(shapes['params'], frozen)
    noc_update = pnoc.make_noc_update(
      noc_model,
      noc_tx,
      lambda_noc=schedules.ramp(0.0, 1.0, _TOTAL),
      terms=losses.Terms(smoothing=0.1),
    )
  generator_update = pnoc.make_generator_update(
    model,
    noc_model,
    tx,
    lambda_re=schedules.ramp(0.0, 4.0, _TOTAL, 0.5) if method.tiles else None,
    lambda_cse=schedules.ramp(0.3, 1.0, _TOTAL) if method.judge else None,
    terms=losses.Terms(smoothing=0.1),
  )

  def prepare(batch):
    mean, std = info.IMAGENET_MEAN, info.IMAGENET_STD
    return batch | {'image': normalize.normalize(batch['image'], batch['box'], mean=mean, std=std)}

  def generator_step(generator, noc_variables, split, batch, key):
    return generator_update(generator, noc_variables, split, prepare(batch), key)

  def noc_step(noc, erasure, batch):
    return noc_update(noc, erasure, prepare(batch))

  def init():
    generator = states.init_state(_draw(shapes, 0), tx)
    if noc_model is None:
      return generator, None, None, None
    judge = _draw(shapes, 1)
    noc = states.init_state(judge, noc_tx) if noc_tx else None
    return generator, noc, None if noc else judge, label_split.init_label_split(settings.classes)

  return Step(generator_step, noc_step if noc_update else None, init)


def _draw(shapes, seed: int):
  """Random kernels on the host: the compiled initialiser of a deep network takes a minute."""
  rng = np.random.default_rng(seed)

  def leaf(path, x):
    name = path[-1].key
    if name != 'kernel':
      return np.full(x.shape, name in ('scale', 'var'), x.dtype)
    fan_in = np.prod(x.shape[:-1])
    return (rng.standard_normal(x.shape, np.float32) * np.sqrt(2 / fan_in)).astype(x.dtype)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def measure(settings: argparse.Namespace) -> dict[str, Any]:
  """Measures one row; see the columns above."""
  with tempfile.TemporaryDirectory() as cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    return _measure(settings)


def _measure(settings) -> dict[str, Any]:
  device, clock = jax.devices()[0], rows.CLOCKS[settings.clock]
  step = make_step(settings, remat=settings.remat, scan=settings.scan)
  generator, noc, judge, split = jax.device_put(step.init(), device)
  batch = jax.device_put(rows.make_batch(settings), device)
  key = keys.root_key(3)

  noc_variables = judge if noc is None else noc.variables
  first = _shapes((generator, noc_variables, split, batch, key))
  programs = [(step.generator, (0, 2), first)]
  if step.noc:
    erasure = jax.eval_shape(step.generator, *first).erasure
    programs.append((step.noc, (0,), (_shapes(noc), erasure, first[3])))

  trace_s, compile_s, compiled = 0.0, 0.0, []
  for fn, donate, shapes in programs:
    start = clock()
    lowered = jax.jit(fn, donate_argnums=donate).lower(*shapes)
    middle = clock()
    compiled.append(lowered.compile())
    trace_s += middle - start
    compile_s += clock() - middle

  rows.await_turn(settings)
  times, metrics = [], {}
  for i in range(settings.warmup + settings.steps if settings.steps else 0):
    start = clock()
    noc_variables = judge if noc is None else noc.variables
    step_key = keys.stream(key, 'split', i)
    generator, split, erasure, metrics = compiled[0](
      generator, noc_variables, split, batch, step_key
    )
    if noc is not None:
      noc, noc_metrics = compiled[1](noc, erasure, batch)
      metrics = metrics | noc_metrics
    jax.block_until_ready((generator, noc, metrics))
    times.append(clock() - start)
  if settings.trace:
    with jax.profiler.trace(str(settings.trace)):
      noc_variables = judge if noc is None else noc.variables
      generator, split, erasure, _ = compiled[0](generator, noc_variables, split, batch, key)
      if noc is not None:
        noc, _ = compiled[1](noc, erasure, batch)
      jax.block_until_ready((generator, noc))

  analyses = [c.memory_analysis() for c in compiled]
  peak_bytes = (device.memory_stats() or {}).get('peak_bytes_in_use')
  cached_s, flop = None, [None]
  if not settings.quick:
    jax.clear_caches()
    start = clock()
    for fn, donate, shapes in programs:
      jax.jit(fn, donate_argnums=donate).lower(*shapes).compile()
    cached_s = clock() - start
    plain = make_step(settings, remat=False, scan=False)
    flop = [model_flop(f, p[2]) for f, p in zip((plain.generator, plain.noc), programs)]
  row = {
    'form': f'jax{" remat" if settings.remat else ""}{" scan" if settings.scan else ""}',
    'gflop': None if None in flop else sum(flop) / 1e9,
    'flop_compiled': [(c.cost_analysis() or {}).get('flops') for c in compiled],
    'planned_mib': max(map(_bytes, analyses)) / _MIB,
    'peak_mib': peak_bytes / _MIB if peak_bytes else None,
    'trace_s': trace_s,
    'compile_s': compile_s,
    'cached_s': cached_s,
    'losses': {name: float(x) for name, x in metrics.items() if name.startswith('loss/')},
    'device': device.device_kind,
    'versions': {'jax': jax.__version__},
    'settings': {k: v for k, v in vars(settings).items() if k != 'json'},
  }
  if times:
    seconds = rows.median(times[settings.warmup :])
    peak, origin = rows.peak_flops(settings, device.device_kind, _make_matmul(settings))
    row |= {
      'images_per_s': settings.batch / seconds,
      'step_ms': 1e3 * seconds,
      'times_ms': [1e3 * t for t in times[settings.warmup :]],
      'mfu': 100e9 * row['gflop'] / seconds / peak if row['gflop'] else None,
      'peak_tflops': peak / 1e12,
      'note': f'{device.device_kind}, jax {jax.__version__}; peak: {origin}',
    }
  return row


def _shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _bytes(memory) -> int:
  total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
  return total - memory.alias_size_in_bytes


def model_flop(fn: Callable, shapes) -> float | None:
  """Returns XLA's count for a function, lowered for the CPU, whose compiler always answers."""
  try:
    cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS names another platform alone.
    return None
  here = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cpu), shapes)
  return jax.jit(fn).lower(*here).cost_analysis()['flops']


def _make_matmul(settings) -> Callable[[int], None]:
  matmul = jax.jit(jnp.matmul)

  def run(side: int) -> None:
    x = jnp.ones((side, side), jnp.dtype(settings.precision))
    matmul(x, x).block_until_ready()

  return run


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  """Reads the flags and prints the table; returns the rows."""
  parser = rows.make_parser(__doc__, pnoc.METHODS)
  parser.add_argument('--scan', action='store_true', help='compile identical blocks once')
  parser.add_argument('--quick', action='store_true', help='no GFLOP, MFU and cached s')
  parser.add_argument('--trace', type=Path, help='directory for a profile of one step more')
  return rows.run(measure, parser.parse_args(argv))


if __name__ == '__main__':
  main()
