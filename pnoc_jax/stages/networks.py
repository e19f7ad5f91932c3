"""Makes a stage's classification network and its first variables."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pnoc_jax import keys, states
from pnoc_jax.data import info
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.nn import backbones, classifier, layers
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages import settings
from pnoc_jax.types import Variables

_DTYPES = {
  settings.Precision.FLOAT32: jnp.float32,
  settings.Precision.BFLOAT16: jnp.bfloat16,
}


def build(
  config: settings.ModelConfig, num_classes: int, *, norm: layers.Norm | None = None
) -> classifier.Classifier:
  """Makes the network of `config`; `norm` overrides the config's."""
  backbone = backbones.make_backbone(
    config.backbone,
    output_stride=config.output_stride,
    last_stage=config.last_stage,
    norm=config.norm if norm is None else norm,
    frozen_stages=config.frozen_stages,
    dtype=_DTYPES[config.precision],
    remat=config.remat,
    scan=config.scan,
  )
  return classifier.Classifier(backbone=backbone, num_classes=num_classes)


def frozen_patterns(
  config: settings.ModelConfig, *, norm: layers.Norm | None = None
) -> tuple[str, ...]:
  """Regular expressions of the params that do not train: frozen stages, frozen BatchNorm."""
  patterns = [f'backbone/{name}/.*' for name in backbones.STAGES[: config.frozen_stages]]
  if (config.norm if norm is None else norm) is layers.Norm.FROZEN:
    patterns.append(r'backbone/(?:.*/)?(?:bn\d*|shortcut_bn)/(?:scale|bias)')
  return tuple(patterns)


def abstract_variables(model: classifier.Classifier, dataset: info.DatasetInfo) -> Variables:
  """Shapes and dtypes of the network's variables, without computing them."""
  shape = (64, 64, len(dataset.mean))
  return jax.eval_shape(lambda: states.init_variables(model, keys.root_key(0), shape))


def first_variables(
  model: classifier.Classifier,
  dataset: info.DatasetInfo,
  mesh: Mesh,
  *,
  seed: int,
  name: str,
  init: str,
  arch: str,
) -> Variables:
  """Draws the variables, and takes the backbone's from the file or directory `init` if given.

  Args:
    model: the network.
    dataset: what it classifies.
    mesh: where to draw them.
    seed: the run's seed.
    name: the stage's name: networks of two stages differ.
    init: weights of the backbone, or empty.
    arch: the backbone's name, to read foreign names with.

  Returns:
    float32 host arrays.
  """
  shape = (64, 64, len(dataset.mean))
  key = keys.stream(keys.root_key(seed), f'{name}/init')
  draw = compiler.jit(lambda key: states.init_variables(model, key, shape), mesh)
  variables = jax.tree.map(np.asarray, draw(key))
  if init:
    variables = weights.load_pretrained(Path(init), variables, arch=arch, scratch=('classifier',))
  return variables


def load(model: classifier.Classifier, dataset: info.DatasetInfo, directory: Path) -> Variables:
  """Reads the weights that a stage left in `<directory>/weights`, strictly."""
  path = directory / 'weights'
  if not path.is_dir():
    raise UserError(f'{path} is missing: {directory} is not the directory of a finished stage')
  return weights.load_into(path, abstract_variables(model, dataset))
