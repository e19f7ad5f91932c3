"""The configuration of a whole run: what it is about, how it runs, and a field for each stage."""

import dataclasses
import functools
import math
import typing
from typing import Any

from pnoc_jax.data import info, sources
from pnoc_jax.engine.runtime import RuntimeConfig
from pnoc_jax.errors import UserError
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
from pnoc_jax.stages.common import stage


@dataclasses.dataclass(slots=True)
class InputsConfig:
  """Directories of other runs' stages to use in place of this run's own: a text field a stage."""


@functools.cache
def _inputs(config: type) -> type[InputsConfig]:
  """The class of the `inputs` of a class of configs."""
  # The last stage is left out: it gathers what is there, and no other one reads its product.
  fields = [(entry.name, str, '') for entry in stage.stages(config)[:-1]]
  module = {'__module__': __name__, '__doc__': InputsConfig.__doc__}
  return dataclasses.make_dataclass(
    'InputsConfig', fields, bases=(InputsConfig,), namespace=module, slots=True
  )


@dataclasses.dataclass(slots=True)
class PipelineConfig:
  """A run. Each field made by `stage.field` makes a stage part of the pipeline, in this order.

  Attributes:
    name: the run's name, and by default the name of its directory below `runs/`.
    seed: of everything random in it.
    only: stages to run, separated by commas; empty for all.
    until: last stage to run; empty for all.
    rerun: stages to run again though they are done, separated by commas. Their directories are
      kept under another name.
    inputs: products of other runs to use; its fields are those of the stages.
    dataset: the images.
    runtime: devices, logging and saving.
  """

  name: str = 'pnoc'
  seed: int = 0
  only: str = ''
  until: str = ''
  rerun: str = ''
  inputs: InputsConfig = dataclasses.field(default_factory=InputsConfig)
  dataset: info.DatasetConfig = dataclasses.field(default_factory=info.DatasetConfig)
  runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
  classifier: classifier_stage.ClassifierConfig = stage.field(classifier_stage.STAGE)
  generator: generator_stage.GeneratorConfig = stage.field(generator_stage.STAGE)
  priors: priors_stage.PriorsConfig = stage.field(priors_stage.STAGE)
  c2am: c2am_stage.C2amConfig = stage.field(c2am_stage.STAGE)
  saliency_priors: saliency_priors_stage.SaliencyPriorsConfig = stage.field(
    saliency_priors_stage.STAGE
  )
  saliency: saliency_stage.SaliencyConfig = stage.field(saliency_stage.STAGE)
  affinity_labels: affinity_labels_stage.AffinityLabelsConfig = stage.field(
    affinity_labels_stage.STAGE
  )
  affinity: affinity_stage.AffinityConfig = stage.field(affinity_stage.STAGE)
  random_walk: random_walk_stage.RandomWalkConfig = stage.field(random_walk_stage.STAGE)
  pseudo_masks: pseudo_masks_stage.PseudoMasksConfig = stage.field(pseudo_masks_stage.STAGE)
  segmentation: segmentation_stage.SegmentationConfig = stage.field(segmentation_stage.STAGE)
  predictions: predictions_stage.PredictionsConfig = stage.field(predictions_stage.STAGE)
  evaluation: evaluation_stage.EvaluationConfig = stage.field(evaluation_stage.STAGE)
  report: report_stage.ReportConfig = stage.field(report_stage.STAGE)

  def __post_init__(self):
    if type(self.inputs) is InputsConfig:
      self.inputs = _inputs(type(self))()


SCORED = evaluation_stage.scored(PipelineConfig)
"""The stages whose products can be scored, in order."""
LARGEST = 2**31 - 1
"""Of whole numbers: steps, seeds and sizes are 32 bits wide on devices."""


def validate(config: PipelineConfig) -> None:
  """Checks what can be checked without data or devices.

  Raises:
    UserError: naming every field that is wrong, with what to do.
  """
  if wrong := value_faults(config):  # What the rest takes for granted.
    raise _cannot_run(wrong)
  faults = sources.faults(config.dataset)
  if config.seed < 0:
    faults.append(f'seed is {config.seed}; it is at least 0')
  faults += [fault for entry in stage.stages(config) for fault in entry.faults(config)]
  for field, least in (('log_every', 1), ('save_every', 1), ('keep', 1), ('workers', 0)):
    value = getattr(config.runtime, field)
    if value is not None and value < least:
      faults.append(f'runtime.{field} is {value}; it is at least {least}')
  if faults:
    raise _cannot_run(faults)


def _cannot_run(faults: list[str]) -> UserError:
  return UserError('the config cannot run:\n' + '\n'.join(f'  {fault}' for fault in faults))


def value_faults(config: Any, name: str = '') -> list[str]:
  """Numbers that are not finite or too large, and tuples of other values than theirs, in words.

  Args:
    config: a dataclass; those that it holds are looked at, too.
    name: its field in the run's config; empty for the whole.
  """
  found, hints = [], typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    path, value = f'{name}.{field.name}' if name else field.name, getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      found += value_faults(value, path)
    elif isinstance(value, tuple):
      found += _of_tuple(path, value, typing.get_args(hints[field.name])[:1])
    elif fault := _of_number(value):
      found.append(f'{path} is {value}; {fault}')
  return found


def _of_tuple(path: str, values: tuple[Any, ...], kinds: tuple[Any, ...]) -> list[str]:
  if kinds and kinds[0] in (int, float):
    wanted = int if kinds[0] is int else (int, float)
    if not all(isinstance(x, wanted) and not isinstance(x, bool) for x in values):
      return [f'{path} is {values}; it holds numbers, separated by commas']
  return [f'{path} is {values}; {x}' for x in dict.fromkeys(map(_of_number, values)) if x]


def _of_number(value: Any) -> str:
  if isinstance(value, float) and not math.isfinite(value):
    return 'it is a finite number'
  if isinstance(value, int) and abs(value) > LARGEST:
    return f'a whole number is at most {LARGEST}'
  return ''
