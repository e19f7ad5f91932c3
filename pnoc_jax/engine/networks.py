"""Makes a stage's network and its first variables."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax import keys, states, trees
from pnoc_jax.data import info
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.nn import backbones, classifier, layers
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.types import Variables

_DTYPES = {
  settings.Precision.FLOAT32: jnp.float32,
  settings.Precision.BFLOAT16: jnp.bfloat16,
}
LOOKS = ('classifier.model', 'generator.model')
"""Fields that a stage may look at whose network starts from another's; see `check_start`."""


def build(
  config: settings.ModelConfig, num_classes: int, *, norm: layers.Norm | None = None
) -> classifier.Classifier:
  """Makes the classification network of `config`; `norm` overrides the config's."""
  return classifier.Classifier(backbone=make_backbone(config, norm=norm), num_classes=num_classes)


def make_backbone(
  config: settings.ModelConfig, *, norm: layers.Norm | None = None, before_pool: bool = False
) -> nn.Module:
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


def colours(config: settings.ModelConfig, dataset: info.DatasetInfo) -> info.DatasetInfo:
  """The data set's facts with the mean and the deviation of colours that the network wants.

  Images with other channels than red, green and blue keep the data set's.
  """
  row = backbones.info(config.backbone)
  if row.mean is None or row.std is None or len(dataset.mean) != len(row.mean):
    return dataset
  return dataclasses.replace(dataset, mean=row.mean, std=row.std)


def facts(config: settings.TrainingConfig, dataset: info.DatasetInfo) -> dict[str, Any]:
  """What a weights file says of its network, so that it can be used without the run's config."""
  return {
    'model': settings.as_dict(config.model),
    'dataset': settings.as_dict(colours(config.model, dataset)),
    'crop': config.transform.crop,
  }


def stride(config: settings.ModelConfig) -> int:
  """Pixels to a cell of the network's maps: `output_stride`, or less where it ends before that."""
  row = backbones.info(config.backbone)
  plan = row.plan(config.output_stride)[: backbones.STAGES.index(config.last_stage)]
  return row.stem_stride * math.prod(step for step, _ in plan)


NORM_PARAMS = r'backbone/(?:.*/)?(?:bn\d*|shortcut_bn)/(?:scale|bias)'
"""Matches scale and bias of BatchNorm, of which a ViT has none."""


def frozen_patterns(
  config: settings.ModelConfig, *, norm: layers.Norm | None = None
) -> tuple[str, ...]:
  """Regular expressions of the params that do not train: frozen stages, frozen BatchNorm."""
  patterns = [f'backbone/{name}/.*' for name in backbones.STAGES[: config.frozen_stages]]
  if (config.norm if norm is None else norm) is layers.Norm.FROZEN:
    patterns.append(NORM_PARAMS)
  return tuple(patterns)


def abstract_variables(model: nn.Module, dataset: info.DatasetInfo) -> Variables:
  """Shapes and dtypes of the network's variables, without computing them."""
  # A tree of one's own: callers add to it.
  return jax.tree.map(lambda x: x, _abstract_variables(model, len(dataset.mean)))


@functools.lru_cache(maxsize=64)  # Plan, check and training ask for the same networks.
def _abstract_variables(model: nn.Module, channels: int) -> Variables:
  shape = (64, 64, channels)
  return jax.eval_shape(lambda: states.init_variables(model, keys.root_key(0), shape))


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where the weights come from that a network starts with.

  Attributes:
    path: file or directory of weights, a name on a hub, or empty: then all of them are drawn.
    arch: the backbone's name, to read foreign names with.
    scratch: the network's parts that are drawn in any case.
    dropped: parts of the weights' network that this one does not have.
  """

  path: str | Path = ''
  arch: str = ''
  scratch: tuple[str, ...] = ('classifier',)
  dropped: tuple[str, ...] = ()

  def fill(self, variables: Variables) -> Variables:
    """Returns `variables` with those of the weights' that are not drawn.

    Raises:
      UserError: the weights are of another network; both sides are named.
    """
    if not self.path:
      return variables
    return weights.load_pretrained(
      Path(self.path), variables, arch=self.arch, scratch=self.scratch, dropped=self.dropped
    )

  def check(self, model: nn.Module, dataset: info.DatasetInfo) -> None:
    """Raises UserError if the weights do not fit the network; draws nothing."""
    template = abstract_variables(model, dataset)
    self.fill(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template))


def origin(
  config: settings.TrainingConfig,
  inputs: Mapping[str, Path],
  scratch: tuple[str, ...] = ('classifier',),
) -> Origin:
  """The origin that a training's config names: pretrained weights, or a stage's backbone.

  Args:
    config: the training's settings.
    inputs: directories of the stages that it needs.
    scratch: the network's parts that are drawn in any case.
  """
  needs = start_needs(config)
  path = inputs[needs[0]] if needs else config.init
  # The classifier's head, unless this network has a part of that name.
  dropped = tuple({'classifier'} - set(scratch)) if needs else ()
  return Origin(path, config.model.backbone, scratch, dropped)


def start_needs(config: settings.TrainingConfig) -> tuple[str, ...]:
  """The stage whose backbone a network starts from, if any: a part of `Stage.needs`."""
  if not isinstance(config, settings.StageTrainingConfig):
    return ()
  start = config.start
  return () if start is settings.BackboneStart.PRETRAINED else (start.value,)


def first_variables(model: nn.Module, source: Origin, context: Context) -> Variables:
  """Draws the variables of step 0, and takes the pretrained ones from where they come from.

  Args:
    model: the network, which classifies the run's data set.
    source: where pretrained weights come from.
    context: the stage's; networks of two stages differ.

  Returns:
    float32 host arrays.
  """
  shape = (64, 64, len(context.train.info.mean))
  key = keys.stream(keys.root_key(context.seed), f'{context.name}/init')
  draw = compiler.jit(lambda key: states.init_variables(model, key, shape), context.runtime.mesh)
  return source.fill(jax.tree.map(np.asarray, draw(key)))


def check_start(
  model: nn.Module,
  config: settings.TrainingConfig,
  context: Context,
  scratch: tuple[str, ...] = ('classifier',),
) -> None:
  """Raises UserError if the weights to start from do not fit.

  Of those that this run has yet to make the network is compared: `Stage.looks` names the models.
  """
  missing = [name for name in start_needs(config) if name not in context.inputs]
  if not missing:
    origin(config, context.inputs, scratch).check(model, context.train.info)
  for name in missing:
    _check_same_backbone(context.name, config.model, name, getattr(context.config, name).model)


def _check_same_backbone(
  name: str, ours: settings.ModelConfig, other: str, theirs: settings.ModelConfig
) -> None:
  """Raises UserError unless the backbone of one stage's network can start from another's."""
  said = [f'{model.backbone} to {model.last_stage}' for model in (ours, theirs)]
  depths = [backbones.STAGES.index(model.last_stage) for model in (ours, theirs)]
  if ours.backbone != theirs.backbone or depths[0] > depths[1]:
    raise UserError(
      f'{name}.start is "{other}", but {name}.model is {said[0]} and {other}.model is {said[1]}: '
      f'give both the same network, as with --config.{name}.model.backbone={theirs.backbone} (and '
      f'its output_stride), or set --config.{name}.start=pretrained'
    )


def init_digest(init: str) -> str:
  """Digest of a weights file's bytes: a product depends on them, not on where they lie."""
  if not init:
    return ''
  return weights.origin(init)['sha256'][:16]


def describe(
  what: str,
  model: nn.Module,
  config: settings.TrainingConfig,
  dataset: info.DatasetInfo,
  epoch: int,
  *,
  part: str | None = None,
) -> str:
  """Says what a training is, for the plan: network, parameters, steps.

  Args:
    what: the network, in words.
    model: the network.
    config: the training's settings.
    dataset: what it sees.
    epoch: micro-steps to an epoch.
    part: the only part of the network that trains, if not all of it does.
  """
  params = abstract_variables(model, dataset)['params']
  count, epochs = trees.count(params[part] if part else params), config.epochs_of(epoch)
  return (
    f'{what}, {count:,} parameters{" train" if part else ""}; {epoch * epochs} steps at batch '
    f'{config.batch_size}, {epoch} in each of {epochs} epoch{"" if epochs == 1 else "s"}'
  )


def load(model: nn.Module, dataset: info.DatasetInfo, directory: Path) -> Variables:
  """Reads the weights that a stage left in `directory`, strictly."""
  return weights.load_into(directory, abstract_variables(model, dataset))
