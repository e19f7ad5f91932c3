"""Runs functions in two processes that talk over the loopback, as two hosts would.

    results = two_processes.run('tests.parallel.worker:checkpoints', str(tmp_path), devices=2)

starts `python -m tests.parallel.two_processes` twice. In each the processes are joined, the
function is called as `fn(mesh, *args)`, and what it returns (as JSON) comes back, process 0 first.
"""

import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import Any

from tests import machine

ROOT = pathlib.Path(__file__).parents[2]
PROCESSES = 2


def run(function: str, *args: Any, devices: int = 1, seconds: float = 240.0) -> list[Any]:
  """Calls a function in two joined processes.

  Args:
    function: `module:name`.
    *args: JSON values, passed after the mesh.
    devices: CPU devices of each process.
    seconds: time limit.

  Returns:
    Each process's result.
  """
  with tempfile.TemporaryDirectory() as folder:
    coordinator = f'localhost:{_free_port()}'
    outs = [pathlib.Path(folder) / f'{i}.json' for i in range(PROCESSES)]
    logs = [pathlib.Path(folder) / f'{i}.log' for i in range(PROCESSES)]
    processes = []
    try:
      for i in range(PROCESSES):
        job = json.dumps([function, args, coordinator, i, os.fspath(outs[i])])
        with logs[i].open('w') as log:
          processes.append(
            subprocess.Popen(
              [sys.executable, '-m', 'tests.parallel.two_processes', job],
              cwd=ROOT,
              env=_environment(devices),
              stdout=log,
              stderr=subprocess.STDOUT,
            )
          )
      codes = [process.wait(seconds) for process in processes]
    except subprocess.TimeoutExpired:
      codes = [process.poll() for process in processes]
    finally:
      for process in processes:
        if process.poll() is None:
          process.kill()
          process.wait()
    if any(codes) or None in codes:
      tails = [f'process {i}, exit {codes[i]}:\n{logs[i].read_text()[-4000:]}' for i in (0, 1)]
      raise AssertionError(f'{function} failed\n' + '\n'.join(tails))
    return [json.loads(out.read_text()) for out in outs]


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def _environment(devices: int) -> dict[str, str]:
  return machine.environment(devices) | {
    'PYTHONPATH': os.pathsep.join([os.fspath(ROOT), os.environ.get('PYTHONPATH', '')]),
  }


def _main(job: str) -> None:
  from absl import flags

  from pnoc_jax.parallel import hosts, mesh

  flags.FLAGS.mark_as_parsed()
  function, args, coordinator, process_id, out = json.loads(job)
  joined = hosts.initialize(coordinator=coordinator, num_processes=PROCESSES, process_id=process_id)
  assert joined
  module, name = function.split(':')
  result = getattr(importlib.import_module(module), name)(mesh.make_mesh(), *args)
  hosts.barrier('end')
  pathlib.Path(out).write_text(json.dumps(result))


if __name__ == '__main__':
  _main(sys.argv[1])
