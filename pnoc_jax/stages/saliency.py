"""Stage `saliency`: PoolNet learns from the masks of C2AM and infers every image's saliency."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import infer, measure, memory, networks, per_image, programs, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.io import images
from pnoc_jax.losses import poolnet as losses
from pnoc_jax.nn import backbones, layers, poolnet
from pnoc_jax.ops import normalize
from pnoc_jax.optim import optimizer
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import poolnet as predict
from pnoc_jax.report import refinement
from pnoc_jax.stages.common import maps, meters, saliency_scores, stage
from pnoc_jax.types import Array, Batch, Variables

SCRATCH = ('decoder',)


@dataclasses.dataclass(slots=True)
class PoolNetInferenceConfig(settings.InferenceConfig):
  """Shapes of PoolNet's inference, which sees images as they are."""

  batch_size: int = settings.field(4, product=False)


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
  width: int = poolnet.PAPER_WIDTH
  tiny: int = 100
  inference: PoolNetInferenceConfig = dataclasses.field(default_factory=PoolNetInferenceConfig)


def build(config: SaliencyConfig) -> poolnet.PoolNet:
  """Makes the network."""
  backbone = networks.make_backbone(config.model, before_pool=True)
  return poolnet.PoolNet(backbone, width=config.width, dtype=backbone.dtype)


def run(context: Context) -> dict[str, Any]:
  """Leaves `<out>/weights.safetensors` and `<out>/<split>/<id>.png`, 8-bit grey, of every image."""
  ours = context.config.saliency
  model = build(ours)
  variables = _train(model, context)
  inferences = _make_inferences(model, variables, context)
  splits = context.config.priors.splits
  jobs = (_job(inferences, context.source(split), context) for split in splits)
  return per_image.make_all(jobs, context.runtime) | infer.compilations(inferences.values())


def _train(model: poolnet.PoolNet, context: Context) -> Variables:
  ours, examples = context.config.saliency, _examples(context)
  source = examples.source
  joins.check(_targets(source, context), source, examples.indices)
  origin = networks.origin(ours, context.inputs, SCRATCH)
  variables = networks.first_variables(model, origin, context)
  program, config = _make_program(model, variables, examples, context)
  measured, seen = None, measure.measured_source(ours, context, training=source)
  if seen is not None:
    meter = meters.PoolNetMeter(model, networks.colours(ours.model, source.info))
    count = ours.inference.batch_size
    measured = measure.make_measure(meter, seen, ours, context.runtime, batch_size=count)
  return trainer.train(
    program, examples, config, context, meta=lambda _: {'width': ours.width}, measure=measured
  )


def _examples(context: Context) -> pipeline.Examples:
  source = _training_source(context)
  # As the reference: images without a label are shown with their masks, which are all 0.
  return pipeline.Examples(source, target=_targets(source, context), images=pipeline.Images.ALL)


def _targets(source: info.Source, context: Context) -> joins.Maps:
  return joins.grey_maps(source, context.inputs['saliency_priors'] / source.split)


def _make_program(
  model: poolnet.PoolNet, variables: Variables, examples: pipeline.Examples, context: Context
) -> tuple[programs.Program, SaliencyConfig]:
  """The program, and the config with the size of its square."""
  ours, source = context.config.saliency, examples.source
  transform, whole = _fit(ours.transform, [source.size(i) for i in examples.indices])
  config = dataclasses.replace(ours, transform=transform)
  # Differs from the reference: the bias of the score does not decay; because no bias does here.
  program = programs.make_program(
    functools.partial(losses.network_loss, model=model),
    variables,
    config,
    examples,
    context,
    groups=programs.field_groups(ours, SCRATCH),
    prepare=make_prepare(networks.colours(ours.model, source.info), whole=whole),
  )
  return program, config


def _programs(context: Context) -> list[compiler.Call]:
  model, examples = build(context.config.saliency), _examples(context)
  variables = networks.abstract_variables(model, examples.source.info)
  program, _ = _make_program(model, variables, examples, context)
  normal = _make_inferences(model, variables, context)[1.0]
  sources = [context.source(split) for split in context.config.priors.splits]
  return program.calls() + normal.calls([(x, range(len(x))) for x in sources])


def _training_source(context: Context) -> info.Source:
  """The training images without the tiny ones."""
  source = context.train
  left_out = frozenset(source.ids[i] for i in tiny_images(context.config.saliency, source))
  return context.runtime.source(context.config.dataset, source.split, without=left_out)


def tiny_images(config: SaliencyConfig, source: info.Source) -> list[int]:
  """Indices of the images with a side of `tiny` or fewer pixels."""
  return [i for i in range(len(source)) if min(source.size(i)) <= config.tiny]


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


def make_prepare(dataset: info.DatasetInfo, *, whole: bool) -> programs.Prepare:
  """Makes the first operation on the device.

  Args:
    dataset: mean and deviation of its colours.
    whole: whether every image fills its square: then nothing needs a mask.

  Returns:
    A batch of 'image' u8[B, S, S, 3], 'box' and 'target' u8[B, S, S], to one of normalised images
    and targets f32[B, S, S] in [0, 1], at the top left, and 'valid' bool[B, S, S].
  """

  def prepare(batch: Batch) -> Batch:
    image, target, box = batch['image'], batch['target'], batch['box']
    if not whole:
      # A mask's rectangle begins at the top left, where the strides of the network begin.
      image, target = (normalize.move_to_corner(x, box) for x in (image, target))
      box = jnp.concatenate([jnp.zeros_like(box[:, :2]), box[:, 2:] - box[:, :2]], axis=1)
    result = {
      'image': normalize.normalize(image, box, mean=dataset.mean, std=dataset.std),
      'target': target.astype(jnp.float32) / 255,
    }
    return result if whole else result | {'valid': normalize.box_valid(box, image.shape[1:3])}

  return prepare


def _make_inferences(
  model: poolnet.PoolNet, variables: Variables, context: Context
) -> dict[float, infer.Inference]:
  """The inference at each scale: images are taken as they are, tiny ones at twice their size."""
  ours, network = context.config.saliency, _network(model, variables, context)
  return {
    factor: infer.Inference(network, ours.inference, context.runtime, scales=(factor,))
    for factor in (1.0, 2.0)
  }


def _network(model: poolnet.PoolNet, variables: Variables, context: Context) -> infer.Network:
  def scale(variables: Variables, image: Array, size: Array) -> Array:
    return predict.scale_map(model, variables, image, size)

  def fuse(found: list[Array], grid: infer.Grid) -> Array:
    return predict.fuse_maps(found, grid.scaled, grid.native, shape=grid.shape)

  dataset = networks.colours(context.config.saliency.model, context.train.info)
  return infer.Network(scale, fuse, variables, dataset)


def _work(context: Context, images: memory.Images) -> tuple[memory.Work, ...]:
  ours, model = context.config.saliency, build(context.config.saliency)
  network = _network(model, networks.abstract_variables(model, context.train.info), context)
  # Images that are doubled are tiny.
  return (infer.work(network, ours.inference, images._replace(classes=1), scales=(1.0,)),)


def _job(
  inferences: dict[float, infer.Inference], source: info.Source, context: Context
) -> per_image.Job:
  # Differs from the reference: COCO's images below 224 px are not padded to that; because the mask
  # of what is image makes small shapes safe, and padding that the network sees changes its maps.
  doubled = set(tiny_images(context.config.saliency, source))

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    for factor, inference in inferences.items():
      among = [i for i in per_image.share(range(len(source))) if (i in doubled) == (factor == 2.0)]
      chosen = set(among).intersection(indices)
      for index, (height, width), found in inference(source, chosen, among=among) if chosen else ():
        grey = np.round(255 * found[:height, :width]).astype(np.uint8)
        yield index, lambda path, grey=grey: images.write_png(path, grey)

  return per_image.Job(
    what=f'saliency of {source.split}',
    source=source,
    among=range(len(source)),
    directory=context.out,
    results=results,
    exists=maps.exists_png,
  )


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.saliency
  epoch = (len(source) - len(tiny_images(ours, source))) // ours.batch_size
  return networks.describe(
    f'PoolNet on {ours.model.backbone}', build(ours), ours, source.info, epoch
  )


def _check(context: Context) -> None:
  ours, source = context.config.saliency, context.train
  # A crop of 0 will be the side of a square.
  transform = dataclasses.replace(ours.transform, crop=ours.transform.crop or 1)
  trainer.check(dataclasses.replace(ours, transform=transform), context, paired=True)
  networks.check_start(build(ours), ours, context, SCRATCH)
  _check_sizes(ours, source)
  if 'saliency_priors' in context.inputs:
    large = _training_source(context)
    joins.check(_targets(large, context), large, range(len(large)))


def _check_sizes(config: SaliencyConfig, source: info.Source) -> None:
  """Raises UserError if fewer images than a batch are large enough to be trained on."""
  large = len(source) - len(tiny_images(config, source))
  if large < config.batch_size:
    raise UserError(
      f'{large} of the {len(source)} images of {source.split} are larger than saliency.tiny = '
      f'{config.tiny} px, fewer than saliency.batch_size = {config.batch_size}: lower '
      'saliency.tiny, or the batch size'
    )


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.saliency
  found = settings.training_faults('saliency', ours)
  found += settings.inference_faults('saliency.inference', ours.inference)
  if ours.width < 1:
    found.append(f'saliency.width is {ours.width}; it is at least 1')
  if ours.model.last_stage != 'layer4':
    found.append(f'saliency.model.last_stage is {ours.model.last_stage}; PoolNet reads layer4')
  return found


def _warnings(config: stage.PipelineConfig) -> list[str]:
  ours = config.saliency
  row = backbones.info(ours.model.backbone)
  drawn = ours.start is settings.BackboneStart.PRETRAINED and not ours.init
  if not drawn or not (row.pretrained or row.bgr):
    return []
  return [
    f'PoolNet starts from random weights: saliency.init names none, and {row.name} has released '
    'ones. Name the file with --config.saliency.init=FILE; of resnet50_caffe it is that of '
    "PoolNet's authors, resnet50_caffe.pth"
  ]


STAGE = stage.Stage(
  name='saliency',
  config=SaliencyConfig,
  title='Saliency',
  training_title='the saliency network',
  run=run,
  describe=_describe,
  needs=lambda config: (*networks.start_needs(config.saliency), 'saliency_priors'),
  reads=lambda config: ('saliency', 'priors.splits'),
  looks=networks.LOOKS,
  check=_check,
  faults=_faults,
  warnings=_warnings,
  splits=lambda config: config.priors.splits,
  scores=(
    stage.Score('saliency', 'Saliency maps', saliency_scores.score_saliency, needs=('priors',)),
  ),
  memory=lambda config, dataset, load: memory.training_memory(
    build(config.saliency), config.saliency, dataset, load
  ),
  programs=_programs,
  work=_work,
  figures=refinement.saliency,
  sample=refinement.saliency_view,
  disk=lambda pixels, maps: pixels * stage.GREY_RATE,
)
