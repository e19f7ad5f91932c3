"""Checks a data set, an installation and a directory before a day-long run; changes nothing.

`python launch/doctor.py --config=configs/pnoc_voc.py --config.dataset.root=DIR [--workdir=DIR]`

Decodes every image and mask of the run's splits. `--target=h100:8` asks whether the run would fit
on such devices, and how long it would take at least: the answer is the compiler's where
`benchmarks/aot.py` has compiled the run's programs for them, else an estimate. Exits with 0 where
nothing stands against a run, 1 with warnings, 2 with faults.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import app, flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax import config_flags
from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.parallel import targets
from pnoc_jax.runs import places

_CONFIG = config_flags.define_config('config')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, "The run's directory; by default runs/<name of the config>."
)
_TARGET = flags.DEFINE_string(
  'target', None, 'Devices to ask about in place of those here, e.g. h100:8 or v5e:4x4.'
)
flags.declare_key_flag('config')  # For `--help`.


def main(argv: list[str]) -> None:
  """Reads the flags, looks, and prints the summary."""
  terminal.accept_all_text()
  terminal.say_stopped()
  del argv
  # Not before the flags are read: `--help` and wrong flags answer at once.
  from pnoc_jax.runs import disk, doctor

  logging.set_verbosity(logging.WARNING)
  config = _CONFIG.value
  workdir = Path(f'runs/{config.name}')
  try:
    workdir = places.local(_WORKDIR.value or f'runs/{config.name}')
    target = targets.parse(_TARGET.value) if _TARGET.value else None
    report = doctor.examine(config, workdir, progress=_progress, target=target)
  except (UserError, OSError) as error:
    print(f'error: {disk.explain(error, workdir)}', file=sys.stderr)
    sys.exit(2)
  print(report.text())
  sys.exit(report.exit_code)


@contextlib.contextmanager
def _progress(split: str, count: int) -> Iterator[Callable[[int, int], object]]:
  import tqdm

  with tqdm.tqdm(total=count, desc=f'looking at {split}', unit='image') as bar:
    yield lambda done, total: bar.update()


if __name__ == '__main__':
  app.run(main, flags_parser=config_flags.make_parser('config'))
