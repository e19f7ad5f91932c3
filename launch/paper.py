"""A table or figure of the paper, from labels to LaTeX, with the spread over seeds.

`python launch/paper.py --table=1 --config=configs/pnoc_shapes.py --seeds=3`
`python launch/paper.py --figure=8 --config=configs/pnoc_voc.py --config.dataset.root=ROOT`
`python launch/paper.py --table=1 --rows=poc,pnoc --config=configs/pnoc_folder.py ...`

Runs what its rows need and is not there, each stage once for all rows that have it alike, and
writes <workdir>/table<N>.{md,csv,tex,svg} or <workdir>/figure<N>.png after every run. The same
command again goes on. `--dry_run` prints the runs, what there is and the time, and changes nothing.
"""

import os
import sys
from pathlib import Path

from absl import app, flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax import config_flags
from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.parallel import targets
from pnoc_jax.runs import places

_CONFIG = config_flags.define_config('config')
_TABLE = flags.DEFINE_list('table', [], 'Tables of the paper, 1 to 8.')
_FIGURE = flags.DEFINE_list('figure', [], 'Figures of the paper: 1, 2, 4 to 9.')
_SEEDS = flags.DEFINE_integer(
  'seeds', 1, 'Runs of each row: seeds 0, 1, ...', lower_bound=1, upper_bound=1000
)
_ROWS = flags.DEFINE_list('rows', [], 'Rows by their names, e.g. poc,pnoc; all by default.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'By default runs/paper_<name of the config>.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the plan and the time; change nothing.')
_TARGET = flags.DEFINE_string(
  'target', None, 'With --dry_run: devices to estimate times for, e.g. h100:8.'
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed', 'auto', ['auto', 'on', 'off'], 'Join the processes of the cluster.'
)
flags.declare_key_flag('config')  # For `--help`.


def main(argv: list[str]) -> None:
  """Plans, runs and writes; prints what the user can mend without a traceback."""
  terminal.accept_all_text()
  terminal.say_stopped()
  del argv
  # Not before the flags are read: `--help` and wrong flags answer at once.
  from pnoc_jax.engine import loop
  from pnoc_jax.paper import command, rows
  from pnoc_jax.parallel import company, hosts
  from pnoc_jax.runs import disk

  logging.set_verbosity(logging.WARNING)  # orbax tells every step it takes.
  workdir = Path(f'runs/paper_{_CONFIG.value.name}')
  try:
    workdir = places.local(_WORKDIR.value or str(workdir))
    target = targets.parse(_TARGET.value) if _TARGET.value else None
    if target and not _DRY_RUN.value:
      raise UserError('--target estimates times; give --dry_run with it, or leave it out to run')
    order = command.Order(
      _CONFIG.value,
      rows.maker(config_flags.given('config')),
      workdir,
      tables=tuple(_TABLE.value),
      figures=tuple(_FIGURE.value),
      rows=tuple(_ROWS.value),
      seeds=_SEEDS.value,
    )
    if _DRY_RUN.value:
      for line in command.preview(order, target):
        print(line, flush=True)
      return
    hosts.initialize(hosts.Distributed(_DISTRIBUTED.value))
    command.execute(order)
  except company.Ended as end:
    print(end, file=sys.stderr, flush=True)
    sys.exit(end.code)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except loop.Interrupted as stop:
    print(f'stopped: {stop}')
    sys.exit(128 + stop.signal)  # As a shell says it: not all is done.
  except Exception as error:
    print(f'error: {disk.explain(error, workdir)}', file=sys.stderr, flush=True)
    # What is registered for the interpreter's end fails on a full disk, too, and hides the message.
    os._exit(1)


if __name__ == '__main__':
  app.run(main, flags_parser=config_flags.make_parser('config'))
