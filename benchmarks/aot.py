"""What would a run cost on accelerators that are not here? Compiles its programs for them.

    python benchmarks/aot.py --config=configs/pnoc_voc.py:journal --target=h100:8 --wheels=DIR
    python benchmarks/aot.py --config=configs/pnoc_shapes.py --target=cpu:8
    python benchmarks/aot.py --config=configs/pnoc_coco.py --target=v5e:8x8 --estimate

Every program of the run (both updates of a CAM method, all other trainings, inference at each
scale, edges, walk, CRF) is compiled by the target's own compiler on this machine's CPUs. Nothing is
run, and nothing of the data set is read unless `--config.dataset.root` says where it is: without
it, as many images as were published, of one typical size, stand for it.

With `--estimate` nothing is compiled and nothing is written: the traffic is a guess at what a
compiler fuses (of RS50's generator step on one H100 134 GB, where 119 are compiled).

Targets are `h100:1`, `h100:8`, `v5e:4x4`, `v5p:2x2x1`, ... and `cpu:8`, which needs nothing more.
The others need packages that stay out of the environment:

    pip install --no-deps --target=DIR libtpu                       # at jaxlib's version; TPUs
    pip install --no-deps --target=DIR jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12

Rows are written as they are found, to a file that `launch/doctor.py --target` reads; the same
command goes on where the last one ended. A row is made anew when its stage's settings change.

GiB         of a device: arguments, results and temporaries, by the compiler's buffers
GFLOP       of the mathematics, all devices: products and convolutions without padding and without
            what remat computes again
GB          that a device moves to and from its memory: operands and results of each operation
ms          of a call: of each operation the larger of FLOPs / peak and bytes / bandwidth by the
            data sheet, summed; and what travels between devices, over the links
images/s    and MFU: of that time. It is a bound: launches, small kernels, input, and what caches
            save are not known
hours       of all calls of the run
"""

import dataclasses
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import absent
from pnoc_jax import config_flags
from pnoc_jax.errors import UserError
from pnoc_jax.parallel import targets

if TYPE_CHECKING:
  from pnoc_jax.config import PipelineConfig
  from pnoc_jax.parallel.compile import Call
  from pnoc_jax.stages.common.stage import Stage

_CONFIG = config_flags.define_config('config')
_TARGET = flags.DEFINE_string('target', None, 'Devices, e.g. h100:8, v5e:4x4, cpu:8.')
_STAGE = flags.DEFINE_string('stage', '', 'Only these stages, separated by commas.')
_OUT = flags.DEFINE_string('out', '', 'File of the rows; by default where the doctor looks.')
_WHEELS = flags.DEFINE_string('wheels', '', 'Directory of libtpu, or of the CUDA packages.')
_MINUTES = flags.DEFINE_float('minutes', 30.0, 'The most that one program may take to compile.')
_ESTIMATE = flags.DEFINE_bool('estimate', False, 'Compile nothing: FLOPs and times from shapes.')
_LOOK = flags.DEFINE_string('look', '', 'Used by the program itself: stage/program:file.')
flags.declare_key_flag('config')

HOST = 'runs on the host'
_GIB = 2**30
_COLUMNS = (
  ('stage/program', 26),
  ('GiB', 7),
  ('GFLOP', 9),
  ('GB', 8),
  ('ms', 9),
  ('images/s', 9),
  ('MFU %', 6),
  ('collectives, MiB', 34),
  ('hours', 7),
)


def main(argv: list[str]) -> None:
  """Reads the flags; looks at every program, or (in a process of its own) at one."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  # A compiler in a process of its own is to end with this one.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    target = targets.parse(_TARGET.value or '')
    if _LOOK.value:
      name, _, file = _LOOK.value.partition(':')
      look_alone(_CONFIG.value, target, name, Path(file))
    else:
      if _ESTIMATE.value:
        estimates(_CONFIG.value, target, only=_STAGE.value)
      else:
        everything(_CONFIG.value, target, out=_OUT.value, only=_STAGE.value)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


def everything(
  config: 'PipelineConfig', target: targets.Target, *, out: str = '', only: str = ''
) -> dict[str, dict[str, Any]]:
  """Looks at all programs that have no row yet, and prints the table; returns the rows.

  Args:
    config: the run.
    target: the devices.
    out: file of the rows.
    only: names of stages, separated by commas; all of the run's by default.
  """
  absent.prepare(target, _WHEELS.value)
  from pnoc_jax.runs import forecast

  file = Path(out) if out else forecast.path(config, target)
  if file is None:
    raise UserError('this user has no home directory: say with --out where the rows shall be')
  rows = forecast.read(file)
  _print_titles()
  hours = 0.0
  for entry, call in programs(config, absent.standing_in(target), only):
    name, made_of = forecast.key(entry, call), forecast.fingerprint(entry, config)
    row = rows.get(name, {})
    if row.get('settings') != made_of or row.get('status') not in ('ok', HOST):
      start = time.monotonic()
      row = look(config, entry, call, target) if target.kind == 'cpu' else _elsewhere(name, target)
      row |= {'settings': made_of, 'minutes': (time.monotonic() - start) / 60}
      rows[name] = row
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    print(_format(name, row), flush=True)
    hours += row.get('hours', 0.0)
  print(f'{hours:.2f} hours in all; rows: {file}')
  return rows


def estimates(config: 'PipelineConfig', target: targets.Target, *, only: str = '') -> float:
  """Prints what is known without a compiler; returns the hours of all programs.

  Args:
    config: the run.
    target: the devices.
    only: names of stages, separated by commas; all of the run's by default.
  """
  absent.prepare(target, _WHEELS.value)
  from pnoc_jax.runs import forecast

  _print_titles()
  looped = forecast.with_loops(config)
  others = [dataclasses.replace(target, shape=(n,)) for n in sorted({1, 8, 64, target.count})]
  hours = dict.fromkeys((x.count for x in others), 0.0)
  for entry, call in programs(looped, absent.standing_in(target), only):
    found, working = forecast.estimate(call, target), forecast.sharing(call, target)
    seconds = found.seconds / working
    row = {
      'status': 'ok',
      'memory': None,
      'flop': found.flop,
      'bytes': found.bytes if call.together > 1 else found.bytes / working,
      'seconds': found.seconds if call.together > 1 else seconds,
      'link_seconds': 0.0,
      'images_per_s': call.images / seconds,
      'mfu': 100 * found.at_peak / found.seconds * working / target.count,
      'collectives': {},
      'hours': call.calls * seconds / 3600,
    }
    for other in others:
      share = found.seconds / forecast.sharing(call, other)
      hours[other.count] += call.calls * share / 3600
    print(_format(forecast.key(entry, call), row), flush=True)
  text = ', '.join(f'{n} devices {x:.2f} hours' for n, x in hours.items())
  print(f'in all, estimated from shapes: {text}')
  return hours[target.count]


def _print_titles() -> None:
  print('  '.join(f'{title:>{width}}' for title, width in _COLUMNS), flush=True)


def programs(
  config: 'PipelineConfig', found: list[Any], only: str = ''
) -> Iterator[tuple['Stage', 'Call']]:
  """Yields the stages' programs on some devices, in the order of the run."""
  from pnoc_jax.engine.runtime import Runtime
  from pnoc_jax.parallel import mesh as meshes
  from pnoc_jax.runs import graph, imagined, runner
  from pnoc_jax.stages.common import stage

  mesh, nowhere = meshes.make_mesh(found), Path('nowhere')
  runtime = imagined.of(Runtime(nowhere, mesh, mesh, config.runtime))
  chosen = {name.strip() for name in only.split(',') if name.strip()} or graph.needed(config)
  inputs = {name: nowhere / name for name in graph.names(config)}
  if unknown := chosen - set(inputs):
    raise UserError(f'--stage names {", ".join(unknown)}; there are {", ".join(inputs)}')
  for entry in stage.stages(config):
    if entry.name in chosen:
      item = graph.Planned(entry, nowhere / entry.name, graph.Status.RUN, {}, {})
      context = runner.context(item, config, inputs, runtime)
      for call in entry.programs(context):
        yield entry, call


def look(
  config: 'PipelineConfig', entry: 'Stage', call: 'Call', target: targets.Target
) -> dict[str, Any]:
  """Compiles a program in this process, and says what it is."""
  lowered = call.compiled.lower(*call.arguments)
  try:
    compiled = lowered.compile()
  except Exception as error:  # What does not fit is a row, too.
    return _facts(config, entry, call, target) | {'status': absent.short(str(error))}
  memory = compiled.memory_analysis()
  arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
  temporary = memory.temp_size_in_bytes
  buffers = {
    'arguments': arguments,
    'results': results - memory.alias_size_in_bytes,
    'temporaries': temporary,
    'total': arguments + results + temporary - memory.alias_size_in_bytes,
  }
  facts = _facts(config, entry, call, target)
  return facts | judge(facts, compiled.as_text(), buffers, target)


def look_alone(config: 'PipelineConfig', target: targets.Target, name: str, file: Path) -> None:
  """Writes the facts of one program to a file, then compiles it; the dumps tell the rest."""
  absent.prepare(target, _WHEELS.value)
  from pnoc_jax import platforms
  from pnoc_jax.runs import forecast

  with platforms.traced_for(target.platform, target.count):
    found = programs(config, absent.devices(target, _WHEELS.value), name.partition('/')[0])
    entry, call = next(x for x in found if forecast.key(*x) == name)
    facts = _facts(config, entry, call, target)
    if target.kind != 'cpu' and call.compiled.mesh.devices.flat[0].platform == 'cpu':
      facts['status'] = HOST
    file.write_text(json.dumps(facts), encoding='utf-8')
    if facts['status'] != HOST:
      call.compiled.lower(*call.arguments).compile()


def _facts(
  config: 'PipelineConfig', entry: 'Stage', call: 'Call', target: targets.Target
) -> dict[str, Any]:
  """What is known of a program without its compiler."""
  import jax

  from pnoc_jax.runs import forecast

  # Loops trace sooner, and what remat computes again is no work of the mathematics.
  simple, plain = _plain(config), call
  if any(entry.lookup(simple, x) != entry.lookup(config, x) for x in entry.declared(config)):
    found = programs(simple, absent.standing_in(target), entry.name)
    plain = next(x for e, x in found if forecast.key(e, x) == forecast.key(entry, call))
  traced = forecast.estimate(plain, target)
  return {
    'status': 'ok',
    'images': call.images,
    'calls': call.calls,
    'together': call.together,
    'flop': traced.flop,
    'at_peak': traced.at_peak,
    'estimated_seconds': traced.seconds,
    'versions': {'jax': jax.__version__},
  }


def _plain(config: 'PipelineConfig') -> 'PipelineConfig':
  from pnoc_jax.runs import forecast

  config = forecast.with_loops(config)
  for field in dataclasses.fields(config):
    model = getattr(getattr(config, field.name), 'model', None)
    if model is not None:
      model.remat = False
  return config


def judge(
  facts: dict[str, Any], text: str, buffers: dict[str, float], target: targets.Target
) -> dict[str, Any]:
  """What the compiled text adds to the facts."""
  from benchmarks import hlo

  found = hlo.traffic(text, target)
  link = found.link_bytes / target.device.link
  seconds = found.seconds + link
  return {
    'memory': buffers,
    'flop_compiled': found.flop,
    'bytes': sum(found.bytes.values()),
    'bytes_backward': found.backward,
    'bytes_by_kind': dict(found.bytes.most_common(20)),
    'collectives': found.collectives,
    'endless': found.endless,
    'seconds': found.seconds,
    'link_seconds': link,
    'images_per_s': facts['images'] * facts['together'] / seconds,
    'mfu': 100 * facts['at_peak'] * facts['together'] / seconds / target.count,
    'hours': facts['calls'] / facts['together'] * seconds / 3600,
  }


def _elsewhere(name: str, target: targets.Target) -> dict[str, Any]:
  """Compiles a program in a process of its own, which writes its facts first."""
  with tempfile.TemporaryDirectory() as place:
    file = Path(place, 'facts.json')
    command = [sys.executable, __file__, *sys.argv[1:], f'--look={name}:{file}']
    made = absent.compile_alone(command, _MINUTES.value)
    facts = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}
    if facts.get('status') == HOST:
      return facts
    if made.fault:
      return facts | {'status': made.fault}
    return facts | judge(facts, made.text, made.buffers, target)


def _format(name: str, row: dict[str, Any]) -> str:
  width = _COLUMNS[0][1]
  if row['status'] != 'ok':
    return f'{name:>{width}}  {row["status"]}'
  collectives = ', '.join(
    f'{count:.0f} {kind} {size / 2**20:.0f}' for kind, (count, size) in row['collectives'].items()
  )
  cells = (
    name,
    f'{row["memory"]["total"] / _GIB:.2f}' if row['memory'] else '-',
    f'{row["flop"] / 1e9:.1f}',
    f'{row["bytes"] / 1e9:.2f}',
    f'{1e3 * (row["seconds"] + row["link_seconds"]):.2f}',
    f'{row["images_per_s"]:.1f}',
    f'{row["mfu"]:.1f}',
    collectives or '-',
    f'{row["hours"]:.2f}',
  )
  return '  '.join(f'{cell:>{n}}' for cell, (_, n) in zip(cells, _COLUMNS, strict=True))


if __name__ == '__main__':
  app.run(main, flags_parser=config_flags.make_parser('config'))
