"""Stage `priors`: class activation priors of every image, from the generator's maps."""

import dataclasses
import enum
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import multi_scale, networks, per_image, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import products
from pnoc_jax.predict import cams
from pnoc_jax.predict import lpcam as lpcam_inference
from pnoc_jax.stages import lpcam as lpcam_stage
from pnoc_jax.stages.common import stage


class Maps(enum.Enum):
  """What the priors are made of."""

  CAM = 'cam'
  """The network's class activation maps."""
  LPCAM = 'lpcam'
  """Cosines of its features with prototypes of the classes (`ops.lpcam`)."""


@dataclasses.dataclass(slots=True)
class PriorsConfig:
  """Inference of the priors.

  Attributes:
    splits: the splits to infer.
    scales: factors on the image's size; their maps are summed.
    resize_to: side of a square that images are squeezed to before they are scaled; 0 for none.
    flip: also infer the mirror image.
    maps: what the priors are made of.
    lpcam: the prototypes of LPCAM.
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most, for each scale.
  """

  splits: tuple[str, ...] = ('train', 'val')
  scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
  resize_to: int = 0
  flip: bool = True
  maps: Maps = Maps.CAM
  lpcam: lpcam_stage.LpcamConfig = dataclasses.field(default_factory=lpcam_stage.LpcamConfig)
  batch_size: int = settings.field(8, product=False)
  multiple: int = settings.field(32, product=False)
  max_buckets: int = settings.field(4, product=False)


def faults(config: PriorsConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = multi_scale.faults('priors', config) + lpcam_stage.faults(config.lpcam)
  if not config.splits:
    found.append('priors.splits is empty; name one or more splits')
  return found


def product_path(directory: Path, split: str, name: str) -> Path:
  """Where the priors of the image `name` lie in the stage's directory."""
  return per_image.image_path(directory, split, name, '.npz')


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.npz` of every labelled image; skips those that are there."""
  ours, model_config = config.priors, config.generator.model
  inference, images, start = None, 0, time.monotonic()
  for split in ours.splits:
    source = runtime.source(config.dataset, split)
    if inference is None:
      model = networks.build(model_config, source.info.num_classes)
      variables = networks.load(model, source.info, inputs['generator'])
      if ours.maps is Maps.LPCAM:
        variables |= {'lpcam': {'vectors': _lpcam_vectors(config, model, variables, out, runtime)}}
      inference = _make_inference(
        model, variables, source.info, ours, networks.stride(model_config), runtime
      )

    def results(indices, source=source, split=split, inference=inference):
      for index, arguments in _infer(inference, source, indices):
        path = product_path(out, split, source.ids[index])
        yield index, lambda path=path, found=arguments: products.write_prior(path, **found)

    images += per_image.make(
      runtime,
      source,
      what=f'priors of {split}',
      among=np.flatnonzero(source.labels.any(axis=1)),
      exists=lambda name, split=split: products.exists_complete(product_path(out, split, name)),
      results=results,
    )
  # This process's share of this call.
  return {'images': images, 'images_per_second': images / (time.monotonic() - start)}


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  del runtime
  if 'generator' in inputs:
    model = networks.build(config.generator.model, source.info.num_classes)
    networks.load(model, source.info, inputs['generator'])


def _lpcam_vectors(config, model, variables, out: Path, runtime: Runtime) -> np.ndarray:
  return lpcam_stage.make_vectors(
    model,
    variables,
    config.priors,
    runtime.source(config.dataset, config.dataset.train_split),
    out,
    runtime,
    output_stride=networks.stride(config.generator.model),
    seed=config.seed,
  )


def _make_inference(model, variables, dataset, config, output_stride: int, runtime):
  """Makes the inference of `fuse_cams`' two maps and of the logits."""
  unscaled = config.scales.index(1.0) if 1.0 in config.scales else 0
  infer = lpcam_inference.scale_lpcams if config.maps is Maps.LPCAM else cams.scale_cams

  def scale(variables, image, size):
    return infer(model, variables, image, size, output_stride=output_stride, flip=config.flip)

  def fuse(results, sizes, native, context, *, shape):
    maps, logits = zip(*results, strict=True)
    low, high = cams.fuse_cams(
      maps, sizes, native, context['classes'], output_stride=output_stride, shape=shape
    )
    return low, high, logits[unscaled]

  return multi_scale.Inference(scale, fuse, variables, dataset, config, runtime)


def _infer(inference: multi_scale.Inference, source: info.Source, indices: Sequence[int]):
  """Yields (index, arguments of `products.write_prior`) of each image."""
  found = inference(
    source, indices, context=lambda x: {'classes': multi_scale.present(source.labels[x])}
  )
  for index, (height, width), (low, high, logits) in found:
    present = np.flatnonzero(source.labels[index])
    low = low[: -(-height // 4), : -(-width // 4), : len(present)]
    high = high[:height, :width, : len(present)]
    yield (
      index,
      {
        'keys': np.concatenate([[0], present + 1]).astype(np.int32),
        'low': np.moveaxis(low, -1, 0).astype(np.float32),
        'high': np.moveaxis(high, -1, 0).astype(np.float16),
        'logits': logits.astype(np.float32),
      },
    )


STAGE = stage.Stage(
  name='priors',
  needs=lambda config: ('generator',),
  settings=lambda config: {'priors': config.priors, 'generator.model': config.generator.model},
  run=run,
  describe=lambda config, source: (
    f'{" and ".join(config.priors.splits)}, scales '
    + ', '.join(f'{scale:g}' for scale in config.priors.scales)
  ),
  check=_check,
)
