"""Makes a stage's network and its first variables."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from pnoc_jax import keys, states
from pnoc_jax.data import info
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import weights
from pnoc_jax.nn import backbones, classifier, layers, trunk
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.types import Variables

_DTYPES = {
  settings.Precision.FLOAT32: jnp.float32,
  settings.Precision.BFLOAT16: jnp.bfloat16,
}


def build(
  config: settings.ModelConfig, num_classes: int, *, norm: layers.Norm | None = None
) -> classifier.Classifier:
  """Makes the classification network of `config`; `norm` overrides the config's."""
  return classifier.Classifier(backbone=make_backbone(config, norm=norm), num_classes=num_classes)


def make_backbone(
  config: settings.ModelConfig, *, norm: layers.Norm | None = None, before_pool: bool = False
) -> trunk.Backbone:
  """Makes the backbone of `config`; `norm` overrides the config's."""
  options = backbones.Options(
    output_stride=config.output_stride,
    last_stage=config.last_stage,
    norm=config.norm if norm is None else norm,
    frozen_stages=config.frozen_stages,
    before_pool=before_pool,
    dtype=_DTYPES[config.precision],
    remat=config.remat,
    scan=config.scan,
  )
  return backbones.make_backbone(config.backbone, options)


def stride(config: settings.ModelConfig) -> int:
  """Pixels to a cell of the network's maps: `output_stride`, or less where it ends before that."""
  row = backbones.info(config.backbone)
  plan = row.plan(config.output_stride)[: backbones.STAGES.index(config.last_stage)]
  return row.stem_stride * math.prod(step for step, _ in plan)


def frozen_patterns(
  config: settings.ModelConfig, *, norm: layers.Norm | None = None
) -> tuple[str, ...]:
  """Regular expressions of the params that do not train: frozen stages, frozen BatchNorm."""
  patterns = [f'backbone/{name}/.*' for name in backbones.STAGES[: config.frozen_stages]]
  if (config.norm if norm is None else norm) is layers.Norm.FROZEN:
    patterns.append(r'backbone/(?:.*/)?(?:bn\d*|shortcut_bn)/(?:scale|bias)')
  return tuple(patterns)


def abstract_variables(model: nn.Module, dataset: info.DatasetInfo) -> Variables:
  """Shapes and dtypes of the network's variables, without computing them."""
  shape = (64, 64, len(dataset.mean))
  return jax.eval_shape(lambda: states.init_variables(model, keys.root_key(0), shape))


def first_variables(
  model: nn.Module,
  dataset: info.DatasetInfo,
  mesh: Mesh,
  *,
  seed: int,
  name: str,
  init: str | Path,
  arch: str,
  scratch: tuple[str, ...] = ('classifier',),
  dropped: tuple[str, ...] = (),
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
    scratch: the network's parts that keep what is drawn.
    dropped: parts of the weights' network that this one does not have.

  Returns:
    float32 host arrays.
  """
  shape = (64, 64, len(dataset.mean))
  key = keys.stream(keys.root_key(seed), f'{name}/init')
  draw = compiler.jit(lambda key: states.init_variables(model, key, shape), mesh)
  variables = jax.tree.map(np.asarray, draw(key))
  if init:
    variables = weights.load_pretrained(
      Path(init), variables, arch=arch, scratch=scratch, dropped=dropped
    )
  return variables


_HEADS = {settings.Start.CLASSIFIER: 'classifier', settings.Start.GENERATOR: 'generator'}


def start_needs(config: settings.StageTrainingConfig) -> tuple[str, ...]:
  """The stage whose backbone the network starts from, if any: a part of `Stage.needs`."""
  return (_HEADS[config.start],) if config.start in _HEADS else ()


def start_variables(
  model: nn.Module,
  dataset: info.DatasetInfo,
  runtime: Runtime,
  *,
  seed: int,
  name: str,
  config: settings.StageTrainingConfig,
  inputs: Mapping[str, Path],
  scratch: tuple[str, ...],
) -> Variables:
  """Draws a network's variables and takes its backbone's from where `config.start` says.

  Args:
    model: the network: `backbone` and the parts `scratch`.
    dataset: what it sees.
    runtime: where to draw them.
    seed: the run's seed.
    name: the stage's name.
    config: the stage's training.
    inputs: directories of the stages that it needs.
    scratch: its parts that are always drawn.

  Returns:
    float32 host arrays.

  Raises:
    UserError: the weights are of another backbone; both sides are named.
  """
  return first_variables(
    model,
    dataset,
    runtime.mesh,
    seed=seed,
    name=name,
    init=_start_path(config, inputs),
    arch=config.model.backbone,
    scratch=scratch,
    dropped=_dropped(config, scratch),
  )


def check_start(
  model: nn.Module,
  dataset: info.DatasetInfo,
  *,
  config: settings.StageTrainingConfig,
  inputs: Mapping[str, Path],
  scratch: tuple[str, ...],
) -> None:
  """Raises UserError if the weights to start from do not fit; those yet to be made are not read."""
  if all(name in inputs for name in start_needs(config)):
    check_init(
      model,
      dataset,
      init=_start_path(config, inputs),
      arch=config.model.backbone,
      scratch=scratch,
      dropped=_dropped(config, scratch),
    )


def _start_path(config: settings.StageTrainingConfig, inputs: Mapping[str, Path]) -> str | Path:
  needs = start_needs(config)
  return inputs[needs[0]] if needs else config.init


def _dropped(config: settings.StageTrainingConfig, scratch: tuple[str, ...]) -> tuple[str, ...]:
  # The classifier's head, unless this network has a part of that name.
  return tuple({'classifier'} - set(scratch)) if start_needs(config) else ()


def init_digest(init: str) -> str:
  """Digest of a weights file's bytes: a product depends on them, not on where they lie."""
  if not init:
    return ''
  with open(weights.find(init), 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def check_init(
  model: nn.Module,
  dataset: info.DatasetInfo,
  *,
  init: str | Path,
  arch: str,
  scratch: tuple[str, ...] = ('classifier',),
  dropped: tuple[str, ...] = (),
) -> None:
  """Raises UserError if the weights at `init` do not fit the network; draws nothing."""
  if init:
    template = jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), abstract_variables(model, dataset)
    )
    weights.load_pretrained(Path(init), template, arch=arch, scratch=scratch, dropped=dropped)


def load(model: nn.Module, dataset: info.DatasetInfo, directory: Path) -> Variables:
  """Reads the weights that a stage left in `directory`, strictly."""
  return weights.load_into(directory, abstract_variables(model, dataset))
