"""Stage `predictions`: the segmentation network's label map of every image."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_stage
from pnoc_jax.engine import multi_scale, networks, per_image, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import archives, atomic
from pnoc_jax.ops import crf as crf_ops
from pnoc_jax.parallel import hosts
from pnoc_jax.predict import segmentation as predict
from pnoc_jax.stages import segmentation
from pnoc_jax.stages.common import maps, stage

SERVER_PATH = 'results/VOC2012/Segmentation/comp5_test_cls'
"""Where the VOC evaluation server looks for label maps, in an archive."""


@dataclasses.dataclass(slots=True)
class PredictionsConfig:
  """Inference of the segmentation network.

  Attributes:
    splits: the splits to segment, all images of them.
    scales: factors on the image's size; their logits are averaged.
    resize_to: side of a square that images are squeezed to before they are scaled; 0 for none.
    flip: also segment the mirror image.
    crf: refines the probabilities. By default there is none; the released code refines with the
      kernels that stand here, in 10 steps.
    voc_server: also write what the VOC evaluation server takes, `<split>.tar.gz`, and the same
      folders unpacked.
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most, for each scale.
  """

  splits: tuple[str, ...] = ('val',)
  scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
  resize_to: int = 0
  flip: bool = True
  crf: crf_stage.CrfConfig = dataclasses.field(
    default_factory=lambda: crf_stage.CrfConfig(
      steps=0, **dataclasses.asdict(crf_ops.PROBABILITIES)
    )
  )
  voc_server: bool = False
  batch_size: int = settings.field(8, product=False)
  multiple: int = settings.field(32, product=False)
  max_buckets: int = settings.field(4, product=False)


def faults(config: PredictionsConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = crf_stage.faults('predictions.crf', config.crf)
  found += multi_scale.faults('predictions', config)
  if not config.splits:
    found.append('predictions.splits is empty; name one or more splits')
  return found


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.png` of every image; keeps what is there."""
  ours, made, start = config.predictions, 0, time.monotonic()
  sources = [runtime.source(config.dataset, split) for split in ours.splits]
  dataset = sources[0].info
  model = segmentation.build(config.segmentation, dataset.num_classes)
  variables = networks.load(model, dataset, inputs['segmentation'])
  # One for all splits: they share its programs.
  sizes = [source.size(i) for source in sources for i in range(len(source))]
  segment = Segmenter(model, variables, dataset, ours, runtime, sizes=sizes)
  for source in sources:

    def path(name: str, split=source.split) -> Path:
      return per_image.image_path(out, split, name)

    def results(indices, source=source, path=path) -> Iterator[per_image.Result]:
      for index, labels in segment(source, indices):
        target = path(source.ids[index])
        yield index, functools.partial(maps.write_labels, target, labels, source.info)

    made += per_image.make(
      runtime,
      source,
      what=f'predictions of {source.split}',
      among=range(len(source)),
      exists=lambda name, path=path: maps.exists_png(path(name)),
      results=results,
    )
    if ours.voc_server and hosts.is_main():
      write_for_server(out, source)
  hosts.barrier('predictions/server')
  # This process's share of this call.
  return {'images': made, 'images_per_second': made / (time.monotonic() - start)}


class Segmenter:
  """Compiled segmentation of any images; a new size compiles nothing in a bucket that was seen."""

  def __init__(
    self,
    model,
    variables,
    dataset: info.DatasetInfo,
    config,
    runtime: Runtime,
    *,
    sizes: Sequence[tuple[int, int]],
  ):
    """Binds the network; compiles nothing.

    Args:
      model: the network.
      variables: its variables.
      dataset: its classes and normalisation.
      config: a `PredictionsConfig`.
      runtime: where to run.
      sizes: (H, W) of all images that may come.
    """
    self._refine = None
    if config.crf.steps:
      self._refine = crf_stage.SoftmaxCrf(config.crf, runtime, sizes)

    def scale(variables, image, size):
      return predict.scale_logits(model, variables, image, size, flip=config.flip)

    def fuse(parts, sizes, native, context, *, shape):
      del context
      logits = predict.fuse_logits(parts, sizes, native, shape=shape)
      if config.crf.steps:
        return jax.nn.softmax(logits)
      return jnp.argmax(logits, -1).astype(jnp.uint8)

    self._infer = multi_scale.Inference(scale, fuse, variables, dataset, config, runtime)

  def __call__(self, source: info.Source, indices: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index, labels of 0..K, int[H, W]) of the images of these indices, in any order."""
    found = (
      (index, result[:height, :width])
      for index, (height, width), result in self._infer(source, indices)
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


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  del runtime
  if 'segmentation' in inputs:
    model = segmentation.build(config.segmentation, source.info.num_classes)
    networks.load(model, source.info, inputs['segmentation'])


def _describe(config, source: info.Source) -> str:
  del source
  ours = config.predictions
  refined = f', CRF of {ours.crf.steps} steps' if ours.crf.steps else ''
  scales = ', '.join(f'{scale:g}' for scale in ours.scales)
  return f'{" and ".join(ours.splits)}, scales {scales}{refined}'


STAGE = stage.Stage(
  name='predictions',
  needs=lambda config: ('segmentation',),
  settings=lambda config: {
    'predictions': config.predictions,
    'segmentation.model': config.segmentation.model,
    'segmentation.head': config.segmentation.head,
  },
  run=run,
  describe=_describe,
  check=_check,
)
