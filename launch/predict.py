"""Segments any images with a finished run's network.

`python launch/predict.py --run=runs/pnoc_shapes --input=FILE|DIR --output=DIR [--crf] [--overlay]`

Writes `<name>.png`, a palette PNG of class numbers in the image's own size, and with `--overlay`
also `overlays/<name>.png`. Files that cannot be read are listed in `skipped.csv`. The same command
again makes what is missing, and what another network, other flags or a changed image made. The
output lies apart from the input; a file that this command did not write is never replaced.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.runs import places


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the arguments and segments; returns 2 where nothing could be done."""
  terminal.accept_all_text()
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--run', required=True, type=Path, help="the finished run's directory")
  parser.add_argument('--input', required=True, type=Path, help='an image, or a directory of them')
  parser.add_argument('--output', required=True, type=places.written, help='the directory to write')
  parser.add_argument('--crf', action='store_true', help="refine with the run's dense CRF")
  parser.add_argument('--overlay', action='store_true', help='also lay labels over the images')
  parser.add_argument('--scales', help="factors, separated by commas; the run's own by default")
  parser.add_argument('--max_side', default=1024, type=int, help='larger images are reduced to it')
  arguments = parser.parse_args(argv)
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax.runs import disk, trained
  from pnoc_jax.stages import predictions

  try:
    network = trained.load(arguments.run)
    config = network.inference
    config.batch_size = 1
    config.crf.steps = (config.crf.steps or 10) if arguments.crf else 0
    if arguments.scales is not None:
      config.scales = _scales(parser, arguments.scales)
    if faults := predictions.faults(config):
      raise UserError('; '.join(faults))
    found = trained.predict_files(
      network,
      arguments.input,
      arguments.output,
      config=config,
      overlay=arguments.overlay,
      max_side=arguments.max_side,
    )
  except (UserError, OSError) as error:
    _say(f'error: {disk.explain(error, arguments.output)}', sys.stderr)
    return 2
  _say(f'{found.made} label maps made, {found.kept} kept, in {arguments.output}', sys.stdout)
  for file, why in found.skipped:
    _say(f'skipped {file}: {why}', sys.stderr)
  return 0 if found.made or found.kept else 2


def _say(text: str, file: TextIO) -> None:
  """Prints what may have names of files that the terminal cannot show."""
  encoding = file.encoding or 'utf-8'
  print(text.encode(encoding, 'backslashreplace').decode(encoding), file=file)


def _scales(parser: argparse.ArgumentParser, text: str) -> tuple[float, ...]:
  try:
    return tuple(float(scale) for scale in text.split(','))
  except ValueError:
    parser.error(f'--scales={text}: numbers separated by commas')


if __name__ == '__main__':
  sys.exit(main())
