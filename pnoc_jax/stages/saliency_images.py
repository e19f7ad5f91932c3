"""What the stage `saliency` does with images: normalise, measure, infer."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import multi_scale, per_image, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import images
from pnoc_jax.metrics import saliency as saliency_metrics
from pnoc_jax.metrics import segmentation
from pnoc_jax.nn import backbones
from pnoc_jax.nn import poolnet as saliency_net
from pnoc_jax.ops import normalize
from pnoc_jax.parallel import arrays, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import poolnet as predict
from pnoc_jax.stages.common import maps
from pnoc_jax.types import Array, Variables


def colours(config, dataset: info.DatasetInfo) -> info.DatasetInfo:
  """The data set's facts with the mean and deviation of colours that the backbone wants."""
  row = backbones.info(config.model.backbone)
  if row.mean is None or row.std is None:
    return dataset
  return dataclasses.replace(dataset, mean=row.mean, std=row.std)


def tiny_images(config, source: info.Source) -> list[int]:
  """Indices of the images with a side of `tiny` or fewer pixels."""
  return [i for i in range(len(source)) if min(source.size(i)) <= config.tiny]


def make_prepare(dataset: info.DatasetInfo, *, whole: bool) -> Callable[[dict], dict]:
  """Makes the first operation on the device.

  Args:
    dataset: mean and deviation of its colours.
    whole: whether every image fills its square: then nothing needs a mask.

  Returns:
    A batch of 'image' u8[B, S, S, 3], 'box' and 'target' u8[B, S, S], to one of normalised images
    and targets f32[B, S, S] in [0, 1], at the top left, and 'valid' bool[B, S, S].
  """

  def prepare(batch: dict[str, Array]) -> dict[str, Array]:
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


def make_measure(
  model: saliency_net.PoolNet,
  source: info.Source,
  config,
  runtime: Runtime,
) -> Callable[[Variables], dict[str, float]]:
  """Makes the measurement during training: 2-class IoU at 0.5 of the images' central squares.

  It informs people and chooses nothing.

  Args:
    model: the network.
    source: the images, with masks.
    config: how much of them, at what size.
    runtime: where to run.

  Returns:
    variables -> metrics named `eval/...`, in percent.
  """
  dataset = colours(config, source.info)
  devices = runtime.local_mesh.size
  batch_size = -(-min(config.inference.batch_size, len(source)) // devices) * devices

  def forward(variables, image, box):
    image = normalize.normalize(image, box, mean=dataset.mean, std=dataset.std)
    return model.apply(variables, image, train=False) > 0

  forward = compiler.jit(forward, runtime.local_mesh, batch_args=(1, 2), outs=sharding.Layout.BATCH)

  def measure(variables: Variables) -> dict[str, float]:
    local = arrays.replicate(arrays.to_host(variables), runtime.local_mesh)
    found = segmentation.init_confusion(2)
    stream = pipeline.valid_batches(
      source,
      size=config.eval_size,
      squeeze=config.transform.squeezes,
      batch_size=batch_size,
    )
    with stream:
      for number, batch in enumerate(stream):
        if config.eval_batches and number >= config.eval_batches:
          break
        placed = arrays.to_global(
          {name: batch[name] for name in ('image', 'box')}, runtime.local_mesh
        )
        salient = np.asarray(forward(local, placed['image'], placed['box']))
        for row in np.flatnonzero(batch['weight'] > 0):
          target = saliency_metrics.binary_target(batch['mask'][row])
          found += segmentation.confuse(salient[row].astype(np.uint8), target, num_classes=2)
    score = segmentation.score(found.counts, saliency_metrics.CLASSES)
    return {f'eval/{name}': score[name] for name in ('miou', 'miou_fg')}

  return measure


@dataclasses.dataclass(frozen=True)
class _Shapes:
  """How images of one kind are inferred; see `multi_scale.Config`."""

  scales: tuple[float, ...]
  batch_size: int
  multiple: int
  max_buckets: int
  resize_to: int = 0


def make_inferences(
  config,
  model: saliency_net.PoolNet,
  variables: Variables,
  dataset: info.DatasetInfo,
  runtime: Runtime,
) -> dict[float, multi_scale.Inference]:
  """Makes the inference at each scale: images are taken as they are, tiny ones at twice their size.

  Args:
    config: of the stage.
    model: the network.
    variables: its variables.
    dataset: whose images these are.
    runtime: where to run.
  """
  variables = arrays.replicate(variables, runtime.local_mesh)

  def fuse(found, sizes, native, context, *, shape):
    del context
    return predict.fuse_maps(found, sizes, native, shape=shape)

  return {
    scale: multi_scale.Inference(
      lambda *arguments: predict.scale_map(model, *arguments),
      fuse,
      variables,
      colours(config, dataset),
      _Shapes((scale,), **settings.as_dict(config.inference)),
      runtime,
    )
    for scale in (1.0, 2.0)
  }


def infer(
  inferences: dict[float, multi_scale.Inference],
  config,
  source: info.Source,
  out: Path,
  runtime: Runtime,
) -> int:
  """Writes the maps of a split; returns how many."""
  # Differs from the reference: COCO's images below 224 px are not padded to that; because the mask
  # of what is image makes small shapes safe, and padding that the network sees changes its maps.
  doubled = set(tiny_images(config, source))

  def path(name: str) -> Path:
    return per_image.image_path(out, source.split, name)

  def results(indices: Sequence[int]) -> Iterator[per_image.Result]:
    for scale, inference in inferences.items():
      chosen = [i for i in indices if (i in doubled) == (scale == 2.0)]
      if not chosen:
        continue
      for index, (height, width), found in inference(source, chosen):
        grey = np.round(255 * found[:height, :width]).astype(np.uint8)
        yield index, lambda index=index, grey=grey: images.write_png(path(source.ids[index]), grey)

  return per_image.make(
    runtime,
    source,
    what=f'saliency of {source.split}',
    among=range(len(source)),
    exists=lambda name: maps.exists_png(path(name)),
    results=results,
  )
