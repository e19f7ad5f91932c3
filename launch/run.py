"""Runs a config: `python launch/run.py --config=configs/pnoc_shapes.py [--workdir=DIR]`.

Fields of the config are flags: `--config.generator.optim.lr=0.05`. The same command again resumes.
A run that SIGTERM or SIGINT stopped has saved its state, and ends with 143 or 130.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax import config_flags
from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.runs import places

if TYPE_CHECKING:
  from pnoc_jax.config import PipelineConfig

_CONFIG = config_flags.define_config('config')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, "The run's directory; by default runs/<name of the config>."
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed', 'auto', ['auto', 'on', 'off'], 'Join the processes of the cluster.'
)
flags.DEFINE_string(
  'fields', None, 'List the fields of the config, or those below one: --fields=generator.optim.'
)
flags.declare_key_flag('config')  # For `--help`.


def _list_fields(config: 'PipelineConfig', prefix: str) -> str:
  from pnoc_jax.runs import fields

  return fields.table(config, prefix)


def main(argv: list[str]) -> None:
  """Reads the flags and runs the config; prints what the user can mend without a traceback."""
  terminal.accept_all_text()
  terminal.say_stopped()
  del argv
  # Not before the flags are read: `--help` and wrong flags answer at once.
  from pnoc_jax.engine import loop
  from pnoc_jax.parallel import company, hosts
  from pnoc_jax.runs import disk, runner

  logging.set_verbosity(logging.WARNING)  # orbax tells every step it takes.
  config = _CONFIG.value
  runtime, workdir = config.runtime, Path(f'runs/{config.name}')
  try:
    if _WORKDIR.value:
      workdir = places.local(_WORKDIR.value)
    if runtime.coordinator:
      hosts.initialize(
        coordinator=runtime.coordinator,
        num_processes=runtime.num_processes,
        process_id=runtime.process_id,
      )
    elif (runtime.num_processes, runtime.process_id) != (1, 0):
      raise UserError('config.runtime: num_processes and process_id need a coordinator, HOST:PORT')
    else:
      hosts.initialize(hosts.Distributed(_DISTRIBUTED.value))
    runner.execute(config, workdir)
  except company.Ended as end:
    print(end, file=sys.stderr, flush=True)
    os._exit(end.code)  # The interpreter's end would wait for the other processes.
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except loop.Interrupted as stop:
    print(f'stopped: {stop}')
    sys.exit(128 + stop.signal)  # As a shell says it: the run is not done.
  except Exception as error:
    said = disk.failed(error, workdir)
    if said is None:
      raise
    print(f'error: {said}', file=sys.stderr, flush=True)
    # What is registered for the interpreter's end fails on a full disk, too, and hides the message.
    os._exit(1)


if __name__ == '__main__':
  app.run(main, flags_parser=config_flags.make_parser('config', _list_fields))
