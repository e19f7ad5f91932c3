"""Stage `segmentation`: DeepLabV3+ learns from pseudo masks, or from masks for comparison."""

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path

from pnoc_jax import keys, trees
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import networks, settings, stage_training, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.nn import deeplab
from pnoc_jax.stages import segmentation_measure
from pnoc_jax.stages.common import stage
from pnoc_jax.types import Variables
from pnoc_jax.updates import segmentation

_IMAGES = pipeline.Images.ALL


class Labels(enum.Enum):
  """What the network learns from."""

  PSEUDO = 'pseudo'
  """This run's pseudo masks."""
  TRUE = 'true'
  """The data set's masks: the supervised row of the tables."""


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


def faults(config: SegmentationConfig) -> list[str]:
  """What is wrong with the config, in words."""
  head, found = config.head, []
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
    dropout=tuple(head.dropout),
  )


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Trains the network; leaves `<out>/weights.safetensors`: always the last ones."""
  ours = config.segmentation
  source = runtime.source(config.dataset, config.dataset.train_split)
  model = build(ours, source.info.num_classes)

  def make_update(tx, update_ema):
    update = segmentation.make_segmentation_update(
      model, tx, smoothing=ours.smoothing, update_ema=update_ema
    )
    root = keys.root_key(config.seed)
    # A step's number keys its dropout.
    return lambda state, batch: update(
      state, batch, keys.stream(root, 'segmentation/dropout', state.step)
    )

  # Differs from the reference: the last weights are kept; because its best ones on validation are
  # chosen by the masks where these are the labels.
  stage_training.train(
    model,
    make_update,
    scratch=deeplab.SCRATCH,
    config=ours,
    source=source,
    inputs=inputs,
    out=out,
    runtime=runtime,
    seed=config.seed,
    name='segmentation',
    target=_target(ours, inputs, source),
    images=_IMAGES,
    meta={
      'model': settings.as_dict(ours.model),
      'head': settings.as_dict(ours.head),
      'dataset': settings.as_dict(source.info),
      'crop': ours.transform.crop,
    },
    evaluate=_measure(config, model, inputs, runtime),
  )


def _target(config: SegmentationConfig, inputs: dict[str, Path], source: info.Source):
  """What is learnt or measured against: maps of a split."""
  if config.labels is Labels.TRUE:
    return joins.true_masks(source)
  directory = inputs['pseudo_masks'] / source.split
  return joins.label_maps(source, directory, num_classes=source.info.num_classes)


def _measure(
  config, model: deeplab.DeepLab, inputs: dict[str, Path], runtime: Runtime
) -> Callable[[Variables], dict[str, float]] | None:
  """The measurements of an epoch, or None where there is nothing to compare with."""
  ours, split = config.segmentation, config.dataset.val_split
  pseudo = ours.labels is Labels.PSEUDO
  if not ours.eval_every or split not in (*config.priors.splits, *config.predictions.splits):
    return None
  source = runtime.source(config.dataset, split)
  targets = {}
  if pseudo and split in config.priors.splits:
    targets['eval'] = _target(ours, inputs, source)
  if source.has_masks:
    # For people; the weights that are kept are the last in any case.
    targets['eval/true' if pseudo else 'eval'] = None
  if not targets:
    return None
  return segmentation_measure.make_measure(model, source, ours, runtime, targets=targets)


def _describe(config, source: info.Source) -> str:
  ours = config.segmentation
  model = build(ours, source.info.num_classes)
  count = trees.count(networks.abstract_variables(model, source.info)['params'])
  length = trainer.horizon(ours, source, images=_IMAGES)
  return (
    f'{ours.model.backbone} with DeepLabV3+, {count:,} parameters, from {ours.labels.value} masks; '
    f'{ours.epochs} epochs of {length.epoch} = {length.total} steps at batch {ours.batch_size}'
  )


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  ours = config.segmentation
  stage_training.check(
    build(ours, source.info.num_classes),
    scratch=deeplab.SCRATCH,
    config=ours,
    source=source,
    inputs=inputs,
    runtime=runtime,
    name='segmentation',
  )
  if ours.labels is Labels.TRUE and not source.has_masks:
    raise UserError(
      f'segmentation.labels is true, but the split {source.split} has no masks; use pseudo'
    )
  if ours.labels is Labels.PSEUDO and source.split not in config.priors.splits:
    raise UserError(
      f'priors.splits is {config.priors.splits}: pseudo masks are of these splits, and the '
      f'segmentation network learns from those of {source.split}'
    )
  if ours.labels is Labels.PSEUDO and 'pseudo_masks' in inputs:
    named = dict.fromkeys((source.split, config.dataset.val_split))
    for split in (name for name in named if name in config.priors.splits):
      images = runtime.source(config.dataset, split)
      joins.check(_target(ours, inputs, images), images, range(len(images)))


STAGE = stage.Stage(
  name='segmentation',
  needs=lambda config: (
    *networks.start_needs(config.segmentation),
    *(('pseudo_masks',) if config.segmentation.labels is Labels.PSEUDO else ()),
  ),
  settings=lambda config: {
    'segmentation': config.segmentation,
    'segmentation.init_digest': networks.init_digest(config.segmentation.init),
  },
  run=run,
  describe=_describe,
  check=_check,
)
