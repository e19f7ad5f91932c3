"""Stage `priors`: class activation priors of every image, from the generator's maps."""

import dataclasses
import enum
import warnings
from collections.abc import Iterator

import jax
import numpy as np
from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import health, infer, memory, networks, per_image, settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.io import products
from pnoc_jax.nn import backbones
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import hosts
from pnoc_jax.predict import cams
from pnoc_jax.predict import lpcam as lpcam_inference
from pnoc_jax.report import sections
from pnoc_jax.stages.common import lpcam as lpcam_lib
from pnoc_jax.stages.common import proxy, scores, stage
from pnoc_jax.types import Array, PyTree, Variables


class PriorMaps(enum.Enum):
  """What the priors are made of.

  Attributes:
    CAM: the network's class activation maps.
    LPCAM: cosines of its features with prototypes of the classes (`ops.lpcam`).
  """

  CAM = 'cam'
  LPCAM = 'lpcam'


@dataclasses.dataclass(slots=True)
class PriorsConfig(settings.MultiScaleConfig):
  """Inference of the priors; the maps of all scales are summed.

  Attributes:
    splits: the splits to infer.
    maps: what the priors are made of.
    lpcam: the prototypes of LPCAM.
  """

  splits: tuple[str, ...] = ('train', 'val')
  maps: PriorMaps = PriorMaps.CAM
  lpcam: lpcam_lib.LpcamConfig = dataclasses.field(default_factory=lpcam_lib.LpcamConfig)


def run(context: Context) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.npz` of every labelled image; skips those that are there."""
  ours, model_config = context.config.priors, context.config.generator.model
  dataset = networks.colours(model_config, context.train.info)
  model = networks.build(model_config, dataset.num_classes)
  variables = networks.load(model, dataset, context.inputs['generator'])
  stride = networks.stride(model_config)
  if ours.maps is PriorMaps.LPCAM:
    vectors = lpcam_lib.make_vectors(model, variables, ours, context, output_stride=stride)
    variables |= {'lpcam': {'vectors': vectors}}
  network = _network(ours, model, variables, dataset, stride)
  inference = infer.Inference(network, ours, context.runtime)
  seen = health.Maps(dataset.classes)

  def job(source: info.Source) -> per_image.Job:
    among = pipeline.labelled(source)

    def results(indices: list[int]) -> Iterator[per_image.Result]:
      labels = source.labels
      found = inference(
        source,
        indices,
        among=per_image.share(among),
        context=lambda x: {'classes': infer.present(labels[x['index']])},
        by_classes=True,
      )
      for index, size, arrays in found:
        present = np.flatnonzero(labels[index])
        prior = _prior(present, size, *arrays)
        seen.add(present, prior['low'])
        yield index, lambda path, prior=prior: products.write_prior(path, **prior)

    return per_image.Job(
      what=f'priors of {source.split}',
      source=source,
      among=among,
      directory=context.out,
      results=results,
      exists=products.exists_complete,
      suffix='.npz',
    )

  jobs = (job(context.source(split)) for split in ours.splits)
  facts = per_image.make_all(jobs, context.runtime)
  said = seen.told(context.name)
  for text in said:
    warnings.warn(text, stacklevel=1)
  if hosts.is_main():
    health.keep(context.out, said)
  return facts | infer.compilations([inference])


def _abstract_network(context: Context) -> infer.Network:
  """The inference of shapes in place of variables."""
  ours, model_config = context.config.priors, context.config.generator.model
  dataset = networks.colours(model_config, context.train.info)
  model, stride = networks.build(model_config, dataset.num_classes), networks.stride(model_config)
  variables = networks.abstract_variables(model, dataset)
  if ours.maps is PriorMaps.LPCAM:
    channels = backbones.info(model_config.backbone).channels[model_config.last_stage]
    vectors = jax.ShapeDtypeStruct((channels, dataset.num_classes), np.float32)
    variables |= {'lpcam': {'vectors': vectors}}
  return _network(ours, model, variables, dataset, stride)


def _work(context: Context, images: memory.Images) -> tuple[memory.Work, ...]:
  return (infer.work(_abstract_network(context), context.config.priors, images),)


def _programs(context: Context) -> list[compiler.Call]:
  ours, network = context.config.priors, _abstract_network(context)
  images = [(x, pipeline.labelled(x)) for x in map(context.source, ours.splits)]
  classes = (infer.present_width(images, ours.batch_size),), np.int32
  inference = infer.Inference(network, ours, context.runtime)
  return inference.calls(images, context=lambda bucket: {'classes': classes})


def _network(
  config: PriorsConfig,
  model: nn.Module,
  variables: Variables,
  dataset: info.DatasetInfo,
  output_stride: int,
) -> infer.Network:
  """The inference of `fuse_cams`' two maps and of the logits."""
  unscaled = config.scales.index(1.0) if 1.0 in config.scales else 0
  one = lpcam_inference.scale_lpcams if config.maps is PriorMaps.LPCAM else cams.scale_cams

  def scale(variables: Variables, image: Array, size: Array) -> tuple[Array, Array]:
    return one(model, variables, image, size, output_stride=output_stride, flip=config.flip)

  def fuse(results: list[tuple[Array, Array]], grid: infer.Grid) -> PyTree:
    found, logits = zip(*results, strict=True)
    low, high = cams.fuse_cams(
      found,
      grid.scaled,
      grid.native,
      grid.context['classes'],
      output_stride=output_stride,
      shape=grid.shape,
    )
    return low, high, logits[unscaled]

  return infer.Network(scale, fuse, variables, dataset, infer.with_classes)


def _prior(
  present: np.ndarray, size: tuple[int, int], low: np.ndarray, high: np.ndarray, logits: np.ndarray
) -> dict[str, np.ndarray]:
  """Arguments of `products.write_prior`, of an image's classes and its row of each array."""
  (height, width), count = size, len(present)
  low = low[: -(-height // products.STRIDE), : -(-width // products.STRIDE), :count]
  high = high[:height, :width, :count]
  return {
    'keys': np.concatenate([[0], present + 1]).astype(np.int32),
    'low': np.moveaxis(low, -1, 0).astype(np.float32),
    'high': np.moveaxis(high, -1, 0).astype(np.float16),
    'logits': logits.astype(np.float32),
  }


def _check(context: Context) -> None:
  for split in context.config.priors.splits:
    if not context.source(split).labels.any():
      raise UserError(
        f'priors.splits names {split}, in which no image has a label, and priors are made of '
        'images with one: add labels, or name other splits, e.g. '
        f'--config.priors.splits={context.train.split}'
      )
  if 'generator' in context.inputs:
    dataset = context.train.info
    model = networks.build(context.config.generator.model, dataset.num_classes)
    networks.load(model, dataset, context.inputs['generator'])


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.priors
  found = settings.inference_faults('priors', ours) + lpcam_lib.faults(ours.lpcam)
  if not ours.splits:
    found.append('priors.splits is empty; name one or more splits')
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.priors
  scales = ', '.join(f'{scale:g}' for scale in ours.scales)
  return f'{" and ".join(ours.splits)}, scales {scales}'


def _proxy_splits(config: stage.PipelineConfig) -> tuple[str, ...]:
  asked = config.evaluation.splits or config.priors.splits
  return tuple(x for x in config.priors.splits if x in asked and config.evaluation.proxy.images)


STAGE = stage.Stage(
  name='priors',
  config=PriorsConfig,
  title='Priors',
  run=run,
  describe=_describe,
  needs=lambda config: ('generator',),
  reads=lambda config: ('priors', 'generator.model'),
  check=_check,
  faults=_faults,
  splits=lambda config: config.priors.splits,
  work=_work,
  scores=(
    stage.Score('priors', 'Priors', scores.score_priors, headline=True),
    stage.Score(
      'priors_crf',
      'Priors after the CRF',
      scores.score_priors_crf,
      splits=lambda config: config.evaluation.crf_splits,
      reads=lambda config: ('evaluation.crf',),
    ),
    stage.Score(
      'priors_proxy',
      'Priors without masks',
      proxy.measure,
      splits=_proxy_splits,
      reads=lambda config: ('evaluation.crf', 'evaluation.proxy', 'affinity_labels'),
      needs=('generator',),
      masks=False,
    ),
  ),
  programs=_programs,
  # float16, and float32 on a quarter of the side; each with the share that is left after packing.
  figures=sections.priors,
  sample=sections.prior_view,
  disk=lambda pixels, maps: maps * (2 * 0.25 + 4 / 16 * 0.6),
)
