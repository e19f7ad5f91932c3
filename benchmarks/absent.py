"""Devices that are not here: their compilers run on this machine's CPUs, their programs do not."""

import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pnoc_jax.errors import UserError
from pnoc_jax.parallel import targets

# The H100 SXM by its data sheet, as XLA's compiler for GPUs asks for it.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def prepare(target: targets.Target, wheels: str) -> None:
  """Sets what JAX and the compilers read when they begin.

  Args:
    target: the devices.
    wheels: the directory of the compiler's packages; empty where they are installed.
  """
  flags_now = os.environ.get('XLA_FLAGS', '')
  if 'host_platform_device_count' in flags_now:  # Whoever calls this has chosen.
    return
  here = f'--xla_force_host_platform_device_count={target.count}'
  os.environ['XLA_FLAGS'] = f'{flags_now} {here}'.strip()
  import jax

  jax.config.update('jax_platforms', 'cpu')
  if target.kind.startswith('v'):
    os.environ |= {
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_WORKER_HOSTNAMES': 'localhost',
      'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
      'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    }
  elif target.kind == 'h100':
    compiler = Path(wheels, 'nvidia', 'cuda_nvcc')
    os.environ['PATH'] = f'{compiler / "bin"}:{os.environ["PATH"]}'
    os.environ['XLA_FLAGS'] += f' --xla_gpu_cuda_data_dir={compiler} --xla_gpu_autotune_level=0'


def devices(target: targets.Target, wheels: str = '') -> list[Any]:
  """Abstract devices of the target.

  Args:
    target: the devices; of `cpu` this machine's own.
    wheels: as of `prepare`.

  Raises:
    UserError: the packages are missing, or the compiler knows no such devices.
  """
  from jax.experimental import topologies

  if target.kind == 'cpu':
    return standing_in(target)
  shape = 'x'.join(map(str, target.shape))
  if target.kind not in ('h100', 'v4', 'v5e', 'v5p', 'v6e'):
    raise UserError(
      f'{target.name}: programs are compiled for h100, v4, v5e, v5p, v6e and cpu; the doctor '
      'estimates the others'
    )
  if wheels:
    sys.path.insert(0, wheels)
  try:
    if target.kind == 'h100':
      count = target.count
      shape = f'1x1x{count}' if count <= 8 else f'1x{count // 8}x8'
      made = topologies.get_topology_desc(
        platform='cuda', topology_name=shape, topology=shape, target_config=_H100
      )
    else:
      options = {} if target.count > 1 else {'chips_per_host_bounds': [1, 1, 1]}
      if target.kind == 'v4':
        options['chip_config_name'] = 'megacore'
      shape = {'1': '1x1'}.get(shape, shape) if target.kind in ('v5e', 'v6e') else shape
      made = topologies.get_topology_desc(f'{target.kind}:{shape}', platform='tpu', **options)
  except Exception as error:  # Whatever a plugin raises where it is missing or refuses.
    raise UserError(
      f'{target.name}: the compiler for it is not there or knows no such devices ({error}); name '
      'the directory of its packages with --wheels=DIR, see --help'
    ) from error
  return list(made.devices)


def standing_in(target: targets.Target) -> list[Any]:
  """As many of this machine's CPU devices, to count programs and their mathematics with.

  Raises:
    UserError: this process has fewer.
  """
  import jax

  found = jax.devices('cpu')[: target.count]
  if len(found) < target.count:
    raise UserError(f'{target.name}: this process has only {len(found)} CPU devices')
  return found


class Compiled(NamedTuple):
  """What a compiler in another process left.

  Attributes:
    text: the compiled program; empty where there is none.
    buffers: bytes of its arguments, results and temporaries, and of all together.
    fault: why there is no program.
  """

  text: str
  buffers: dict[str, float]
  fault: str = ''


def compile_alone(command: Sequence[str], minutes: float) -> Compiled:
  """Runs a command that compiles one program, and reads the compiler's dumps.

  The process ends once the program's buffers are assigned: code generation would take as long
  again, and nothing runs here.

  Args:
    command: what starts the process.
    minutes: the most that it may take.
  """
  with tempfile.TemporaryDirectory() as place:
    log = Path(place, 'log')
    dump = f'--xla_dump_to={place} --xla_dump_hlo_as_text'
    environment = os.environ | {'XLA_FLAGS': dump}
    with log.open('wb') as stream:
      process = subprocess.Popen(
        command, stdout=stream, stderr=stream, env=environment, start_new_session=True
      )
    try:
      fault = _wait(process, place, minutes)
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = '' if fault else _dumped(place, 'after_optimizations.txt')
    if not text:
      return Compiled('', {}, fault or short(log.read_text(encoding='utf-8', errors='replace')))
    return Compiled(text, _buffers(_dumped(place, 'after_optimizations-buffer-assignment.txt')))


def _wait(process: subprocess.Popen, place: str, minutes: float) -> str:
  """Waits for the end, or for the buffers; says what went wrong, if anything did."""
  end = time.monotonic() + 60 * minutes
  while process.poll() is None:
    if time.monotonic() > end:
      return f'not compiled within {minutes:g} minutes'
    if _dumped(place, 'memory-usage-report.txt') and _dumped(place, 'buffer-assignment.txt'):
      time.sleep(3)  # It is the last that is written.
      return ''
    time.sleep(0.5)
  return ''


def _dumped(place: str, end: str) -> str:
  """A dump of the run's program; of smaller ones that JAX compiles beside it there are others."""
  found = glob.glob(f'{place}/*jit_counted*{end}')
  return Path(max(found, key=os.path.getsize)).read_text(encoding='utf-8') if found else ''


def _buffers(text: str) -> dict[str, float]:
  """Bytes by what they are for, of a dumped buffer assignment; a TPU's vector memory apart."""
  found = dict.fromkeys(('arguments', 'results', 'temporaries'), 0)
  for size, rest in re.findall(r'^allocation \d+: size (\d+)(.*)$', text, re.M):
    color = re.search(r'color (\d+)', rest)
    if color and color.group(1) != '0':
      continue
    what = 'arguments' if 'parameter' in rest else 'temporaries'
    found['results' if what == 'temporaries' and 'maybe-live-out' in rest else what] += int(size)
  return found | {'total': sum(found.values())}


def short(text: str) -> str:
  """The line that says why there is no program."""
  used = re.search(r'Used [\d.]+\w* of [\d.]+\w* hbm', text)
  if used:
    return f'does not fit: {used.group(0)}'
  lines = [line.strip() for line in text.splitlines() if 'rror' in line]
  return (lines or ['the compiler ended without a word'])[-1][:200]
