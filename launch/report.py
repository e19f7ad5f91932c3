"""Rebuilds a run's report from its files: `python launch/report.py --workdir=runs/pnoc_shapes`."""

import sys
from pathlib import Path

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal

_WORKDIR = flags.DEFINE_string('workdir', None, "The run's directory.", required=True)
_IMAGES = flags.DEFINE_integer(
  'images', 12, 'Images shown with their maps, of each split.', lower_bound=0
)


def main(argv: list[str]) -> None:
  """Writes the page and prints the tables."""
  terminal.accept_all_text()
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  # Not before the flags are read: `--help` and wrong flags answer at once.
  from pnoc_jax.config import PipelineConfig
  from pnoc_jax.report import build
  from pnoc_jax.stages.common import stage

  stages = stage.stages(PipelineConfig)

  try:
    path = build.build(_WORKDIR.value, stages, images=_IMAGES.value)
    tables = build.terminal_tables(_WORKDIR.value, stages)
  except UserError as error:
    sys.exit(f'error: {error}')
  print('\n\n'.join(filter(None, (tables, str(path)))))


if __name__ == '__main__':
  app.run(main)
