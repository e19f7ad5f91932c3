"""Stage `affinity`: the edge branch, from affinity labels of the training split."""

import dataclasses
import functools
from pathlib import Path

from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import networks, settings, stage_training, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.nn import affinity_net, backbones
from pnoc_jax.optim import optimizer
from pnoc_jax.stages.common import stage
from pnoc_jax.updates import affinity as affinity_updates

_SCRATCH = ('edges',)


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


def faults(config: AffinityConfig) -> list[str]:
  """What is wrong with the config, in words."""
  if config.model.backbone not in backbones.names():
    return []  # Said of all trainings.
  found = []
  if not backbones.info(config.model.backbone).plain_grid:
    found.append(
      f'affinity.model.backbone is {config.model.backbone!r}, whose cells are not those of the '
      'priors; take one whose stem rounds as they do, e.g. resnet50'
    )
  crop, pixels = config.transform.crop, stride(config)
  if config.radius < 2:
    found.append(f'affinity.radius is {config.radius}; from 2 on a cell has a neighbour')
  elif -(-crop // pixels) < 2 * config.radius - 1:
    found.append(
      f'affinity.transform.crop is {crop}: on its grid of {-(-crop // pixels)} cells there are no '
      f'pairs in radius {config.radius}; use a radius of at most {(crop // pixels + 1) // 2}'
    )
  if config.width < 4 or config.width % 4:
    found.append(
      f'affinity.width is {config.width}; it is a multiple of 4, the groups of its norms'
    )
  return found


def build(config: AffinityConfig) -> affinity_net.AffinityNet:
  """Makes the network; it is the same for any number of classes."""
  return affinity_net.AffinityNet(networks.make_backbone(config.model), width=config.width)


def stride(config: AffinityConfig) -> int:
  """Pixels to a cell of the network's edges."""
  return backbones.info(config.model.backbone).stem_stride


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Trains the edge branch; leaves `<out>/weights.safetensors`, `metrics.jsonl` and checkpoints."""
  ours = config.affinity
  source = runtime.source(config.dataset, config.dataset.train_split)
  model = build(ours)
  stage_training.train(
    model,
    functools.partial(
      affinity_updates.make_affinity_update,
      model,
      num_classes=source.info.num_classes,
      radius=ours.radius,
    ),
    scratch=_SCRATCH,
    config=ours,
    source=source,
    inputs=inputs,
    out=out,
    runtime=runtime,
    seed=config.seed,
    name='affinity',
    groups=groups(ours.optim),
    target=_target(source, inputs),
  )


def groups(config: settings.OptimConfig) -> list[optimizer.Group]:
  """The optimiser's groups: every param of the branch decays, its biases and norms too."""
  decay = config.weight_decay
  return [
    optimizer.Group('backbone/.*', lr=0.0, frozen=True),
    optimizer.Group('edges/.*/bias', lr=config.scratch_lr * config.bias_lr, weight_decay=decay),
    optimizer.Group('edges/.*', lr=config.scratch_lr, weight_decay=decay),
  ]


def _target(source: info.Source, inputs: dict[str, Path]) -> joins.Maps:
  directory = inputs['affinity_labels'] / source.split
  return joins.label_maps(source, directory, num_classes=source.info.num_classes)


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  ours = config.affinity
  stage_training.check(
    build(ours),
    scratch=_SCRATCH,
    config=ours,
    source=source,
    inputs=inputs,
    runtime=runtime,
    name='affinity',
  )
  if 'affinity_labels' in inputs:
    joins.check(_target(source, inputs), source, pipeline.labelled(source))


def _describe(config, source: info.Source) -> str:
  ours = config.affinity
  params = networks.abstract_variables(build(ours), source.info)['params']
  length = trainer.horizon(ours, source)
  return (
    f'{ours.model.backbone}, {trees.count(params["edges"]):,} parameters train; {ours.epochs} '
    f'epochs of {length.epoch} = {length.total} steps at batch {ours.batch_size}'
  )


STAGE = stage.Stage(
  name='affinity',
  needs=lambda config: ('affinity_labels', *networks.start_needs(config.affinity)),
  settings=lambda config: {
    'affinity': config.affinity,
    'affinity.init_digest': networks.init_digest(config.affinity.init),
  },
  run=run,
  describe=_describe,
  check=_check,
)
