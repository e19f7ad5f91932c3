"""Stage `saliency_priors`: C2AM's maps of every image, and the binary masks that they become."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_stage
from pnoc_jax.engine import multi_scale, per_image, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import images
from pnoc_jax.predict import c2am as saliency
from pnoc_jax.stages import c2am
from pnoc_jax.stages.common import maps, stage

MAPS = 'maps'
"""The directory, within the stage's, of the maps before they are masks."""


@dataclasses.dataclass(slots=True)
class SaliencyPriorsConfig:
  """Inference of C2AM's maps, and their masks.

  Attributes:
    scales: factors on the image's size; their maps are averaged.
    resize_to: side of a square that images are squeezed to before they are scaled; 0 for none.
    flip: also infer the mirror image.
    activation: what a logit contributes to the map.
    threshold: theta, the background's constant map: what is above it is foreground.
    crf: the dense CRF that follows.
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most, for each scale.
  """

  scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
  resize_to: int = 0
  flip: bool = True
  activation: saliency.Activation = saliency.Activation.RELU
  threshold: float = 0.2
  crf: crf_stage.CrfConfig = dataclasses.field(default_factory=crf_stage.CrfConfig)
  batch_size: int = settings.field(8, product=False)
  multiple: int = settings.field(32, product=False)
  max_buckets: int = settings.field(4, product=False)


def faults(config: SaliencyPriorsConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = crf_stage.faults('saliency_priors.crf', config.crf)
  found += multi_scale.faults('saliency_priors', config)
  if not 0 <= config.threshold < 1:
    found.append(f'saliency_priors.threshold is {config.threshold}; it lies in [0, 1)')
  return found


def map_path(directory: Path, split: str, name: str) -> Path:
  """Where the map of the image `name` lies in the stage's directory."""
  return per_image.image_path(directory / MAPS, split, name)


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
  """Writes `<out>/maps/<split>/<id>.png` of labelled images, `<out>/<split>/<id>.png` of all."""
  ours, count, start = config.saliency_priors, 0, time.monotonic()
  sources = [runtime.source(config.dataset, split) for split in config.priors.splits]
  inference = _make_inference(config, sources[0].info, inputs['c2am'], runtime)
  # One for all splits: they share its programs.
  sizes = [source.size(i) for source in sources for i in range(len(source))]
  refine = crf_stage.LabelCrf(ours.crf, runtime, sizes)
  for source in sources:
    labelled = np.flatnonzero(source.labels.any(axis=1))
    for directory in (out / MAPS / source.split, out / source.split):
      directory.mkdir(parents=True, exist_ok=True)
    count += _make_maps(inference, source, labelled, out, runtime)
    _make_masks(refine, ours.threshold, source, labelled, out, runtime)
  # Of this process, in this call; what it found done took no time.
  return {'images': count, 'images_per_second': count / (time.monotonic() - start)}


def _make_inference(
  config, dataset: info.DatasetInfo, directory: Path, runtime: Runtime
) -> multi_scale.Inference:
  ours = config.saliency_priors
  model, variables, inverted = c2am.load(config.c2am, dataset, directory)
  output_stride = c2am.stride(config.c2am)

  def scale(variables, image, size):
    return saliency.scale_map(
      model,
      variables,
      image,
      size,
      output_stride=output_stride,
      activation=ours.activation,
      inverted=inverted,
      flip=ours.flip,
    )

  def fuse(found, sizes, native, context, *, shape):
    del context
    return saliency.fuse_maps(found, sizes, native, output_stride=output_stride, shape=shape)

  return multi_scale.Inference(scale, fuse, variables, dataset, ours, runtime)


def _make_maps(inference, source: info.Source, labelled, out: Path, runtime) -> int:
  def path(name: str) -> Path:
    return map_path(out, source.split, name)

  def results(indices: Sequence[int]) -> Iterator[per_image.Result]:
    for index, (height, width), found in inference(source, indices):
      array = np.round(255 * found[:height, :width]).astype(np.uint8)
      yield index, lambda index=index, array=array: images.write_png(path(source.ids[index]), array)

  return per_image.make(
    runtime,
    source,
    what=f'saliency maps of {source.split}',
    among=labelled,
    exists=lambda name: maps.exists_png(path(name)),
    results=results,
  )


def _make_masks(
  refine: crf_stage.LabelCrf, threshold: float, source: info.Source, labelled, out: Path, runtime
) -> int:
  """Makes masks of the maps as they were written, so that it does not matter when."""
  known = set(labelled.tolist())

  def path(index: int) -> Path:
    return per_image.image_path(out, source.split, source.ids[index])

  def items(indices: Sequence[int]):
    for index in indices:
      found = images.read_mask(map_path(out, source.split, source.ids[index]))
      yield index, source.example(index)['image'], foreground(found, threshold), 2

  def masks(indices: Sequence[int]):
    for index in indices:
      if index not in known:  # Without a class there is no foreground.
        yield index, np.zeros(source.size(index), np.int32)
    yield from refine(items([i for i in indices if i in known]))

  def results(indices: Sequence[int]) -> Iterator[per_image.Result]:
    for index, mask in masks(indices):
      array = (255 * mask).astype(np.uint8)
      yield index, lambda index=index, array=array: images.write_png(path(index), array)

  return per_image.make(
    runtime,
    source,
    what=f'saliency masks of {source.split}',
    among=range(len(source)),
    exists=lambda name: maps.exists_png(per_image.image_path(out, source.split, name)),
    results=results,
  )


def foreground(array: np.ndarray, threshold: float) -> np.ndarray:
  """Labels u8[H, W] of a map u8[H, W]: 1 above the background's constant map, else 0."""
  return (array.astype(np.float32) / 255 > np.float32(threshold)).astype(np.uint8)


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  del runtime
  if 'c2am' in inputs:
    c2am.load(config.c2am, source.info, inputs['c2am'])


def _describe(config, source: info.Source) -> str:
  del source
  ours = config.saliency_priors
  scales = ', '.join(f'{scale:g}' for scale in ours.scales)
  return (
    f'{" and ".join(config.priors.splits)}, scales {scales}; foreground above {ours.threshold:g}, '
    f'dense CRF of {ours.crf.steps} steps'
  )


STAGE = stage.Stage(
  name='saliency_priors',
  needs=lambda config: ('c2am',),
  settings=lambda config: {
    'saliency_priors': config.saliency_priors,
    'priors.splits': config.priors.splits,
    'c2am.model': config.c2am.model,
    'c2am.features': config.c2am.features,
  },
  run=run,
  describe=_describe,
  check=_check,
)
