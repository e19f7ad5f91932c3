"""Makes a stage's classification network and its first variables."""

import hashlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pnoc_jax import keys, states
from pnoc_jax.data import info
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.nn import backbones, classifier, layers, trunk
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


def stride(config: settings.ModelConfig) -> int:
  """Pixels to a cell of the network's maps: `output_stride`, or less where it ends before that."""
  total = 4 if backbones.info(config.backbone).max_pool else 2
  plan = trunk.plan_strides(total, config.output_stride)
  return total * math.prod(step for step, _ in plan[: backbones.STAGES.index(config.last_stage)])


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


def init_digest(init: str) -> str:
  """Digest of a weights file's bytes: a product depends on them, not on where they lie."""
  if not init:
    return ''
  with open(weights.find(init), 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def check_init(model: classifier.Classifier, dataset: info.DatasetInfo, *, init: str, arch: str):
  """Raises UserError if the weights at `init` do not fit the network; draws nothing."""
  if init:
    template = jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), abstract_variables(model, dataset)
    )
    weights.load_pretrained(Path(init), template, arch=arch, scratch=('classifier',))


def load(model: classifier.Classifier, dataset: info.DatasetInfo, directory: Path) -> Variables:
  """Reads the weights that a stage left in `<directory>/weights`, strictly."""
  path = directory / 'weights'
  if not path.is_dir():
    raise UserError(f'{path} is missing: {directory} is not the directory of a finished stage')
  return weights.load_into(path, abstract_variables(model, dataset))
