"""Stage `saliency_priors`: C2AM's maps of every image, and the binary masks that they become."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import crf as crf_lib
from pnoc_jax.engine import infer, memory, networks, per_image, settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.io import images
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import c2am as predict
from pnoc_jax.report import refinement
from pnoc_jax.stages import c2am
from pnoc_jax.stages.common import maps, saliency_scores, stage
from pnoc_jax.types import Array, Variables

MAPS = 'maps'
"""The directory, within the stage's, of the maps before they are masks."""


@dataclasses.dataclass(slots=True)
class SaliencyPriorsConfig(settings.MultiScaleConfig):
  """Inference of C2AM's maps, which are averaged over the scales, and their masks.

  Attributes:
    activation: what a logit contributes to the map.
    threshold: theta, the background's constant map: what is above it is foreground.
    crf: the dense CRF that follows.
  """

  activation: predict.Activation = predict.Activation.RELU
  threshold: float = 0.2
  crf: crf_lib.CrfConfig = dataclasses.field(default_factory=crf_lib.CrfConfig)


def map_path(directory: Path, split: str, name: str) -> Path:
  """Where the map of the image `name` lies in the stage's directory."""
  return per_image.image_path(directory / MAPS, split, name)


def run(context: Context) -> dict[str, float]:
  """Writes `<out>/maps/<split>/<id>.png` of labelled images, `<out>/<split>/<id>.png` of all."""
  sources, refine = _refinement(context)
  ours, dataset = context.config.c2am, context.train.info
  model, variables, inverted = c2am.load(ours, dataset, context.inputs['c2am'])
  inference = _make_inference(model, variables, context, inverted=inverted)
  jobs = (
    make(source)
    for source in sources
    for make in (
      lambda source: _maps_job(inference, source, context),
      lambda source: _masks_job(refine, source, context),
    )
  )
  return per_image.make_all(jobs, context.runtime) | infer.compilations([inference])


def _refinement(context: Context) -> tuple[list[info.Source], crf_lib.LabelCrf]:
  sources = [context.source(split) for split in context.config.priors.splits]
  # One for all splits: they share its programs.
  sizes = [source.size(i) for source in sources for i in range(len(source))]
  ours = context.config.saliency_priors.crf
  return sources, crf_lib.LabelCrf(ours, context.runtime, sizes, labels=2)


def _programs(context: Context) -> list[compiler.Call]:
  model, (sources, refine) = c2am.build(context.config.c2am), _refinement(context)
  variables = networks.abstract_variables(model, context.train.info)
  images = [(source, pipeline.labelled(source)) for source in sources]
  maps_of = _make_inference(model, variables, context, inverted=False).calls(images)
  return maps_of + refine.calls(images, labels=2)


def _make_inference(
  model: nn.Module, variables: Variables, context: Context, *, inverted: bool
) -> infer.Inference:
  network = _network(model, variables, context, inverted=inverted)
  return infer.Inference(network, context.config.saliency_priors, context.runtime)


def _work(context: Context, images: memory.Images) -> tuple[memory.Work, ...]:
  ours, model = context.config.saliency_priors, c2am.build(context.config.c2am)
  variables = networks.abstract_variables(model, context.train.info)
  network = _network(model, variables, context, inverted=False)
  binary = images._replace(classes=1)
  return infer.work(network, ours, binary), *crf_lib.works(ours.crf, binary)


def _network(
  model: nn.Module, variables: Variables, context: Context, *, inverted: bool
) -> infer.Network:
  ours = context.config.saliency_priors
  dataset = networks.colours(context.config.c2am.model, context.train.info)
  output_stride = c2am.stride(context.config.c2am)

  def scale(variables: Variables, image: Array, size: Array) -> Array:
    return predict.scale_map(
      model,
      variables,
      image,
      size,
      output_stride=output_stride,
      activation=ours.activation,
      inverted=inverted,
      flip=ours.flip,
    )

  def fuse(found: list[Array], grid: infer.Grid) -> Array:
    return predict.fuse_maps(
      found, grid.scaled, grid.native, output_stride=output_stride, shape=grid.shape
    )

  return infer.Network(scale, fuse, variables, dataset)


def _maps_job(inference: infer.Inference, source: info.Source, context: Context) -> per_image.Job:
  among = pipeline.labelled(source)

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    every = per_image.share(among)
    for index, (height, width), found in inference(source, indices, among=every):
      array = np.round(255 * found[:height, :width]).astype(np.uint8)
      yield index, lambda path, array=array: images.write_png(path, array)

  return per_image.Job(
    what=f'saliency maps of {source.split}',
    source=source,
    among=among,
    directory=context.out / MAPS,
    results=results,
    exists=maps.exists_png,
  )


def _masks_job(refine: crf_lib.LabelCrf, source: info.Source, context: Context) -> per_image.Job:
  """Makes masks of the maps as they were written, so that it does not matter when."""
  known = set(pipeline.labelled(source).tolist())
  threshold = context.config.saliency_priors.threshold

  def items(indices: list[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray, int]]:
    for index in indices:
      found = images.read_mask(map_path(context.out, source.split, source.ids[index]))
      yield index, source.example(index)['image'], foreground(found, threshold), 2

  def masks(indices: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    for index in indices:
      if index not in known:  # Without a class there is no foreground.
        yield index, np.zeros(source.size(index), np.int32)
    yield from refine(items([i for i in indices if i in known]))

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    for index, mask in masks(indices):
      array = (255 * mask).astype(np.uint8)
      yield index, lambda path, array=array: images.write_png(path, array)

  return per_image.Job(
    what=f'saliency masks of {source.split}',
    source=source,
    among=range(len(source)),
    directory=context.out,
    results=results,
    exists=maps.exists_png,
  )


def foreground(array: np.ndarray, threshold: float) -> np.ndarray:
  """Labels u8[H, W] of a map u8[H, W]: 1 above the background's constant map, else 0."""
  return (array.astype(np.float32) / 255 > np.float32(threshold)).astype(np.uint8)


def _check(context: Context) -> None:
  if 'c2am' in context.inputs:
    c2am.load(context.config.c2am, context.train.info, context.inputs['c2am'])


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.saliency_priors
  found = crf_lib.faults('saliency_priors.crf', ours.crf)
  found += settings.inference_faults('saliency_priors', ours)
  if not 0 <= ours.threshold < 1:
    found.append(f'saliency_priors.threshold is {ours.threshold}; it lies in [0, 1)')
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  del source
  ours = config.saliency_priors
  scales = ', '.join(f'{scale:g}' for scale in ours.scales)
  return (
    f'{" and ".join(config.priors.splits)}, scales {scales}; foreground above {ours.threshold:g}, '
    f'dense CRF of {ours.crf.steps} steps'
  )


STAGE = stage.Stage(
  name='saliency_priors',
  config=SaliencyPriorsConfig,
  run=run,
  describe=_describe,
  needs=lambda config: ('c2am',),
  reads=lambda config: ('saliency_priors', 'priors.splits', 'c2am.model', 'c2am.features'),
  check=_check,
  faults=_faults,
  splits=lambda config: config.priors.splits,
  scores=(
    stage.Score(
      'saliency_priors',
      'Saliency masks of C2AM',
      saliency_scores.score_saliency_masks,
      needs=('priors',),
    ),
  ),
  programs=_programs,
  work=_work,
  disk=lambda pixels, maps: pixels * (stage.GREY_RATE + stage.MASK_RATE),
  sample=refinement.saliency_mask_view,
)
