"""Exports a finished run's network as StableHLO, to be run without this package.

`python launch/export.py --run=runs/pnoc_shapes --output=DIR [--height=512 --width=512]`

DIR then holds `model.stablehlo` (any batch size; CPU, GPU and TPU), `model.json` (classes,
normalisation, what goes in and comes out) and `example.py`, which runs them on an image.
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
  """Reads the arguments and exports; returns the exit code."""
  terminal.accept_all_text()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--run', required=True, type=Path, help="the finished run's directory")
  parser.add_argument('--output', required=True, type=places.written, help='the directory to write')
  parser.add_argument(
    '--height', type=int, help="of the images, px; the training's crop by default"
  )
  parser.add_argument('--width', type=int, help='the height by default')
  arguments = parser.parse_args(argv)
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax.runs import export

  height = arguments.height or arguments.width
  size = (height, arguments.width or height) if height else None
  try:
    file = export.export(arguments.run, arguments.output, size=size)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(f'{file}: {file.stat().st_size / 2**20:.1f} MiB')
  print(f'try: python {file.parent / "example.py"} IMAGE')
  return 0


if __name__ == '__main__':
  sys.exit(main())
