"""Stage `generator`: the network whose maps become priors, by one of the CAM methods."""

import dataclasses
import enum
import functools
from pathlib import Path

import jax

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline, sampling
from pnoc_jax.engine import measure, memory, networks, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError, did_you_mean
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.losses import puzzle
from pnoc_jax.nn import backbones, classifier
from pnoc_jax.ops import erase, label_split
from pnoc_jax.optim import schedules
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages.common import cam_program, judge_history, map_history, meters, stage
from pnoc_jax.updates import pnoc


class NetworkStart(enum.Enum):
  """Whose weights the generator starts from.

  Attributes:
    PRETRAINED: those that `init` names for the backbone, or random ones.
    CLASSIFIER: this run's classifier, its head included.
  """

  PRETRAINED = 'pretrained'
  CLASSIFIER = 'classifier'


@dataclasses.dataclass(slots=True)
class RampConfig:
  """A coefficient that goes linearly from `start` to `end` over the first `portion` of the run.

  Attributes:
    start: its first value.
    end: its last value.
    portion: which part of the run the way takes.
  """

  start: float = 0.0
  end: float = 1.0
  portion: float = 1.0

  def over(self, total: int) -> schedules.Schedule:
    """The ramp of a run of so many steps."""
    return schedules.ramp(self.start, self.end, total, self.portion)


@dataclasses.dataclass(slots=True)
class GeneratorConfig(settings.CamTrainingConfig):
  """The CAM generator.

  Attributes:
    method: the CAM method, one of `updates.pnoc.METHODS`.
    start: whose weights it starts from.
    lambda_re: weight of the reconstruction loss (0 to 4 over the first half).
    lambda_cse: weight of the class-specific erasing loss (.3 to 1).
    lambda_noc: weight of the noc's loss (0 to 1). Adaptive optimisers cancel a factor on the loss,
      so with them it scales the noc's learning rate.
    lambda_conf: weight of the confidence loss of the tiles (0).
    lambda_area: weight of the area of the maps (0); not of the paper.
    soft_mask: over what the maximum that normalises the soft mask is taken; the hard mask's is each
      image's. With the batch's, images whose maps are weak are erased weakly.
    threshold: delta_noc of the hard mask.
    strategy: how the erased class is picked.
    level: what the reconstruction loss compares.
    distance: how a difference counts there.
    selection: which classes count there.
    noc_every: generator updates to an update of the noc (k_noc).
    noc_lr: factor on the noc's learning rate.
    noc_views: what the noc learns from; `contrast` is not of the paper.
    leak_noc_grad: as in the reference, gradients of the generator's loss reach the noc.
  """

  method: str = 'pnoc'
  start: NetworkStart = NetworkStart.PRETRAINED
  # The paper: RandAugment for the ordinary classifier, colour jitter for the generators.
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(augment=transforms.Augment.COLORJITTER)
  )
  batch_size: int = 16
  smoothing: float = 0.1
  lambda_re: RampConfig = dataclasses.field(default_factory=lambda: RampConfig(0.0, 4.0, 0.5))
  lambda_cse: RampConfig = dataclasses.field(default_factory=lambda: RampConfig(0.3, 1.0, 1.0))
  lambda_noc: RampConfig = dataclasses.field(default_factory=lambda: RampConfig(0.0, 1.0, 1.0))
  lambda_conf: float = 0.0
  lambda_area: float = 0.0
  soft_mask: erase.Over = erase.Over.BATCH
  threshold: float = 0.2
  strategy: label_split.Strategy = label_split.Strategy.RANDOM
  level: puzzle.Level = puzzle.Level.FEATURE
  distance: puzzle.Distance = puzzle.Distance.L1
  selection: puzzle.Selection = puzzle.Selection.MASK
  noc_every: int = 1
  noc_lr: float = 1.0
  noc_views: losses.Views = losses.Views.ERASED
  leak_noc_grad: bool = False

  @property
  def parts(self) -> pnoc.Method:
    """Which parts the method has."""
    return pnoc.METHODS[self.method]

  def terms(self, source: info.Source) -> losses.Terms:
    """How the loss is computed; classes are weighted by the images of `source` that train."""
    weight = None
    if self.class_weight is sampling.ClassWeight.BALANCED:
      weight = sampling.class_weights(source.labels[pipeline.labelled(source)])
    return losses.Terms(
      smoothing=self.smoothing,
      class_weight=weight,
      noc_views=self.noc_views,
      reconstruct=functools.partial(
        puzzle.reconstruction_loss,
        level=self.level,
        distance=self.distance,
        selection=self.selection,
      ),
      lambda_conf=self.lambda_conf,
      lambda_area=self.lambda_area,
      soft_mask=self.soft_mask,
      strategy=self.strategy,
    )


def run(context: Context) -> None:
  """Trains the generator; leaves `<out>/weights.safetensors`, `metrics.jsonl` and checkpoints."""
  ours, judge, start = context.config.generator, None, None
  if ours.parts.judge:
    judge = load_judge(context)
  if ours.start is NetworkStart.CLASSIFIER:
    start = context.inputs['classifier']
  train(ours, context, judge=judge, start=start)


def load_judge(context: Context) -> cam_program.Judge:
  """Reads this run's classifier as a judge."""
  config, dataset = context.config.classifier.model, context.train.info
  model = cam_program.judge_model(config, dataset.num_classes)
  return cam_program.Judge(
    model, networks.load(model, dataset, context.inputs['classifier']), config
  )


def train(
  config: GeneratorConfig,
  context: Context,
  *,
  judge: cam_program.Judge | None = None,
  start: Path | None = None,
) -> None:
  """Trains a network whose maps are wanted, by any method.

  Args:
    config: the training's settings.
    context: of the stage that trains.
    judge: who judges erased images; given exactly when the method has one.
    start: directory of a stage whose whole network, head included, the training goes on from.
  """
  source = context.train
  model = networks.build(config.model, source.info.num_classes)
  if start is None:
    variables = networks.first_variables(model, networks.origin(config, {}), context)
  else:
    variables = networks.load(model, source.info, start)
  examples = _examples(config, source)
  measured = _make_measure(config, model, judge, examples, context)
  program = cam_program.make_program(config, model, variables, judge, examples, context)
  facts = networks.facts(config, source.info)
  trainer.train(program, examples, config, context, meta=lambda _: facts, measure=measured)


def _make_measure(
  config: GeneratorConfig,
  model: classifier.Classifier,
  judge: cam_program.Judge | None,
  examples: pipeline.Examples,
  context: Context,
) -> trainer.Measure | None:
  """Keeps a few images' maps and what a judge sees; where there are masks, measures all maps."""
  if not config.eval_every:
    return None
  source = context.source(config.eval_split) if config.eval_split else context.train
  dataset = networks.colours(config.model, source.info)
  meter = meters.CamMeter(model, dataset)
  forward = measure.make_forward(meter, context.runtime)
  show = judge_history.make_show(judge.model, dataset, config, context.runtime) if judge else None
  keep = map_history.make_keep(forward, show, source, config, examples, context)
  scored = None
  if measure.measured_source(config, context) is not None:
    scored = measure.make_measure(meter, source, config, context.runtime, forward=forward)

  def measured(step: int, found: cam_program.Measured) -> dict[str, float] | None:
    judged = keep(step, found)
    scores = scored(step, found.generator) if scored else {}
    return {**scores, **judged} or None

  return measured


def _examples(config: GeneratorConfig, source: info.Source) -> pipeline.Examples:
  return pipeline.Examples(source, mix=config.mix, draw=config.draw)


def calls(
  config: GeneratorConfig, context: Context, *, judge: settings.ModelConfig | None = None
) -> list[compiler.Call]:
  """What a training runs on devices; `judge` is the network that judges erased images, if any."""
  source, judged = context.train, None
  dataset = source.info
  model = networks.build(config.model, dataset.num_classes)
  if judge is not None:
    theirs = cam_program.judge_model(judge, dataset.num_classes)
    judged = cam_program.Judge(theirs, networks.abstract_variables(theirs, dataset), judge)
  program = cam_program.make_program(
    config,
    model,
    networks.abstract_variables(model, dataset),
    judged,
    _examples(config, source),
    context,
  )
  return program.calls()


def describe(config: GeneratorConfig, source: info.Source, *, start: str = '') -> str:
  """Says what a training is, for the plan; `start` names the stage that it goes on from."""
  origin = f'the {start}' if start else config.init
  epoch = pipeline.Examples(source).steps_per_epoch(config.batch_size)
  return networks.describe(
    f'{config.model.backbone}{f" from {origin}" if origin else ""}',
    networks.build(config.model, source.info.num_classes),
    config,
    source.info,
    epoch,
  )


def check_training(config: GeneratorConfig, context: Context) -> None:
  """Raises UserError if the weights to start from or the batch size do not fit."""
  trainer.check(config, context)
  model = networks.build(config.model, context.train.info.num_classes)
  if config.start is NetworkStart.PRETRAINED:
    networks.origin(config, {}).check(model, context.train.info)


def training_memory(
  config: GeneratorConfig,
  judge: settings.ModelConfig | None,
  dataset: info.DatasetInfo,
  load: memory.Load,
) -> memory.Memory:
  """What the training holds; `judge` is the network that judges erased images, if any."""
  judges, leak = (), 0
  if judge is not None:
    theirs = cam_program.judge_model(judge, dataset.num_classes)
    judges = (memory.Judge(theirs, config.parts.noc, config.noc_views.count),)
    if config.leak_noc_grad:  # Summed between updates of the noc, and part of checkpoints.
      leak = memory.tree_bytes(networks.abstract_variables(theirs, dataset)['params'])
  found = memory.training_memory(
    networks.build(config.model, dataset.num_classes),
    config,
    dataset,
    load,
    passes=2 if config.parts.tiles else 1,  # The tiles of an image have as many pixels.
    judges=judges,
  )
  return dataclasses.replace(found, optimizer=found.optimizer + leak)


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.generator
  start = 'classifier' if ours.start is NetworkStart.CLASSIFIER else ''
  return f'{ours.method}, {describe(ours, source, start=start)}'


def _memory(
  config: stage.PipelineConfig, dataset: info.DatasetInfo, load: memory.Load
) -> memory.Memory:
  return training_memory(config.generator, _judge(config), dataset, load)


def _judge(config: stage.PipelineConfig) -> settings.ModelConfig | None:
  return config.classifier.model if config.generator.parts.judge else None


def _needs(config: stage.PipelineConfig) -> tuple[str, ...]:
  ours = config.generator
  starts_there = ours.start is NetworkStart.CLASSIFIER
  return ('classifier',) if starts_there or ours.parts.judge else ()


def _reads(config: stage.PipelineConfig) -> tuple[str, ...]:
  judged = config.generator.parts.judge
  return ('generator', *(('classifier.model',) if judged else ()))


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.generator
  faults = settings.training_faults('generator', ours)
  if ours.method not in pnoc.METHODS:
    known, hint = ', '.join(pnoc.METHODS), did_you_mean(ours.method, pnoc.METHODS)
    return [*faults, f'generator.method is {ours.method!r}; known: {known}{hint}']
  unit = 2 * ours.model.output_stride
  if ours.parts.tiles and ours.transform.crop % unit:
    lower = ours.transform.crop // unit * unit
    faults.append(
      f'generator.transform.crop is {ours.transform.crop}: puzzle tiles need a multiple of '
      f'2 x output stride = {unit}, e.g. {lower or unit} or {lower + unit}'
    )
  judge = config.classifier.model.backbone
  known = {judge, ours.model.backbone} <= set(backbones.names())
  if ours.parts.judge and known and len({_colours(x) for x in (judge, ours.model.backbone)}) > 1:
    faults.append(
      f'generator.model.backbone is {ours.model.backbone!r} and classifier.model.backbone, the '
      f"judge's, is {judge!r}: they want images with their colours scaled in different ways, but "
      'see the same images; take two of one family'
    )
  if not 0 < ours.threshold < 1:
    faults.append(f'generator.threshold is {ours.threshold}; it lies in (0, 1)')
  if ours.noc_every < 1:
    faults.append('generator.noc_every must be at least 1')
  if ours.leak_noc_grad and not ours.parts.noc:
    faults.append('generator.leak_noc_grad is of methods whose noc trains, such as pnoc')
  if ours.noc_views is not losses.Views.ERASED and not ours.parts.noc:
    faults.append('generator.noc_views is of methods whose noc trains, such as pnoc')
  if ours.noc_views is losses.Views.CONTRAST and ours.batch_size < 2:
    # An image's own cut would be told as gone and as there.
    faults.append(
      f'generator.batch_size is {ours.batch_size}: generator.noc_views=contrast cuts out what the '
      'map of another image covers, so a batch has at least 2 images'
    )
  if ours.lambda_conf and not ours.parts.tiles:
    faults.append('generator.lambda_conf is of methods with tiles, such as puzzle')
  for name in ('lambda_area', 'lambda_conf'):
    if getattr(ours, name) < 0:
      faults.append(f'generator.{name} is {getattr(ours, name)}; it is at least 0')
  if ours.start is NetworkStart.CLASSIFIER and ours.init:
    faults.append(
      f'generator.init is {ours.init!r}, but generator.start is "classifier": those weights would '
      'not be used. Leave init out, or set --config.generator.start=pretrained'
    )
  return faults


def _colours(backbone: str) -> tuple:
  row = backbones.info(backbone)
  return row.mean, row.std


def _check(context: Context) -> None:
  ours, dataset = context.config.generator, context.train.info
  if ours.start is NetworkStart.CLASSIFIER:
    _check_same_network(context.config.classifier.model, ours.model, dataset)
  check_training(ours, context)
  if 'classifier' in context.inputs:
    load_judge(context)


def _check_same_network(
  theirs: settings.ModelConfig, ours: settings.ModelConfig, dataset: info.DatasetInfo
) -> None:
  shapes = [
    jax.tree.map(
      lambda x: x.shape,
      networks.abstract_variables(networks.build(model, dataset.num_classes), dataset),
    )
    for model in (theirs, ours)
  ]
  if shapes[0] != shapes[1]:
    names = [f'{model.backbone} to {model.last_stage}' for model in (theirs, ours)]
    raise UserError(
      f'generator.start is "classifier", but classifier.model is {names[0]} and generator.model is '
      f'{names[1]}: give both the same network, or set --config.generator.start=pretrained'
    )


STAGE = stage.Stage(
  name='generator',
  config=GeneratorConfig,
  training_title='the generator',
  run=run,
  describe=_describe,
  needs=_needs,
  reads=_reads,
  looks=('classifier.model',),
  check=_check,
  faults=_faults,
  memory=_memory,
  programs=lambda context: calls(context.config.generator, context, judge=_judge(context.config)),
)
