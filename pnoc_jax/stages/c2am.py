"""Stage `c2am`: a network that tells foreground from background, whatever the classes."""

import dataclasses
import enum
import functools
from pathlib import Path
from typing import Any

from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import networks, settings, stage_training, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.stages import c2am_measure
from pnoc_jax.stages.common import stage
from pnoc_jax.types import Variables
from pnoc_jax.updates import c2am

SCRATCH = ('head',)


class Method(enum.Enum):
  """Whether priors hint at what is foreground."""

  C2AM = 'c2am'
  """No hints: which part is the foreground is found out after training."""
  C2AMH = 'c2amh'
  """Hints of this run's priors."""


@dataclasses.dataclass(slots=True)
class C2amConfig(settings.StageTrainingConfig):
  """C2AM or C2AM-H; the defaults are the paper's on VOC (COCO: lr 5e-4, threshold 0.3).

  Attributes:
    method: with hints or without.
    features: the backbone's stages whose features tell the parts; they must share one grid.
    alpha: how fast less similar pairs lose weight in the losses within a part.
    lambda_h: weight of the hint loss.
    threshold: delta_fg; where a prior reaches it, there is foreground.
    smoothing: label smoothing of the hinted cells.
    border: share of the map's side that counts as its border, for the polarity (4 of 32 cells).
    min_hint_mean: the least mean probability of hinted cells that a trained C2AM-H may have.
  """

  optim: settings.OptimConfig = dataclasses.field(
    default_factory=lambda: settings.OptimConfig(lr=1e-3, power=0.9, accumulate=2)
  )
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(
      min_size=515, max_size=515, crop=448, augment=transforms.Augment.NONE
    )
  )
  epochs: int = 10
  batch_size: int = 64
  eval_size: int = settings.field(448, product=False)
  method: Method = Method.C2AMH
  features: tuple[str, ...] = ('layer4', 'layer3')
  alpha: float = 0.25
  lambda_h: float = 1.0
  threshold: float = 0.4
  smoothing: float = 0.1
  border: float = 0.125
  min_hint_mean: float = settings.field(0.5, product=False)


def faults(config: C2amConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = []
  if not config.features:
    found.append('c2am.features is empty; name one or more stages of the backbone')
  if not 0 < config.threshold <= 1:
    found.append(f'c2am.threshold is {config.threshold}; it lies in (0, 1]')
  if not 0 < config.border <= 0.5:
    found.append(f'c2am.border is {config.border}; it lies in (0, 0.5]')
  return found


def build(config: C2amConfig) -> c2am_nn.C2AM:
  """Makes the network."""
  backbone = networks.make_backbone(config.model)
  return c2am_nn.C2AM(backbone=backbone, stages=tuple(config.features))


def stride(config: C2amConfig) -> int:
  """Pixels to a cell of the network's map."""
  return networks.stride(dataclasses.replace(config.model, last_stage=config.features[0]))


def load(
  config: C2amConfig, dataset: info.DatasetInfo, directory: Path
) -> tuple[c2am_nn.C2AM, Variables, bool]:
  """Reads what the stage left in `directory`: network, variables, whether they are inverted.

  Raises:
    UserError: the weights are missing or of another network.
  """
  model = build(config)
  variables = networks.load(model, dataset, directory)
  meta = weights.load_meta(directory)
  if not isinstance(meta.get('inverted'), bool):
    raise UserError(
      f'{directory / weights.FILE} does not say whether its map is inverted: it is no product of '
      'the stage c2am; run that again'
    )
  return model, variables, meta['inverted']


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, Any]:
  """Trains the network; leaves `<out>/weights.safetensors`, whose meta holds the polarity."""
  ours = config.c2am
  source = runtime.source(config.dataset, config.dataset.train_split)
  hints = make_hints(ours, inputs, source)
  model, facts = build(ours), {}

  def meta(variables: Variables) -> dict[str, Any]:
    facts.update(
      c2am_measure.polarity(model, variables, ours, source, hints, runtime, seed=config.seed)
    )
    return facts

  evaluate = None
  if ours.eval_every and source.has_masks:
    evaluate = c2am_measure.make_measure(model, source, ours, runtime, both=hints is None)
  stage_training.train(
    model,
    functools.partial(
      c2am.make_c2am_update,
      model,
      alpha=ours.alpha,
      w_hint=ours.lambda_h,
      threshold=ours.threshold,
      smoothing=ours.smoothing,
    ),
    scratch=SCRATCH,
    config=ours,
    source=source,
    inputs=inputs,
    out=out,
    runtime=runtime,
    seed=config.seed,
    name='c2am',
    prepare=c2am_measure.make_prepare(source.info),
    target=hints,
    meta=meta,
    evaluate=evaluate,
  )
  return facts


def make_hints(
  config: C2amConfig, inputs: dict[str, Path], source: info.Source
) -> joins.Maps | None:
  """The hints that C2AM-H reads of the priors in `inputs`; None for C2AM."""
  if config.method is Method.C2AM:
    return None
  return joins.prior_hints(source, inputs['priors'] / source.split)


def _needs(config) -> tuple[str, ...]:
  hints = ('priors',) if config.c2am.method is Method.C2AMH else ()
  return (*networks.start_needs(config.c2am), *hints)


def _describe(config, source: info.Source) -> str:
  ours = config.c2am
  count = trees.count(networks.abstract_variables(build(ours), source.info)['params'])
  length = trainer.horizon(ours, source)
  return (
    f'{ours.method.value}, {ours.model.backbone}, {count:,} parameters; {ours.epochs} epochs of '
    f'{length.epoch} = {length.total} steps at batch {ours.batch_size}'
  )


def _check(config, inputs: dict[str, Path], source, runtime: Runtime) -> None:
  ours = config.c2am
  model, hinted = build(ours), ours.method is Method.C2AMH
  networks.abstract_variables(model, source.info)  # Refuses features that do not fit.
  stage_training.check(
    model,
    scratch=SCRATCH,
    config=ours,
    source=source,
    inputs=inputs,
    runtime=runtime,
    name='c2am',
    paired=hinted,
  )
  if 'priors' in inputs and hinted:
    joins.check(make_hints(ours, inputs, source), source, pipeline.labelled(source))


STAGE = stage.Stage(
  name='c2am',
  needs=_needs,
  settings=lambda config: {
    'c2am': config.c2am,
    'c2am.init_digest': networks.init_digest(config.c2am.init),
  },
  run=run,
  describe=_describe,
  check=_check,
)
