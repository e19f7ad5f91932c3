"""Exports a network of a finished run, to be used without this package.

`python launch/export.py --run=runs/pnoc_shapes --output=DIR`

`--network` names the segmentation network, the generator or the classifier, `--format` what is made
of it:

- stablehlo: `model.stablehlo`, which JAX runs on CPU, GPU and TPU, on any number of images.
- torch: `model.safetensors`, with the names of timm or torchvision; `example.py` is the network in
  PyTorch (`pip install torch timm safetensors`).
- onnx: `model.onnx`, which ONNX runtimes run on any number of images
  (`pip install 'pnoc-jax[onnx]'`).

The programs of stablehlo and onnx take images of `--height` by `--width`.

With it come `model.json` (classes, normalisation, what goes in and comes out), `example.py`, which
runs it on an image, and the card `README.md` (data, recipe, scores, commit). docs/exports.md tells
more.
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
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--run', required=True, type=Path, help="the finished run's directory")
  parser.add_argument(
    '--output', required=True, type=places.written, help='the new directory to write'
  )
  parser.add_argument(
    '--format', choices=('stablehlo', 'torch', 'onnx'), default='stablehlo', help='what is written'
  )
  parser.add_argument(
    '--network',
    choices=('segmentation', 'generator', 'classifier'),
    default='segmentation',
    help='which of the networks of the run',
  )
  parser.add_argument(
    '--height', type=int, help="of the images, px; the training's crop by default"
  )
  parser.add_argument('--width', type=int, help='the height by default')
  arguments = parser.parse_args(argv)
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax.runs import disk, estimates
  from pnoc_jax.runs.exports import export

  given = [x for x in (arguments.height, arguments.width) if x is not None]
  size = (given[0], given[-1]) if given else None
  try:
    file = export.export(
      arguments.run,
      arguments.output,
      form=export.Format(arguments.format),
      network=arguments.network,
      size=size,
    )
  except (UserError, OSError) as error:
    print(f'error: {disk.explain(error, arguments.output)}', file=sys.stderr)
    return 2
  print(f'{file}: {estimates.readable(file.stat().st_size)}')
  if (file.parent / export.EXAMPLE).is_file():
    print(f'try: python {file.parent / export.EXAMPLE} IMAGE')
  return 0


if __name__ == '__main__':
  sys.exit(main())
