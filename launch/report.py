"""Rebuilds a run's report from its files: `python launch/report.py --workdir=runs/pnoc_shapes`.

The pictures need the data set. Where it is not found, the page that is there stays.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal

_WORKDIR = flags.DEFINE_string('workdir', None, "The run's directory.", required=True)
_IMAGES = flags.DEFINE_integer(
  'images', 12, 'Images shown with their maps, of each split.', lower_bound=0
)
_ROOT = flags.DEFINE_string(
  'root', None, "The data set's directory, where it is not the one of the run."
)


def main(argv: list[str]) -> None:
  """Writes the page and prints the tables."""
  terminal.accept_all_text()
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  # Not before the flags are read: `--help` and wrong flags answer at once.
  from pnoc_jax.config import PipelineConfig
  from pnoc_jax.data import info
  from pnoc_jax.io import records
  from pnoc_jax.report import build, files
  from pnoc_jax.stages.common import stage

  stages, workdir = stage.stages(PipelineConfig), Path(_WORKDIR.value)

  def open_source(config: Mapping[str, Any], split: str) -> info.Source:
    if _ROOT.value is not None:
      config = {**config, 'dataset': {**config['dataset'], 'root': _ROOT.value}}
    return files.open_source(config, split)

  try:
    if _IMAGES.value and (workdir / 'config.json').is_file():
      _check_pictures(records.read_object(workdir / 'config.json'), open_source)
    path = build.build(workdir, stages, open_source=open_source, images=_IMAGES.value)
    tables = build.terminal_tables(workdir, stages)
  except UserError as error:
    sys.exit(f'error: {error}')
  print('\n\n'.join(filter(None, (tables, str(path)))))


def _check_pictures(config: Mapping[str, Any], open_source: Callable[..., Any]) -> None:
  """Raises a UserError where the data set cannot be opened: the page would lose its pictures."""
  try:
    dataset = config['dataset']
    for split in dict.fromkeys((dataset['train_split'], *config['priors']['splits'])):
      open_source(config, split)
  except (KeyError, TypeError) as error:
    raise UserError(f'config.json names no data set ({error!r}); nothing was written') from error
  except (UserError, OSError) as error:
    raise UserError(
      f'{error}\nNothing was written, as the page would have no pictures. Name the data set with '
      f"--root=DIR (the run's is {dataset.get('root')!r}, seen from {Path.cwd()}), or take "
      '--images=0 for a page without pictures.'
    ) from error


if __name__ == '__main__':
  app.run(main)
