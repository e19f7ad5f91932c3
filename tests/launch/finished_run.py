"""A directory that looks like a finished run: a small segmentation network, drawn, not trained."""

import pathlib

import jax
import numpy as np

from pnoc_jax import keys, states
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.engine import settings
from pnoc_jax.io import weights
from pnoc_jax.stages import segmentation

CROP = 32


def write(directory: pathlib.Path) -> pathlib.Path:
  """Writes `<directory>/segmentation/weights.safetensors`; returns `directory`."""
  config = segmentation.SegmentationConfig()
  config.model.backbone, config.model.last_stage = 'resnest_tiny', 'layer1'
  config.model.output_stride = 8
  config.head.width, config.head.low_width = 8, 4
  dataset = shapes.ShapesSource(info.ShapesConfig(train=1, val=1), 'val').info
  model = segmentation.build(config, dataset.num_classes)
  variables = jax.jit(lambda key: states.init_variables(model, key, (32, 32, 3)))(keys.root_key(1))
  # Labels of an untrained network hardly differ from pixel to pixel.
  head = variables['params']['decoder']['classifier']
  head['kernel'] = 30 * head['kernel']
  meta = {
    'arch': 'resnest_tiny',
    'classes': list(dataset.classes),
    'stage': 'segmentation',
    'model': settings.as_dict(config.model),
    'head': settings.as_dict(config.head),
    'dataset': settings.as_dict(dataset),
    'crop': CROP,
  }
  weights.save(directory / 'segmentation', jax.tree.map(np.asarray, variables), meta=meta)
  return directory
