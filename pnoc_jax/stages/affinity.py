"""Stage `affinity`: the edge branch, from affinity labels of the training split."""

import dataclasses
import functools

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import memory, networks, programs, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.losses import affinity as losses
from pnoc_jax.nn import affinity_net, backbones
from pnoc_jax.optim import optimizer
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages.common import stage
from pnoc_jax.types import Variables

SCRATCH = ('edges',)


@dataclasses.dataclass(slots=True)
class AffinityConfig(settings.StageTrainingConfig):
  """Training of AffinityNet's edge branch; the backbone is frozen.

  Source of the defaults: the released runner of VOC12 (3 epochs at batch 32, rate 0.1 without
  momentum, polynomial decay of power 0.9, decay 1e-4 of all params, biases and norms too).

  Attributes:
    radius: pairs are closer than this, in cells of the edges' grid (a quarter of the crop).
    width: channels that the branch gives to each stage of the backbone.
  """

  optim: settings.OptimConfig = dataclasses.field(
    default_factory=lambda: settings.OptimConfig(lr=0.1, power=0.9, scratch_lr=1.0, bias_lr=1.0)
  )
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(
      min_size=320, max_size=640, crop=512, augment=transforms.Augment.NONE
    )
  )
  epochs: int = 3
  batch_size: int = 32
  eval_every: int = settings.field(0, product=False)
  radius: int = 10
  width: int = 32


def build(config: AffinityConfig) -> affinity_net.AffinityNet:
  """Makes the network; it is the same for any number of classes."""
  model = config.model
  plan = backbones.info(model.backbone).plan(model.output_stride)
  return affinity_net.AffinityNet(networks.make_backbone(model), plan, width=config.width)


def stride(config: AffinityConfig) -> int:
  """Pixels to a cell of the network's edges."""
  return networks.stride(dataclasses.replace(config.model, last_stage='layer1'))


def run(context: Context) -> None:
  """Trains the edge branch; leaves `<out>/weights.safetensors`, `metrics.jsonl` and checkpoints."""
  ours = context.config.affinity
  origin = networks.origin(ours, context.inputs, SCRATCH)
  variables = networks.first_variables(build(ours), origin, context)
  trainer.train(_make_program(variables, context), _examples(context), ours, context)


def _examples(context: Context) -> pipeline.Examples:
  return pipeline.Examples(context.train, target=_target(context))


def _make_program(variables: Variables, context: Context) -> programs.Program:
  ours, examples = context.config.affinity, _examples(context)
  loss = functools.partial(
    losses.network_loss,
    model=build(ours),
    num_classes=examples.source.info.num_classes,
    radius=ours.radius,
  )
  return programs.make_program(loss, variables, ours, examples, context, groups=groups(ours.optim))


def _programs(context: Context) -> list[compiler.Call]:
  variables = networks.abstract_variables(build(context.config.affinity), context.train.info)
  return _make_program(variables, context).calls()


def groups(config: settings.OptimConfig) -> list[optimizer.Group]:
  """The optimiser's groups: every param of the branch decays, its biases and norms too."""
  decay = config.weight_decay
  return [
    optimizer.Group('backbone/.*', lr=0.0, frozen=True),
    optimizer.Group('edges/.*/bias', lr=config.scratch_lr * config.bias_lr, weight_decay=decay),
    optimizer.Group('edges/.*', lr=config.scratch_lr, weight_decay=decay),
  ]


def _target(context: Context) -> joins.Maps:
  source = context.train
  directory = context.inputs['affinity_labels'] / source.split
  return joins.label_maps(source, directory, num_classes=source.info.num_classes)


def _check(context: Context) -> None:
  ours, source = context.config.affinity, context.train
  trainer.check(ours, context, paired=True)
  networks.check_start(build(ours), ours, context, SCRATCH)
  if 'affinity_labels' in context.inputs:
    joins.check(_target(context), source, pipeline.labelled(source))


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.affinity
  found = settings.training_faults('affinity', ours)
  if ours.model.backbone not in backbones.names():
    return found
  if not backbones.info(ours.model.backbone).plain_grid:
    found.append(
      f'affinity.model.backbone is {ours.model.backbone!r}, whose cells are not those of the '
      'priors; take one whose stem rounds as they do, e.g. resnet50'
    )
  crop, pixels = ours.transform.crop, stride(ours)
  if ours.radius < 2:
    found.append(f'affinity.radius is {ours.radius}; from 2 on a cell has a neighbour')
  elif -(-crop // pixels) < 2 * ours.radius - 1:
    found.append(
      f'affinity.transform.crop is {crop}: on its grid of {-(-crop // pixels)} cells there are no '
      f'pairs in radius {ours.radius}; use a radius of at most {(crop // pixels + 1) // 2}'
    )
  if ours.width < 4 or ours.width % 4:
    found.append(f'affinity.width is {ours.width}; it is a multiple of 4, the groups of its norms')
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.affinity
  epoch = pipeline.Examples(source).steps_per_epoch(ours.batch_size)
  what = ours.model.backbone
  return networks.describe(what, build(ours), ours, source.info, epoch, part='edges')


STAGE = stage.Stage(
  name='affinity',
  config=AffinityConfig,
  training_title='AffinityNet',
  run=run,
  describe=_describe,
  needs=lambda config: ('affinity_labels', *networks.start_needs(config.affinity)),
  looks=networks.LOOKS,
  check=_check,
  faults=_faults,
  memory=lambda config, dataset, load: memory.training_memory(
    build(config.affinity), config.affinity, dataset, load
  ),
  programs=_programs,
)
