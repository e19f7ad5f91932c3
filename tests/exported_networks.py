"""Networks with seeded weights, for both sides of the fixture of exports."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import seeded_tensors

from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.engine import networks, settings
from pnoc_jax.nn import backbones, deeplab, torch_names
from pnoc_jax.runs.exports import networks as exported
from pnoc_jax.stages import segmentation

# Stage, backbone, output stride, last stage, normalisation of the head.
CASES = {
  'resnest': ('segmentation', 'resnest_tiny', 16, 'layer4', deeplab.HeadNorm.GROUP),
  'resnet': ('segmentation', 'resnet18', 8, 'layer3', deeplab.HeadNorm.BATCH),
  'dilated': ('generator', 'resnest_tiny', 8, 'layer4', None),
  'lite': ('generator', 'tf_efficientnet_lite0', 8, 'layer3', None),
  'vit': ('classifier', 'vit_tiny_patch16_224', 16, 'layer1', None),
}
SIZE = (41, 58)


def network(case: str) -> exported.Network:
  """A network that no run has trained."""
  stage, backbone, stride, last_stage, norm = CASES[case]
  model_config = settings.ModelConfig(backbone, stride, last_stage)
  dataset = shapes.ShapesSource(info.ShapesConfig(train=1, val=1), 'val').info
  dataset = networks.colours(model_config, dataset)
  if norm is None:
    model = networks.build(model_config, dataset.num_classes)
  else:
    head = segmentation.HeadConfig(norm=norm, width=8, low_width=4)
    config = segmentation.SegmentationConfig(model=model_config, head=head)
    model = segmentation.build(config, dataset.num_classes)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  template = jax.eval_shape(model.init, jax.random.key(0), image)
  row, found = backbones.info(backbone), {}
  for name, leaf in trees.flatten_names(template).items():
    ((theirs, value),) = torch_names.to_torch({name: np.zeros(leaf.shape)}, row).items()
    value = seeded_tensors.tensor(theirs, value.shape)
    found[name] = torch_names.to_ours(value)
  variables = {'batch_stats': {}, **trees.unflatten_names(found)}
  return exported.Network(stage, model, variables, dataset, model_config, 64, pathlib.Path())
