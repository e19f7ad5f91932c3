"""Stage `classifier`: the ordinary classifier, from image labels."""

import dataclasses

from pnoc_jax.data import info
from pnoc_jax.engine import memory, settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.stages import generator
from pnoc_jax.stages.common import stage


@dataclasses.dataclass(slots=True)
class ClassifierConfig(settings.CamTrainingConfig):
  """The ordinary classifier: the fixed judge of P-OC, and the first weights of P-NOC's noc."""


def run(context: Context) -> None:
  """Trains the classifier; leaves `<out>/weights.safetensors`, `metrics.jsonl` and checkpoints."""
  generator.train(_as_generator(context.config.classifier), context)


def _as_generator(config: ClassifierConfig) -> generator.GeneratorConfig:
  """The same training as that of a generator without tiles and erasing."""
  fields = dataclasses.fields(settings.CamTrainingConfig)
  same = {field.name: getattr(config, field.name) for field in fields}
  return generator.GeneratorConfig(method='vanilla', **same)


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  return generator.describe(_as_generator(config.classifier), source)


def _memory(
  config: stage.PipelineConfig, dataset: info.DatasetInfo, load: memory.Load
) -> memory.Memory:
  return generator.training_memory(_as_generator(config.classifier), None, dataset, load)


STAGE = stage.Stage(
  name='classifier',
  config=ClassifierConfig,
  training_title='the classifier',
  run=run,
  describe=_describe,
  check=lambda context: generator.check_training(_as_generator(context.config.classifier), context),
  faults=lambda config: settings.training_faults('classifier', config.classifier),
  memory=_memory,
  programs=lambda context: generator.calls(_as_generator(context.config.classifier), context),
)
