"""Stage `predictions`: the segmentation network's label map of every image."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_lib
from pnoc_jax.engine import infer, memory, networks, per_image, settings
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.io import archives, atomic
from pnoc_jax.ops import crf as crf_ops
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import hosts
from pnoc_jax.predict import segmentation as predict
from pnoc_jax.report import label_maps
from pnoc_jax.stages import segmentation
from pnoc_jax.stages.common import maps, scores, stage
from pnoc_jax.types import Array, Variables

SERVER_PATH = 'results/VOC2012/Segmentation/comp5_test_cls'
"""Where the VOC evaluation server looks for label maps, in an archive."""


@dataclasses.dataclass(slots=True)
class PredictionsConfig(settings.MultiScaleConfig):
  """Inference of the segmentation network; the logits of all scales are averaged.

  Attributes:
    splits: the splits to segment, all images of them.
    crf: refines the probabilities. By default there is none; the released code refines with the
      kernels that stand here, in 10 steps.
    voc_server: also write what the VOC evaluation server takes, `<split>.tar.gz`, and the same
      folders unpacked.
  """

  splits: tuple[str, ...] = ('val',)
  crf: crf_lib.CrfConfig = dataclasses.field(
    default_factory=lambda: crf_lib.CrfConfig(steps=0, **dataclasses.asdict(crf_ops.PROBABILITIES))
  )
  voc_server: bool = False


def run(context: Context) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.png` of every image; keeps what is there."""
  ours = context.config.predictions
  sources = [context.source(split) for split in ours.splits]
  dataset = networks.colours(context.config.segmentation.model, sources[0].info)
  model = segmentation.build(context.config.segmentation, dataset.num_classes)
  variables = networks.load(model, dataset, context.inputs['segmentation'])
  segment = _make_segmenter(model, variables, sources, context)
  facts = per_image.make_all(
    (job(segment, source, context.out) for source in sources), context.runtime
  ) | infer.compilations([segment.inference])
  if ours.voc_server and hosts.is_main():
    for source in sources:
      write_for_server(context.out, source)
  hosts.barrier('predictions/server')
  return facts


def _make_segmenter(
  model: nn.Module, variables: Variables, sources: list[info.Source], context: Context
) -> 'Segmenter':
  # One for all splits: they share its programs.
  sizes = [source.size(i) for source in sources for i in range(len(source))]
  ours, theirs = context.config.predictions, context.config.segmentation
  # The network wants its own colours, which need not be the data set's.
  dataset = networks.colours(theirs.model, sources[0].info)
  return Segmenter(model, variables, dataset, ours, context.runtime, sizes=sizes)


def _programs(context: Context) -> list[compiler.Call]:
  sources = [context.source(split) for split in context.config.predictions.splits]
  model = segmentation.build(context.config.segmentation, sources[0].info.num_classes)
  variables = networks.abstract_variables(model, sources[0].info)
  segment = _make_segmenter(model, variables, sources, context)
  return segment.calls([(source, range(len(source))) for source in sources])


def job(segment: 'Segmenter', source: info.Source, directory: Path) -> per_image.Job:
  """The label maps of all images of a source, below a directory."""

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    for index, labels in segment(source, indices, per_image.share(range(len(source)))):
      yield index, functools.partial(maps.write_labels, labels=labels, dataset=source.info)

  return per_image.Job(
    what=f'predictions of {source.split}',
    source=source,
    among=range(len(source)),
    directory=directory,
    results=results,
    exists=maps.exists_png,
  )


def _network(
  model: nn.Module, variables: Variables, dataset: info.DatasetInfo, config: PredictionsConfig
) -> infer.Network:
  def scale(variables: Variables, image: Array, size: Array) -> Array:
    return predict.scale_logits(model, variables, image, size, flip=config.flip)

  def fuse(parts: list[Array], grid: infer.Grid) -> Array:
    logits = predict.fuse_logits(parts, grid.scaled, grid.native, shape=grid.shape)
    if config.crf.steps:
      return jax.nn.softmax(logits)
    return jnp.argmax(logits, -1).astype(jnp.uint8)

  return infer.Network(scale, fuse, variables, dataset)


def _work(context: Context, images: memory.Images) -> tuple[memory.Work, ...]:
  ours, theirs = context.config.predictions, context.config.segmentation
  dataset = networks.colours(theirs.model, context.train.info)
  model = segmentation.build(theirs, dataset.num_classes)
  network = _network(model, networks.abstract_variables(model, dataset), dataset, ours)
  every = images._replace(classes=dataset.num_classes)
  return infer.work(network, ours, every), *crf_lib.works(ours.crf, every)


class Segmenter:
  """Compiled segmentation of any images; a new size compiles nothing in a bucket that was seen.

  Attributes:
    inference: of the network, before the CRF.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Variables,
    dataset: info.DatasetInfo,
    config: PredictionsConfig,
    runtime: Runtime,
    *,
    sizes: Sequence[tuple[int, int]],
  ):
    """Binds the network; compiles nothing.

    Args:
      model: the network.
      variables: its variables.
      dataset: its classes and normalisation.
      config: scales, flips and CRF.
      runtime: where to run.
      sizes: (H, W) of all images that may come.
    """
    self._refine = None
    if config.crf.steps:
      labels = dataset.num_classes + 1
      self._refine = crf_lib.SoftmaxCrf(config.crf, runtime, sizes, labels=labels)
    self.inference = infer.Inference(_network(model, variables, dataset, config), config, runtime)

  def calls(self, images: infer.Images) -> list[compiler.Call]:
    """The programs of one pass over images."""
    found = self.inference.calls(images)
    if self._refine is None:
      return found
    return found + self._refine.calls(images, labels=images[0][0].info.num_classes + 1)

  def __call__(
    self, source: info.Source, indices: Iterable[int], among: Iterable[int] | None = None
  ) -> Iterator[tuple[int, np.ndarray]]:
    """Infers images.

    Args:
      source: the images.
      indices: those wanted, each once.
      among: which lay out the batches, see `buckets.multi_scale_batches`.

    Yields:
      The index, and labels of 0..K, int[H, W]; in any order.
    """
    found = (
      (index, result[:height, :width])
      for index, (height, width), result in self.inference(source, indices, among=among)
    )
    if self._refine is None:
      yield from found
    else:
      yield from self._refine((i, source.example(i)['image'], soft) for i, soft in found)


def write_for_server(out: Path, source: info.Source) -> None:
  """Writes `<out>/voc_server/<split>/results/...` and, of the same files, `<split>.tar.gz`."""
  server = out / 'voc_server'
  members = []
  for name in source.ids:
    file = server / source.split / SERVER_PATH / f'{name}.png'
    content = per_image.image_path(out, source.split, name).read_bytes()
    atomic.write(file, lambda stream, content=content: stream.write(content))
    members.append((f'{SERVER_PATH}/{name}.png', file))
  archives.write_tar_gz(server / f'{source.split}.tar.gz', members)


def _check(context: Context) -> None:
  if 'segmentation' in context.inputs:
    dataset = context.train.info
    model = segmentation.build(context.config.segmentation, dataset.num_classes)
    networks.load(model, dataset, context.inputs['segmentation'])


def faults(config: PredictionsConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = crf_lib.faults('predictions.crf', config.crf)
  found += settings.inference_faults('predictions', config)
  if not config.splits:
    found.append('predictions.splits is empty; name one or more splits')
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  del source
  ours = config.predictions
  refined = f', CRF of {ours.crf.steps} steps' if ours.crf.steps else ''
  scales = ', '.join(f'{scale:g}' for scale in ours.scales)
  return f'{" and ".join(ours.splits)}, scales {scales}{refined}'


STAGE = stage.Stage(
  name='predictions',
  config=PredictionsConfig,
  title='Predictions',
  run=run,
  describe=_describe,
  needs=lambda config: ('segmentation',),
  reads=lambda config: ('predictions', 'segmentation.model', 'segmentation.head'),
  check=_check,
  faults=lambda config: faults(config.predictions),
  splits=lambda config: config.predictions.splits,
  work=_work,
  scores=(
    stage.Score(
      'predictions', 'Predictions', scores.score_predictions, headline=True, everything=True
    ),
  ),
  figures=label_maps.predictions,
  sample=label_maps.prediction_view,
  programs=_programs,
  disk=lambda pixels, maps: pixels * stage.MASK_RATE,
)
