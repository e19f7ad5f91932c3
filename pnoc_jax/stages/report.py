"""Stage `report`: one page that shows the run."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from pnoc_jax.engine import memory
from pnoc_jax.engine.runtime import Context
from pnoc_jax.io import records
from pnoc_jax.parallel import hosts
from pnoc_jax.report import build, files
from pnoc_jax.stages.common import stage

_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


@dataclasses.dataclass(slots=True)
class ReportConfig:
  """The report.

  Attributes:
    images: images shown with their maps.
  """

  images: int = 12


def run(context: Context) -> None:
  """Writes `<out>/index.html` from the run's files."""
  if hosts.is_main():
    config = context.config
    stages = stage.stages(config)
    devices = context.runtime.mesh.devices.flat
    records.write_json(context.runtime.workdir / files.MADE, made(list(devices)))
    page = build.build(context.runtime.workdir, stages, images=config.report.images)
    print(f'  {page}')
  hosts.barrier('report')


def made(
  devices: Sequence[jax.Device],  # pyright: ignore[reportInvalidTypeForm]
) -> dict[str, str]:
  """How a run came about, for the end of its page: command, code, machine and date, in words.

  Args:
    devices: that it ran on.
  """
  kind = f'{len(devices)} x {devices[0].device_kind}'
  room = f'{memory.host_bytes() / 2**30:.0f} GiB of memory'
  versions = [f'Python {platform.python_version()}']
  versions += [f'{name} {importlib.metadata.version(name)}' for name in _PACKAGES]
  found = {
    'command': shlex.join(['python', *sys.argv]),
    'commit': _commit(),
    'versions': ', '.join(versions),
    'machine': f'{kind}; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {room}',
    'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M UTC'),
  }
  return {name: text for name, text in found.items() if text}


def _commit() -> str:
  """The commit of the code, where it lies in a repository of its own."""
  root = Path(__file__).parents[2]
  if not (root / '.git').exists():
    return ''
  command = (
    'git',
    '-C',
    str(root),
    'describe',
    '--always',
    '--dirty=, with changes',
    '--abbrev=12',
  )
  try:
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
  except (OSError, subprocess.SubprocessError):
    return ''
  return found.stdout.strip()


def _faults(config: stage.PipelineConfig) -> list[str]:
  count = config.report.images
  return [f'report.images is {count}; it is at least 0'] if count < 0 else []


STAGE = stage.Stage(
  name='report',
  config=ReportConfig,
  run=run,
  describe=lambda config, source: 'one HTML page',
  needs=lambda config: ('evaluation',),
  faults=_faults,
  looks=stage.ALL,
)
