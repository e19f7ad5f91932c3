"""Stage `c2am`: a network that tells foreground from background, whatever the classes."""

import dataclasses
import enum
import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import measure, memory, networks, programs, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.losses import c2am as losses
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages.common import meters, stage
from pnoc_jax.stages.common.polarity import polarity
from pnoc_jax.types import Batch, Variables

SCRATCH = ('head',)


class Hints(enum.Enum):
  """Whether priors hint at what is foreground.

  Attributes:
    C2AM: they do not; which part is the foreground is found out after training.
    C2AMH: this run's priors do.
  """

  C2AM = 'c2am'
  C2AMH = 'c2amh'


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
  method: Hints = Hints.C2AMH
  features: tuple[str, ...] = ('layer4', 'layer3')
  alpha: float = 0.25
  lambda_h: float = 1.0
  threshold: float = 0.4
  smoothing: float = 0.1
  border: float = 0.125
  min_hint_mean: float = settings.field(0.5, product=False)


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


def run(context: Context) -> dict[str, Any]:
  """Trains the network; leaves `<out>/weights.safetensors`, whose meta holds the polarity."""
  ours, source = context.config.c2am, context.train
  model, facts = build(ours), {}
  examples = _examples(context)
  origin = networks.origin(ours, context.inputs, SCRATCH)
  variables = networks.first_variables(model, origin, context)
  program = _make_program(model, variables, examples, context)
  prepare = make_prepare(networks.colours(ours.model, source.info))

  def meta(variables: Variables) -> dict[str, Any]:
    facts.update(polarity(model, variables, ours, examples, prepare, context))
    return facts

  measured, seen = None, measure.measured_source(ours, context)
  if seen is not None:
    meter = meters.C2amMeter(
      model, networks.colours(ours.model, seen.info), both=examples.target is None
    )
    measured = measure.make_measure(meter, seen, ours, context.runtime)
  trainer.train(program, examples, ours, context, meta=meta, measure=measured)
  return facts


def _make_program(
  model: c2am_nn.C2AM, variables: Variables, examples: pipeline.Examples, context: Context
) -> programs.Program:
  ours = context.config.c2am
  terms = losses.Terms(ours.alpha, ours.lambda_h, ours.threshold, ours.smoothing)
  return programs.make_program(
    functools.partial(losses.network_loss, model=model, terms=terms),
    variables,
    ours,
    examples,
    context,
    groups=programs.field_groups(ours, SCRATCH),
    prepare=make_prepare(networks.colours(ours.model, examples.source.info)),
  )


def _programs(context: Context) -> list[compiler.Call]:
  model, examples = build(context.config.c2am), _examples(context)
  variables = networks.abstract_variables(model, examples.source.info)
  return _make_program(model, variables, examples, context).calls()


def _examples(context: Context) -> pipeline.Examples:
  return pipeline.Examples(context.train, target=_hints(context, context.train))


def make_prepare(dataset: info.DatasetInfo) -> programs.Prepare:
  """Makes the first operation on the device: normalised images, and hints f32[B, H, W, 1]."""
  normalise = programs.make_prepare(dataset)

  def prepare(batch: Batch) -> Batch:
    batch = normalise(batch)
    if 'target' in batch:
      batch['hint'] = batch.pop('target')[..., None].astype(jnp.float32) / 255
    return batch

  return prepare


def _hints(context: Context, source: info.Source) -> joins.Maps | None:
  """The hints that C2AM-H reads of the priors; None for C2AM."""
  if context.config.c2am.method is Hints.C2AM:
    return None
  return joins.prior_hints(source, context.inputs['priors'] / source.split)


def _needs(config: stage.PipelineConfig) -> tuple[str, ...]:
  hints = ('priors',) if config.c2am.method is Hints.C2AMH else ()
  return (*networks.start_needs(config.c2am), *hints)


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.c2am
  epoch = pipeline.Examples(source).steps_per_epoch(ours.batch_size)
  what = f'{ours.method.value}, {ours.model.backbone}'
  return networks.describe(what, build(ours), ours, source.info, epoch)


def _check(context: Context) -> None:
  ours, source = context.config.c2am, context.train
  model, hinted = build(ours), ours.method is Hints.C2AMH
  networks.abstract_variables(model, source.info)  # Refuses features that do not fit.
  trainer.check(ours, context, paired=hinted)
  networks.check_start(model, ours, context, SCRATCH)
  hints = _hints(context, source) if 'priors' in context.inputs else None
  if hints is not None:
    joins.check(hints, source, pipeline.labelled(source))


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.c2am
  found = settings.training_faults('c2am', ours)
  if not ours.features:
    found.append('c2am.features is empty; name one or more stages of the backbone')
  if not 0 < ours.threshold <= 1:
    found.append(f'c2am.threshold is {ours.threshold}; it lies in (0, 1]')
  if not 0 < ours.border <= 0.5:
    found.append(f'c2am.border is {ours.border}; it lies in (0, 0.5]')
  return found


STAGE = stage.Stage(
  name='c2am',
  config=C2amConfig,
  training_title='C2AM',
  run=run,
  describe=_describe,
  needs=_needs,
  looks=networks.LOOKS,
  check=_check,
  faults=_faults,
  memory=lambda config, dataset, load: memory.training_memory(
    build(config.c2am), config.c2am, dataset, load
  ),
  programs=_programs,
)
