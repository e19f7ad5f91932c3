"""Exports a finished run's network: one file that any JAX runs, without this package."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records
from pnoc_jax.losses import forward
from pnoc_jax.ops import convolution, normalize
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.runs import trained as trained_lib
from pnoc_jax.types import Array

FILE = 'model.stablehlo'
CONTRACT = 'model.json'
EXAMPLE = 'example.py'
PLATFORMS = ('cpu', 'cuda', 'tpu')

_EXAMPLE = '''"""Runs the network: python example.py IMAGE [LABELS.png]. Needs jax and pillow."""

import json
import pathlib
import sys

import jax
import numpy as np
from PIL import Image

here = pathlib.Path(__file__).parent
contract = json.loads((here / 'model.json').read_text(encoding='utf-8'))
model = jax.export.deserialize(bytearray((here / 'model.stablehlo').read_bytes()))
size = contract['input']['height'], contract['input']['width']

kinds = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')
image = Image.open(sys.argv[1], formats=kinds).convert('RGB')
pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), np.uint8)
probabilities = np.asarray(model.call(pixels[None]))[0]
labels = Image.fromarray(probabilities.argmax(-1).astype(np.uint8)).resize(image.size, 0)
labels.save(sys.argv[2] if len(sys.argv) > 2 else 'labels.png')
print({contract['classes'][k]: n for k, n in enumerate(np.bincount(np.array(labels).ravel())) if n})
'''


def export(run: str | Path, output: str | Path, *, size: tuple[int, int] | None = None) -> Path:
  """Writes a run's network as serialised StableHLO, what it takes and gives, and an example.

  The function takes images u8[b, H, W, 3], RGB, b any number, and gives probabilities
  f32[b, H, W, K+1]; the normalisation is inside. No scales, flips or CRF.

  Args:
    run: the finished run.
    output: the directory to write.
    size: (H, W) of the images; by default squares of the training's crop.

  Returns:
    The StableHLO file.

  Raises:
    UserError: the run has no trained network, the output holds an export already, or the size does
      not work.
  """
  output = Path(output)
  if output.is_file():
    raise UserError(f'{output} is a file; name a directory')
  if (output / FILE).exists():
    raise UserError(f'{output} already holds an export; name another directory')
  found = trained_lib.load(run)
  height, width = size or (found.crop, found.crop)
  if min(height, width) < 8:
    raise UserError(f'the size is {height} x {width}; it is at least 8 x 8')
  dataset = found.dataset
  variables = jax.tree.map(jnp.asarray, found.variables)
  # One program for all platforms: each takes the form of convolutions that suits it.
  backbone = found.model.backbone
  options = dataclasses.replace(backbone.options, radix=convolution.Radix.BY_PLATFORM)
  model = found.model.clone(backbone=backbone.clone(options=options))

  def segment(image: Array) -> Array:
    box = jnp.broadcast_to(jnp.array([0, 0, height, width]), (image.shape[0], 4))
    image = normalize.normalize(image, box, mean=dataset.mean, std=dataset.std)
    return jax.nn.softmax(forward.evaluate(model, variables, image))

  (batch,) = jax.export.symbolic_shape('b')
  image = jax.ShapeDtypeStruct((batch, height, width, 3), jnp.uint8)
  content = compiler.export(segment, image, platforms=PLATFORMS)
  contract = {
    'input': {
      'dtype': 'uint8',
      'layout': 'NHWC, RGB, 0..255',
      'batch': 'any',
      'height': height,
      'width': width,
    },
    'output': {
      'dtype': 'float32',
      'layout': 'NHWC, one probability a class',
      'channels': dataset.num_classes + 1,
    },
    'normalization': {
      'applied': 'by the model: (image / 255 - mean) / std',
      'mean': list(dataset.mean),
      'std': list(dataset.std),
    },
    'classes': [dataset.background, *dataset.classes],
    'palette': [list(color) for color in dataset.palette],
    'dataset': dataset.name,
    'platforms': list(PLATFORMS),
    'jax': jax.__version__,
  }
  records.write_json(output / CONTRACT, contract)
  atomic.write_text(output / EXAMPLE, _EXAMPLE)
  # Last: what is there is whole.
  atomic.write(output / FILE, lambda file: file.write(content))
  return output / FILE
