"""Exports a finished run's networks: files that other programs run, without this package."""

import dataclasses
import enum
import importlib.util
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import platforms, trees
from pnoc_jax.engine import settings
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records, weights
from pnoc_jax.losses import forward
from pnoc_jax.nn import backbones, deeplab, torch_names
from pnoc_jax.ops import convolution, normalize
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.runs.exports import card, networks
from pnoc_jax.types import Array

CONTRACT = 'model.json'
EXAMPLE = 'example.py'
PLATFORMS = ('cpu', 'cuda', 'tpu')
LARGEST = 1 << 14  # Pixels of a side.
_TEMPLATES = pathlib.Path(__file__).parent / 'templates'
# Families whose networks timm builds; the example of the others would need their definitions.
_IN_TIMM = ('resnet', 'resnest', 'efficientnet_lite', 'vit')


class Format(enum.Enum):
  """What an export is for.

  Attributes:
    STABLEHLO: a program for JAX on any platform and any number of images.
    TORCH: weights with the names of timm and torchvision, and the PyTorch code that takes them.
    ONNX: a graph for any number of images, for ONNX runtimes; needs the package jax2onnx.
  """

  STABLEHLO = 'stablehlo'
  TORCH = 'torch'
  ONNX = 'onnx'

  @property
  def file(self) -> str:
    """Name of the network's file."""
    suffix = 'safetensors' if self is Format.TORCH else self.value
    return f'model.{suffix}'


def export(
  run: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  form: Format = Format.STABLEHLO,
  network: str = 'segmentation',
  size: tuple[int, int] | None = None,
) -> pathlib.Path:
  """Writes a network, what it takes and gives (`model.json`), an example and a card (`README.md`).

  The programs take images u8[b, H, W, 3], RGB, and normalise them inside. A segmentation network
  gives probabilities f32[b, H, W, K+1]. A classification network gives probabilities f32[b, K] and
  the raw maps f32[b, h, w, K] whose means they are of. No scales, flips or CRF.

  Args:
    run: the finished run.
    output: the directory to write, new or empty; it is whole or not there.
    form: what is written.
    network: a stage of `networks.NETWORKS`.
    size: (H, W) of the images; by default squares of the training's crop.

  Returns:
    The network's file.

  Raises:
    UserError: the run has no such network, the output holds an export or anything else already,
      the size does not work, or the package that a format needs is not installed.
  """
  output = pathlib.Path(output)
  atomic.check_new(output)
  if form is Format.ONNX and importlib.util.find_spec('jax2onnx') is None:
    raise UserError("--format=onnx needs jax2onnx: pip install 'pnoc-jax[onnx]'")
  found = networks.load(run, network)
  size = size or (found.crop, found.crop)
  if not 8 <= min(size) <= max(size) <= LARGEST:
    raise UserError(
      f'the size is {size[0]} x {size[1]}; each side has 8 to {LARGEST} px (--height, --width)'
    )
  contract = describe(found, form, size)
  if form is Format.TORCH:
    content = weights.torch_bytes(state_dict(found))
  elif form is Format.ONNX:
    content = _onnx(found, size)
  else:
    content = _stablehlo(found, size)
  with atomic.new_directory(output) as made:
    records.write_json(made / CONTRACT, contract)
    if form is not Format.TORCH or contract['backbone']['family'] in _IN_TIMM:
      template = (_TEMPLATES / f'{form.value}.py').read_text(encoding='utf-8')
      atomic.write_text(made / EXAMPLE, template)
    atomic.write_text(made / card.FILE, card.text(run, found, contract))
    atomic.write(made / form.file, lambda file: file.write(content))
  return output / form.file


def describe(found: networks.Network, form: Format, size: tuple[int, int]) -> dict[str, Any]:
  """What goes into an exported network and comes out, and how it is built: `model.json`."""
  dataset, whole = found.dataset, isinstance(found.model, deeplab.DeepLab)
  torch = form is Format.TORCH
  contract = {
    'network': found.name,
    'input': {
      'dtype': 'float32' if torch else 'uint8',
      'layout': 'NCHW, RGB, normalised' if torch else 'NHWC, RGB, 0..255',
      'batch': 'any',
      'height': size[0],
      'width': size[1],
    },
    'output': _outputs(found, torch),
    'normalization': {
      'applied': f'by the {"caller" if torch else "model"}: (image / 255 - mean) / std',
      'mean': list(dataset.mean),
      'std': list(dataset.std),
    },
    'classes': [*([dataset.background] if whole else []), *dataset.classes],
    'palette': [list(color) for color in dataset.palette[0 if whole else 1 :]],
    'dataset': dataset.name,
    'backbone': _backbone(found.config),
  }
  if isinstance(found.model, deeplab.DeepLab):
    contract['head'] = {
      'norm': found.model.norm.value,
      'rates': list(found.model.rates),
      'width': found.model.width,
      'low_width': found.model.low_width,
    }
  if form is Format.STABLEHLO:
    contract |= {'platforms': list(PLATFORMS), 'jax': jax.__version__}
  return contract


def _outputs(found: networks.Network, torch: bool) -> dict[str, Any]:
  count, layout = found.dataset.num_classes, 'NCHW' if torch else 'NHWC'
  if isinstance(found.model, deeplab.DeepLab):
    what = 'one logit a class' if torch else 'one probability a class'
    return {'dtype': 'float32', 'layout': f'{layout}, {what}', 'channels': count + 1}
  maps = f'{layout}, one raw map a class; the means are the logits'
  if torch:
    return {'dtype': 'float32', 'layout': maps, 'channels': count}
  return {'dtype': 'float32', 'layout': 'NC, one probability a class', 'channels': count} | {
    'maps': {'dtype': 'float32', 'layout': maps, 'channels': count}
  }


def _backbone(config: settings.ModelConfig) -> dict[str, Any]:
  """What another framework must know to build the backbone."""
  row = backbones.info(config.backbone)
  plan = row.plan(config.output_stride)
  return {
    'name': row.name,
    'family': row.family,
    'timm': row.pretrained.partition('hub:timm/')[2].partition('.')[0],
    'blocks': list(row.blocks),
    'widths': list(row.widths),
    'expansion': row.expansion,
    'stem_width': row.stem_width,
    'pool': row.pool.value,
    'output_stride': config.output_stride,
    'last_stage': config.last_stage,
    'channels': [row.channels['layer1'], row.channels[config.last_stage]],
    'plan': [[s, d, row.first_dilation(d)] for s, d in plan],
  }


def program(
  found: networks.Network, size: tuple[int, int], radix: convolution.Radix
) -> Callable[[Array], Any]:
  """The network as a function of images u8[b, H, W, 3]; `radix` is the form of convolutions."""
  backbone = found.model.backbone
  model = found.model.clone(
    backbone=backbone.clone(options=dataclasses.replace(backbone.options, radix=radix))
  )
  variables = jax.tree.map(jnp.asarray, found.variables)
  dataset = found.dataset

  def run(image: Array) -> Any:
    box = jnp.broadcast_to(jnp.array([0, 0, *size]), (image.shape[0], 4))
    image = normalize.normalize(image, box, mean=dataset.mean, std=dataset.std)
    # Whatever device exports: other forms than a CPU's serve gradients, and ONNX cannot say them.
    with platforms.traced_for('cpu'):
      result = forward.evaluate(model, variables, image)
    if isinstance(model, deeplab.DeepLab):
      return jax.nn.softmax(result)
    return jax.nn.sigmoid(result.mean((1, 2))), result

  return run


def _stablehlo(found: networks.Network, size: tuple[int, int]) -> bytes:
  # One program for all platforms: each takes the form of convolutions that suits it.
  function = program(found, size, convolution.Radix.BY_PLATFORM)
  return compiler.export(function, _images(size), platforms=PLATFORMS)


def _images(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
  """Any number of images."""
  (batch,) = jax.export.symbolic_shape('b')
  return jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)


def _onnx(found: networks.Network, size: tuple[int, int]) -> bytes:
  import jax2onnx  # pyright: ignore[reportMissingImports]

  # It warns of each shape that is known at run time alone.
  logging.getLogger('onnx_ir').setLevel(logging.ERROR)
  function = program(found, size, convolution.Radix.GROUPED)
  outputs = ['probabilities'] + ([] if isinstance(found.model, deeplab.DeepLab) else ['maps'])
  names = {'input_names': ['image'], 'output_names': outputs}
  return jax2onnx.to_onnx(function, [_images(size)], **names).SerializeToString()


def state_dict(found: networks.Network) -> dict[str, np.ndarray]:
  """A network's weights with the names and layouts of PyTorch."""
  arrays = trees.flatten_names(found.variables)
  row = backbones.info(found.config.backbone)
  return torch_names.to_torch({n: np.asarray(x) for n, x in arrays.items()}, row)
