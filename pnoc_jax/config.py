"""The configuration of a whole run, and the checks that one field alone cannot make."""

import dataclasses

from pnoc_jax.data import info
from pnoc_jax.data.augment import mixing
from pnoc_jax.engine.runtime import RuntimeConfig
from pnoc_jax.errors import UserError
from pnoc_jax.nn import backbones
from pnoc_jax.optim import optimizer
from pnoc_jax.stages import affinity as affinity_stage
from pnoc_jax.stages import affinity_labels as affinity_labels_stage
from pnoc_jax.stages import c2am as c2am_stage
from pnoc_jax.stages import classifier as classifier_stage
from pnoc_jax.stages import evaluation as evaluation_stage
from pnoc_jax.stages import generator as generator_stage
from pnoc_jax.stages import predictions as predictions_stage
from pnoc_jax.stages import priors as priors_stage
from pnoc_jax.stages import pseudo_masks as pseudo_masks_stage
from pnoc_jax.stages import random_walk as random_walk_stage
from pnoc_jax.stages import report as report_stage
from pnoc_jax.stages import saliency as saliency_stage
from pnoc_jax.stages import saliency_priors as saliency_priors_stage
from pnoc_jax.stages import segmentation as segmentation_stage


@dataclasses.dataclass(slots=True)
class InputsConfig:
  """Directories of other runs' stages to use in place of this run's own."""

  classifier: str = ''
  generator: str = ''
  priors: str = ''
  c2am: str = ''
  saliency_priors: str = ''
  saliency: str = ''
  affinity_labels: str = ''
  affinity: str = ''
  random_walk: str = ''
  pseudo_masks: str = ''
  segmentation: str = ''
  predictions: str = ''
  evaluation: str = ''


@dataclasses.dataclass(slots=True)
class Variant:
  """One run of a sweep.

  Attributes:
    group: what the table calls it; runs of one group differ in their seed alone.
    name: its directory below the sweep's.
    overrides: dotted config fields and their values; `{workdir}` stands for the sweep's directory.
  """

  group: str
  name: str
  overrides: dict


@dataclasses.dataclass(slots=True)
class PipelineConfig:
  """A run.

  Attributes:
    name: the run's name, and by default the name of its directory below `runs/`.
    seed: of everything random in it.
    only: stages to run, separated by commas; empty for all.
    until: last stage to run; empty for all.
    rerun: stages to run again though they are done, separated by commas. Their directories are
      kept under another name.
    inputs: products of other runs to use.
    dataset: the images.
    runtime: devices, logging and saving.
    sweep: if not empty, the run is these runs and a table of their results.
  """

  name: str = 'pnoc'
  seed: int = 0
  only: str = ''
  until: str = ''
  rerun: str = ''
  inputs: InputsConfig = dataclasses.field(default_factory=InputsConfig)
  dataset: info.DatasetConfig = dataclasses.field(default_factory=info.DatasetConfig)
  runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
  classifier: classifier_stage.ClassifierConfig = dataclasses.field(
    default_factory=classifier_stage.ClassifierConfig
  )
  generator: generator_stage.GeneratorConfig = dataclasses.field(
    default_factory=generator_stage.GeneratorConfig
  )
  priors: priors_stage.PriorsConfig = dataclasses.field(default_factory=priors_stage.PriorsConfig)
  c2am: c2am_stage.C2amConfig = dataclasses.field(default_factory=c2am_stage.C2amConfig)
  saliency_priors: saliency_priors_stage.SaliencyPriorsConfig = dataclasses.field(
    default_factory=saliency_priors_stage.SaliencyPriorsConfig
  )
  saliency: saliency_stage.SaliencyConfig = dataclasses.field(
    default_factory=saliency_stage.SaliencyConfig
  )
  affinity_labels: affinity_labels_stage.AffinityLabelsConfig = dataclasses.field(
    default_factory=affinity_labels_stage.AffinityLabelsConfig
  )
  affinity: affinity_stage.AffinityConfig = dataclasses.field(
    default_factory=affinity_stage.AffinityConfig
  )
  random_walk: random_walk_stage.RandomWalkConfig = dataclasses.field(
    default_factory=random_walk_stage.RandomWalkConfig
  )
  pseudo_masks: pseudo_masks_stage.PseudoMasksConfig = dataclasses.field(
    default_factory=pseudo_masks_stage.PseudoMasksConfig
  )
  segmentation: segmentation_stage.SegmentationConfig = dataclasses.field(
    default_factory=segmentation_stage.SegmentationConfig
  )
  predictions: predictions_stage.PredictionsConfig = dataclasses.field(
    default_factory=predictions_stage.PredictionsConfig
  )
  evaluation: evaluation_stage.EvaluationConfig = dataclasses.field(
    default_factory=evaluation_stage.EvaluationConfig
  )
  report: report_stage.ReportConfig = dataclasses.field(default_factory=report_stage.ReportConfig)
  sweep: tuple[Variant, ...] = ()


def validate(config: PipelineConfig) -> None:
  """Checks what can be checked without data or devices.

  Raises:
    UserError: naming every field that is wrong, with what to do.
  """
  faults = []
  for name in ('classifier', 'generator', 'segmentation'):
    faults += _training_faults(name, getattr(config, name))
  faults += _generator_faults(config.generator)
  faults += priors_stage.faults(config.priors)
  faults += _training_faults('c2am', config.c2am)
  faults += c2am_stage.faults(config.c2am)
  faults += saliency_priors_stage.faults(config.saliency_priors)
  faults += _training_faults('saliency', config.saliency)
  faults += saliency_stage.faults(config.saliency)
  faults += affinity_labels_stage.faults(config.affinity_labels)
  faults += _training_faults('affinity', config.affinity)
  faults += affinity_stage.faults(config.affinity)
  faults += random_walk_stage.faults(config.random_walk)
  faults += pseudo_masks_stage.faults(config.pseudo_masks)
  faults += segmentation_stage.faults(config.segmentation)
  faults += predictions_stage.faults(config.predictions)
  faults += evaluation_stage.faults(config.evaluation)
  faults += _split_faults(config)
  for field, least in (('log_every', 1), ('save_every', 1), ('keep', 1), ('workers', 0)):
    if getattr(config.runtime, field) < least:
      faults.append(f'runtime.{field} is {getattr(config.runtime, field)}; it is at least {least}')
  if faults:
    raise UserError('the config cannot run:\n' + '\n'.join(f'  {fault}' for fault in faults))


def _training_faults(name: str, config) -> list[str]:
  faults = []
  model, transform = config.model, config.transform
  if model.backbone not in backbones.names():
    faults.append(
      f'{name}.model.backbone is {model.backbone!r}; known: {", ".join(backbones.names())}'
    )
  elif name != 'saliency' and backbones.info(model.backbone).mean is not None:
    faults.append(
      f"{name}.model.backbone is {model.backbone!r}, PoolNet's: its colours and grid are known to "
      'the stage saliency alone; name resnet50 here'
    )
  if model.output_stride not in (8, 16, 32):
    faults.append(f'{name}.model.output_stride is {model.output_stride}; it is 8, 16 or 32')
  if config.epochs < 1 or config.batch_size < 1:
    faults.append(f'{name}.epochs and {name}.batch_size must be at least 1')
  if not 0 <= getattr(config, 'smoothing', 0.0) < 1:
    faults.append(f'{name}.smoothing is {config.smoothing}; it lies in [0, 1)')
  if hasattr(config, 'mix'):
    faults += [f'{name}.mix.{fault}' for fault in mixing.faults(config.mix)]
  if transform.min_size > transform.max_size:
    faults.append(
      f'{name}.transform.min_size {transform.min_size} is above max_size {transform.max_size}'
    )
  if (
    config.optim.rule is optimizer.Rule.SGD and config.optim.nesterov and not config.optim.momentum
  ):
    faults.append(f'{name}.optim.nesterov needs a momentum; {name}.optim.momentum is 0')
  if config.optim.accumulate < 1:
    faults.append(f'{name}.optim.accumulate must be at least 1')
  if config.optim.ema is not None and not 0 < config.optim.ema < 1:
    faults.append(f'{name}.optim.ema is {config.optim.ema}; it lies in (0, 1), or is None')
  return faults


def _generator_faults(config: generator_stage.GeneratorConfig) -> list[str]:
  faults = []
  tiled = config.method.uses_tiles
  unit = 2 * config.model.output_stride
  if tiled and config.transform.crop % unit:
    lower = config.transform.crop // unit * unit
    faults.append(
      f'generator.transform.crop is {config.transform.crop}: puzzle tiles need a multiple of '
      f'2 x output stride = {unit}, e.g. {lower or unit} or {lower + unit}'
    )
  if not 0 < config.threshold < 1:
    faults.append(f'generator.threshold is {config.threshold}; it lies in (0, 1)')
  if config.noc_every < 1:
    faults.append('generator.noc_every must be at least 1')
  if config.leak_noc_grad and config.method is not generator_stage.Method.PNOC:
    faults.append('generator.leak_noc_grad is of the method pnoc alone')
  return faults


def _split_faults(config: PipelineConfig) -> list[str]:
  """Splits to score of which nothing is made: products would be missed after days of work."""
  faults, made = [], (*config.priors.splits, *config.predictions.splits)
  for field, known in (('splits', made), ('crf_splits', config.priors.splits)):
    unknown = [split for split in getattr(config.evaluation, field) if split not in known]
    if unknown:
      faults.append(
        f'evaluation.{field} names {", ".join(unknown)}; products are made of '
        f'{", ".join(dict.fromkeys(known))}'
      )
  return faults
