"""Stage `saliency`: PoolNet learns from the masks of C2AM and infers every image's saliency."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import multi_scale, networks, settings, stage_training
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.nn import layers
from pnoc_jax.nn import poolnet as saliency_net
from pnoc_jax.optim import optimizer
from pnoc_jax.stages import saliency_images
from pnoc_jax.stages.common import stage
from pnoc_jax.types import Variables
from pnoc_jax.updates import saliency

SCRATCH = ('decoder',)


@dataclasses.dataclass(slots=True)
class InferenceConfig:
  """Shapes of the inference; the maps do not depend on them.

  Attributes:
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most.
  """

  batch_size: int = settings.field(4, product=False)
  multiple: int = settings.field(32, product=False)
  max_buckets: int = settings.field(4, product=False)


@dataclasses.dataclass(slots=True)
class SaliencyConfig(settings.StageTrainingConfig):
  """PoolNet; the defaults are its released code's: Adam with L2, single images, ten to a step.

  `transform.resize` NONE keeps the images' sizes; `transform.crop` 0 is the side of a square that
  holds the largest of them. A larger `batch_size` with fewer `optim.accumulate` is the same
  training in another order: losses are summed over an image's pixels.

  Attributes:
    width: channels at the finest scale; the paper's network has 128.
    tiny: images of this or fewer pixels in height or width are not trained on, and inferred at
      twice their size.
    inference: shapes of the inference.
  """

  model: settings.ModelConfig = dataclasses.field(
    default_factory=lambda: settings.ModelConfig(backbone='resnet50_caffe', norm=layers.Norm.FROZEN)
  )
  optim: settings.OptimConfig = dataclasses.field(
    default_factory=lambda: settings.OptimConfig(
      rule=optimizer.Rule.ADAM,
      lr=5e-5,
      power=0.0,
      weight_decay=5e-4,
      scratch_lr=1.0,
      bias_lr=1.0,
      accumulate=10,
      grad_mean=True,
    )
  )
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(
      resize=transforms.Resize.NONE, crop=0, augment=transforms.Augment.NONE
    )
  )
  epochs: int = 9
  batch_size: int = 1
  eval_batches: int = settings.field(100, product=False)
  width: int = saliency_net.PAPER_WIDTH
  tiny: int = 100
  inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)


def faults(config: SaliencyConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = multi_scale.faults('saliency.inference', config.inference)
  if config.width < 1:
    found.append(f'saliency.width is {config.width}; it is at least 1')
  if config.model.last_stage != 'layer4':
    found.append(f'saliency.model.last_stage is {config.model.last_stage}; PoolNet reads layer4')
  return found


def build(config: SaliencyConfig) -> saliency_net.PoolNet:
  """Makes the network."""
  backbone = networks.make_backbone(config.model, before_pool=True)
  return saliency_net.PoolNet(backbone, width=config.width, dtype=backbone.dtype)


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, Any]:
  """Leaves `<out>/weights.safetensors` and `<out>/<split>/<id>.png`, 8-bit grey, of every image."""
  ours = config.saliency
  model = build(ours)
  variables = _train(config, model, inputs, out, runtime)
  inferences, count, start = None, 0, time.monotonic()
  for split in config.priors.splits:
    source = runtime.source(config.dataset, split)
    if inferences is None:
      inferences = saliency_images.make_inferences(ours, model, variables, source.info, runtime)
    (out / split).mkdir(parents=True, exist_ok=True)
    count += saliency_images.infer(inferences, ours, source, out, runtime)
  # Of this process, in this call; what it found done took no time.
  return {'images': count, 'images_per_second': count / (time.monotonic() - start)}


def _train(config, model, inputs: dict[str, Path], out: Path, runtime: Runtime) -> Variables:
  ours = config.saliency
  source = _training_source(config, runtime)
  targets = joins.grey_maps(source, inputs['saliency_priors'] / source.split)
  shown = pipeline.labelled(source)
  joins.check(targets, source, shown)
  transform, whole = _fit(ours.transform, [source.size(i) for i in shown])
  measure = None
  if ours.eval_every and source.has_masks:
    measure = saliency_images.make_measure(model, source, ours, runtime)
  # Differs from the reference: the bias of the score does not decay; because no bias does here.
  return stage_training.train(
    model,
    functools.partial(saliency.make_saliency_update, model),
    scratch=SCRATCH,
    config=dataclasses.replace(ours, transform=transform),
    source=source,
    inputs=inputs,
    out=out,
    runtime=runtime,
    seed=config.seed,
    name='saliency',
    prepare=saliency_images.make_prepare(saliency_images.colours(ours, source.info), whole=whole),
    target=targets,
    meta={'width': ours.width},
    evaluate=measure,
  )


def _training_source(config, runtime: Runtime) -> info.Source:
  """The training images without the tiny ones."""
  split = config.dataset.train_split
  source = runtime.source(config.dataset, split)
  left_out = frozenset(source.ids[i] for i in saliency_images.tiny_images(config.saliency, source))
  if not left_out:
    return source
  quarantined = runtime.quarantined.get(split, frozenset()) | left_out
  smaller = dataclasses.replace(runtime, quarantined={**runtime.quarantined, split: quarantined})
  return smaller.source(config.dataset, split)


def _fit(
  config: transforms.TransformConfig, sizes: Sequence[tuple[int, int]]
) -> tuple[transforms.TransformConfig, bool]:
  """The transform with the size of its square, and whether every image fills it."""
  largest = max(max(size) for size in sizes)
  if config.crop == 0:
    config = dataclasses.replace(config, crop=largest)
  kept = config.resize is transforms.Resize.NONE
  filled = min(min(size) for size in sizes) >= config.crop
  return config, kept and filled and config.shift == 0


def _describe(config, source: info.Source) -> str:
  ours = config.saliency
  count = trees.count(networks.abstract_variables(build(ours), source.info)['params'])
  left_out = set(saliency_images.tiny_images(ours, source))
  epoch = len(set(pipeline.labelled(source).tolist()) - left_out) // ours.batch_size
  return (
    f'PoolNet on {ours.model.backbone}, {count:,} parameters; {ours.epochs} epochs of {epoch} = '
    f'{ours.epochs * epoch} steps at batch {ours.batch_size}'
  )


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  ours = config.saliency
  # A crop of 0 will be the side of a square.
  transform = dataclasses.replace(ours.transform, crop=ours.transform.crop or 1)
  stage_training.check(
    build(ours),
    scratch=SCRATCH,
    config=dataclasses.replace(ours, transform=transform),
    source=source,
    inputs=inputs,
    runtime=runtime,
    name='saliency',
  )
  _check_sizes(ours, source)
  if 'saliency_priors' in inputs:
    large = _training_source(config, runtime)
    targets = joins.grey_maps(large, inputs['saliency_priors'] / large.split)
    joins.check(targets, large, pipeline.labelled(large))


def _check_sizes(config: SaliencyConfig, source: info.Source) -> None:
  """Raises UserError if fewer images than a batch are large enough to be trained on."""
  labelled = set(pipeline.labelled(source).tolist())
  large = len(labelled - set(saliency_images.tiny_images(config, source)))
  if large < config.batch_size:
    raise UserError(
      f'{large} of the {len(labelled)} images of {source.split} that have a label are larger than '
      f'saliency.tiny = {config.tiny} px, fewer than saliency.batch_size = {config.batch_size}: '
      'lower saliency.tiny, or the batch size'
    )


STAGE = stage.Stage(
  name='saliency',
  needs=lambda config: (*networks.start_needs(config.saliency), 'saliency_priors'),
  settings=lambda config: {
    'saliency': config.saliency,
    'saliency.init_digest': networks.init_digest(config.saliency.init),
    'priors.splits': config.priors.splits,
  },
  run=run,
  describe=_describe,
  check=_check,
)
