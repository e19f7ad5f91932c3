"""Scores a folder of label maps `<id>.png`, this package's or any other tool's.

`python launch/evaluate.py --pred=DIR --dataset=folder --root=ROOT --split=val --output=DIR`

The PNGs, palette or grey, hold class numbers; 255 is no class. `--dataset` may also be the
`config.json` of a run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.runs import places


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the arguments, scores, prints and writes the result; returns the exit code."""
  terminal.accept_all_text()
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--pred', required=True, type=Path, help='the folder of <id>.png')
  parser.add_argument('--dataset', required=True, help='its kind, or a config.json')
  parser.add_argument('--root', help="the data set's directory")
  parser.add_argument('--split', default='val', help='val by default')
  parser.add_argument(
    '--output', type=places.written, help='where to write evaluation.json, confusion.png'
  )
  arguments = parser.parse_args(argv)
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax.data import sources
  from pnoc_jax.io import records
  from pnoc_jax.report import confusion, files, tables
  from pnoc_jax.runs import disk, written
  from pnoc_jax.stages.common import scores

  try:
    dataset = {'name': arguments.dataset}
    if Path(arguments.dataset).is_file():
      config = records.read_json(arguments.dataset)
      if not isinstance(config, dict) or not isinstance(config.get('dataset'), dict):
        raise UserError(f"--dataset={arguments.dataset} is no run's config.json: it has no dataset")
      dataset = dict(config['dataset'])
    elif sources.row(arguments.dataset).needs_root and arguments.root is None:
      raise UserError(f'--root=DIR is missing: the directory of the data set {arguments.dataset}')
    if arguments.root is not None:
      dataset['root'] = arguments.root
    source = files.open_source({'dataset': dataset}, arguments.split)
    if arguments.output is not None:
      files_read = (path for index in range(len(source)) for path in source.files(index))
      written.check_beside(files_read, arguments.output, '--output')
      if (arguments.output / 'confusion.png').is_file() and 'confusion' in source.ids:
        raise UserError(
          f'--output={arguments.output} holds a label map confusion.png: name another directory'
        )
    result = scores.score_folder(source, arguments.pred)
    print(f'{arguments.pred}, {arguments.split} of {source.info.name}:\n{tables.score(result)}')
    if arguments.output is not None:
      records.write_json(arguments.output / 'evaluation.json', result)
      confusion.write_png(arguments.output / 'confusion.png', result)
      print(f'written to {arguments.output}')
  except (UserError, OSError) as error:
    print(f'error: {disk.explain(error, arguments.output or Path())}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
