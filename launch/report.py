"""Rebuilds a run's report from its files: `python launch/report.py --workdir=runs/pnoc_shapes`.

The pictures need the data set. Where it is not found, the page that is there stays.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.runs import places


def main(argv: Sequence[str] | None = None) -> int:
  """Writes the page and prints the tables; returns the exit code."""
  terminal.accept_all_text()
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', required=True, help="the run's directory")
  parser.add_argument(
    '--images', type=int, default=12, help='images shown with their maps, of each split'
  )
  parser.add_argument('--root', help="the data set's directory, where it is not the one of the run")
  arguments = parser.parse_args(argv)
  if arguments.images < 0:
    parser.error('--images is a number of images, 0 or more')
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax.config import PipelineConfig
  from pnoc_jax.data import info
  from pnoc_jax.io import records
  from pnoc_jax.report import build, files
  from pnoc_jax.runs import disk
  from pnoc_jax.stages.common import stage

  stages = stage.stages(PipelineConfig)

  def open_source(config: Mapping[str, Any], split: str) -> info.Source:
    if arguments.root is not None:
      config = {**config, 'dataset': {**config['dataset'], 'root': arguments.root}}
    return files.open_source(config, split)

  try:
    workdir = places.local(arguments.workdir)
    if arguments.images and (workdir / 'config.json').is_file():
      _check_pictures(records.read_object(workdir / 'config.json'), open_source)
    path = build.build(workdir, stages, open_source=open_source, images=arguments.images)
    tables = build.terminal_tables(workdir, stages)
  except (UserError, OSError) as error:
    print(f'error: {disk.explain(error, Path(arguments.workdir))}', file=sys.stderr)
    return 2
  print('\n\n'.join(filter(None, (tables, str(path)))))
  return 0


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
  sys.exit(main())
