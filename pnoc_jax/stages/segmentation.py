"""Stage `segmentation`: DeepLabV3+ learns from pseudo masks, or from masks for comparison."""

import dataclasses
import enum
import functools

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import measure, memory, networks, programs, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.losses import segmentation as losses
from pnoc_jax.nn import deeplab
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import hosts
from pnoc_jax.stages.common import meters, stage
from pnoc_jax.types import Variables


class Labels(enum.Enum):
  """What the network learns from.

  Attributes:
    PSEUDO: this run's pseudo masks.
    TRUE: the data set's masks: the supervised row of the tables.
  """

  PSEUDO = 'pseudo'
  TRUE = 'true'


@dataclasses.dataclass(slots=True)
class HeadConfig:
  """The pyramid and the decoder; the defaults are the paper's.

  Attributes:
    norm: their normalisation.
    rates: dilations of the pyramid at output stride 16; at 8 they are doubled.
    width: channels of the pyramid's branches and of the decoder.
    low_width: channels that layer1's features are reduced to.
    dropout: rates after the pyramid and after the decoder's two 3 x 3 convolutions.
  """

  norm: deeplab.HeadNorm = deeplab.HeadNorm.GROUP
  rates: tuple[int, ...] = (6, 12, 18)
  width: int = 256
  low_width: int = 48
  dropout: tuple[float, float, float] = (0.5, 0.5, 0.1)


@dataclasses.dataclass(slots=True)
class SegmentationConfig(settings.StageTrainingConfig):
  """The segmentation network; the defaults are the released runner's on VOC.

  Attributes:
    labels: what it learns from, and what it is validated on beside the masks.
    head: the network after the backbone.
    smoothing: label smoothing.
  """

  optim: settings.OptimConfig = dataclasses.field(
    default_factory=lambda: settings.OptimConfig(
      lr=0.007, power=0.9, momentum=0.9, nesterov=True, weight_decay=4e-5, grad_mean=True
    )
  )
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(
      min_size=256, max_size=1024, crop=512, augment=transforms.Augment.COLORJITTER
    )
  )
  epochs: int = 50
  batch_size: int = 32
  labels: Labels = Labels.PSEUDO
  head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
  smoothing: float = 0.1


def build(config: SegmentationConfig, num_classes: int) -> deeplab.DeepLab:
  """Makes the network; `num_classes` is without the background."""
  head = config.head
  return deeplab.DeepLab(
    backbone=networks.make_backbone(config.model),
    num_classes=num_classes + 1,
    rates=deeplab.atrous_rates(networks.stride(config.model), tuple(head.rates)),
    norm=head.norm,
    width=head.width,
    low_width=head.low_width,
    dropout=head.dropout,
  )


def run(context: Context) -> None:
  """Trains the network; leaves `<out>/weights.safetensors`: always the last ones."""
  ours, source = context.config.segmentation, context.train
  model = build(ours, source.info.num_classes)
  origin = networks.origin(ours, context.inputs, deeplab.SCRATCH)
  examples = _examples(context)
  program = _make_program(model, networks.first_variables(model, origin, context), context)
  facts = networks.facts(ours, source.info) | {'head': settings.as_dict(ours.head)}
  # Differs from the reference: the last weights are kept; because its best ones on validation are
  # chosen by the masks where these are the labels.
  trainer.train(
    program, examples, ours, context, meta=lambda _: facts, measure=_measure(model, context)
  )


def _examples(context: Context) -> pipeline.Examples:
  source = context.train
  return pipeline.Examples(source, target=_target(context, source), images=pipeline.Images.ALL)


def _make_program(
  model: deeplab.DeepLab, variables: Variables, context: Context
) -> programs.Program:
  ours = context.config.segmentation
  return programs.make_program(
    functools.partial(losses.network_loss, model=model, smoothing=ours.smoothing),
    variables,
    ours,
    _examples(context),
    context,
    groups=programs.field_groups(ours, deeplab.SCRATCH),
  )


def _programs(context: Context) -> list[compiler.Call]:
  dataset = context.train.info
  model = build(context.config.segmentation, dataset.num_classes)
  return _make_program(model, networks.abstract_variables(model, dataset), context).calls()


def _target(context: Context, source: info.Source) -> joins.Target:
  """What is learnt or measured against: maps of a split."""
  if context.config.segmentation.labels is Labels.TRUE:
    return joins.true_masks(source)
  directory = context.inputs['pseudo_masks'] / source.split
  return joins.label_maps(source, directory, num_classes=source.info.num_classes)


def _measure(model: deeplab.DeepLab, context: Context) -> trainer.Measure | None:
  """The measurements of an epoch, or None where there is nothing to compare with."""
  config = context.config
  ours = config.segmentation
  split = ours.eval_split or config.dataset.val_split
  # A data set need not have a validation split that nobody has named.
  opened = (ours.eval_split, *config.priors.splits, *config.predictions.splits)
  if not ours.eval_every or split not in opened:
    return None
  source, targets = context.source(split), {}
  if source.has_masks:
    # For people; the weights that are kept are the last in any case.
    targets['eval'] = None
  if ours.labels is Labels.PSEUDO and split in config.priors.splits:
    targets['eval/pseudo'] = _target(context, source)
  if not targets:
    if hosts.is_main():
      print(f'  {split} has neither masks nor pseudo masks: no curve of {context.name}', flush=True)
    return None
  meter = meters.SegmentationMeter(model, networks.colours(ours.model, source.info), tuple(targets))
  return measure.make_measure(meter, source, ours, context.runtime, targets=tuple(targets.values()))


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.segmentation
  epoch = pipeline.Examples(source, images=pipeline.Images.ALL).steps_per_epoch(ours.batch_size)
  model = build(ours, source.info.num_classes)
  what = f'{ours.model.backbone} with DeepLabV3+, from {ours.labels.value} masks'
  return networks.describe(what, model, ours, source.info, epoch)


def _check(context: Context) -> None:
  ours, source, made = context.config.segmentation, context.train, context.config.priors.splits
  trainer.check(ours, context, paired=True)
  model = build(ours, source.info.num_classes)
  networks.check_start(model, ours, context, deeplab.SCRATCH)
  if ours.labels is Labels.TRUE:
    if not source.has_masks:
      raise UserError(
        f'segmentation.labels is true, but the split {source.split} has no masks; use pseudo'
      )
    return
  if source.split not in made:
    raise UserError(
      f'priors.splits is {made}: pseudo masks are of these splits, and the segmentation network '
      f'learns from those of {source.split}'
    )
  if 'pseudo_masks' in context.inputs:
    named = dict.fromkeys((source.split, context.config.dataset.val_split))
    for split in (name for name in named if name in made):
      images = context.source(split)
      target = joins.label_maps(
        images,
        context.inputs['pseudo_masks'] / split,
        num_classes=images.info.num_classes,
      )
      joins.check(target, images, range(len(images)))


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.segmentation
  return settings.training_faults('segmentation', ours) + head_faults(ours.head)


def head_faults(head: HeadConfig) -> list[str]:
  """What is wrong with the settings of the pyramid and the decoder, in words."""
  found = []
  if len(head.dropout) != 3 or not all(0 <= rate < 1 for rate in head.dropout):
    found.append(f'segmentation.head.dropout is {head.dropout}; name three rates in [0, 1)')
  if not head.rates or min(head.rates) < 1:
    found.append(f'segmentation.head.rates is {head.rates}; name one or more dilations')
  grouped = head.norm is deeplab.HeadNorm.GROUP
  for name in ('width', 'low_width'):
    width = getattr(head, name)
    if width < 1 or (grouped and width % deeplab.GROUPS):
      found.append(f'segmentation.head.{name} is {width}; take a multiple of {deeplab.GROUPS}')
  return found


def _needs(config: stage.PipelineConfig) -> tuple[str, ...]:
  learnt = ('pseudo_masks',) if config.segmentation.labels is Labels.PSEUDO else ()
  return (*networks.start_needs(config.segmentation), *learnt)


STAGE = stage.Stage(
  name='segmentation',
  config=SegmentationConfig,
  training_title='the segmentation network',
  run=run,
  describe=_describe,
  needs=_needs,
  # For measurements and checks: which splits are opened, and which have pseudo masks.
  looks=(*networks.LOOKS, 'priors.splits', 'predictions.splits'),
  check=_check,
  faults=_faults,
  memory=lambda config, dataset, load: memory.training_memory(
    build(config.segmentation, dataset.num_classes), config.segmentation, dataset, load
  ),
  programs=_programs,
)
