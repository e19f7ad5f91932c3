"""Stage `priors`: class activation priors of every image, from the generator's maps."""

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np

from pnoc_jax.data import buckets, info
from pnoc_jax.io import products
from pnoc_jax.ops import normalize
from pnoc_jax.parallel import arrays, hosts, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import cams
from pnoc_jax.stages import networks, settings, stage
from pnoc_jax.training import log, loop


@dataclasses.dataclass(slots=True)
class PriorsConfig:
  """Inference of the priors.

  Attributes:
    splits: the splits to infer.
    scales: factors on the image's size; their maps are summed.
    flip: also infer the mirror image.
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most, for each scale.
  """

  splits: tuple[str, ...] = ('train', 'val')
  scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
  flip: bool = True
  batch_size: int = settings.field(8, product=False)
  multiple: int = settings.field(32, product=False)
  max_buckets: int = settings.field(4, product=False)


def product_path(directory: Path, split: str, name: str) -> Path:
  """Where the priors of the image `name` lie in the stage's directory."""
  return directory / split / f'{name}.npz'


def run(config, inputs: dict[str, Path], out: Path, runtime: stage.Runtime) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.npz` of every labelled image; skips those that are there."""
  ours, model_config = config.priors, config.generator.model
  inference, images, start = None, 0, time.monotonic()
  for split in ours.splits:
    source = runtime.source(config.dataset, split)
    if inference is None:
      model = networks.build(model_config, source.info.num_classes)
      variables = networks.load(model, source.info, inputs['generator'])
      inference = _Inference(
        model, variables, source.info, ours, networks.stride(model_config), runtime
      )
    todo = [
      i
      for i in np.flatnonzero(source.labels.any(axis=1))
      if not products.exists_complete(product_path(out, split, source.ids[i]))
    ]
    labelled = int(source.labels.any(axis=1).sum())
    mine = todo[hosts.process_index() :: hosts.process_count()]
    with log.Progress(labelled, f'priors of {split}', done=labelled - len(mine)) as progress:
      for index, arguments in inference(source, mine):
        products.write_prior(product_path(out, split, source.ids[index]), **arguments)
        progress.advance()
        images += 1
        if runtime.should_stop():
          raise loop.Interrupted(images, 'every prior so far is kept')
    hosts.barrier(f'priors/{split}')
  # This process's share of this call.
  return {'images': images, 'images_per_second': images / (time.monotonic() - start)}


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: stage.Runtime) -> None:
  del runtime
  if 'generator' in inputs:
    model = networks.build(config.generator.model, source.info.num_classes)
    networks.load(model, source.info, inputs['generator'])


class _Inference:
  """Compiled inference; a new image size compiles nothing once its bucket has been seen."""

  def __init__(self, model, variables, dataset, config, output_stride, runtime):
    self._config = config
    self._output_stride = output_stride
    self._mesh = runtime.local_mesh
    self._workers = runtime.config.workers
    self._variables = arrays.replicate(variables, self._mesh)

    def maps(variables, image, box):
      image = normalize.normalize(image, box, mean=dataset.mean, std=dataset.std)
      return cams.scale_cams(
        model, variables, image, box[:, 2:], output_stride=output_stride, flip=config.flip
      )

    batch = sharding.Layout.BATCH
    self._maps = compiler.jit(maps, self._mesh, batch_args=(1, 2), outs=batch)
    self._fuse = {}

  def _fused(self, shape, *arguments):
    if shape not in self._fuse:

      def fuse(maps, sizes, native, classes):
        return cams.fuse_cams(
          maps, sizes, native, classes, output_stride=self._output_stride, shape=shape
        )

      self._fuse[shape] = compiler.jit(
        fuse, self._mesh, batch_args=(0, 1, 2, 3), outs=sharding.Layout.BATCH
      )
    return self._fuse[shape](*arguments)

  def __call__(self, source: info.Source, indices: list[int]):
    """Yields (index, arguments of `products.write_prior`) of each image."""
    if not len(indices):
      return
    config, devices = self._config, self._mesh.size
    plan = buckets.plan_buckets(
      [source.size(i) for i in range(len(source))],
      multiple=config.multiple,
      max_buckets=config.max_buckets,
    )
    batches = buckets.multi_scale_batches(
      source,
      indices,
      scales=config.scales,
      batch_size=-(-config.batch_size // devices) * devices,
      buckets=plan,
      multiple=config.multiple,
      workers=self._workers,
    )
    for batch in batches:
      yield from self._batch(source, batch)

  def _batch(self, source: info.Source, batch):
    index, native = batch['index'], batch['size']
    maps, sizes, logits = [], [], None
    for number, scale in enumerate(self._config.scales):
      placed = arrays.to_global(
        {'image': batch['images'][number], 'box': batch['boxes'][number]}, self._mesh
      )
      grid, scores = self._maps(self._variables, placed['image'], placed['box'])
      maps.append(grid)
      sizes.append(batch['boxes'][number][:, 2:])
      if logits is None or scale == 1.0:
        logits = scores
    classes = _present(source.labels[index])
    shape = tuple(batch['bucket'])
    low, high = self._fused(
      shape,
      maps,
      [arrays.to_global({'x': size}, self._mesh)['x'] for size in sizes],
      *arrays.to_global({'native': native, 'classes': classes}, self._mesh).values(),
    )
    low, high, logits = jax.device_get((low, high, logits))
    for row in np.flatnonzero(batch['weight'] > 0):
      (height, width), found = native[row], np.flatnonzero(source.labels[index[row]])
      yield (
        int(index[row]),
        {
          'keys': np.concatenate([[0], found + 1]).astype(np.int32),
          'low': np.moveaxis(
            low[row, : -(-height // 4), : -(-width // 4), : len(found)], -1, 0
          ).astype(np.float32),
          'high': np.moveaxis(high[row, :height, :width, : len(found)], -1, 0).astype(np.float16),
          'logits': logits[row].astype(np.float32),
        },
      )


def _present(labels: np.ndarray) -> np.ndarray:
  """i32[B, P]: each image's classes, filled up with class 0 to a power of two."""
  most = max(int((labels > 0).sum(axis=1).max()), 1)
  width = min(1 << (most - 1).bit_length(), labels.shape[1])
  classes = np.zeros((len(labels), width), np.int32)
  for row, label in enumerate(labels):
    found = np.flatnonzero(label)
    classes[row, : len(found)] = found
  return classes


STAGE = stage.Stage(
  name='priors',
  needs=lambda config: ('generator',),
  settings=lambda config: {'priors': config.priors, 'generator.model': config.generator.model},
  run=run,
  describe=lambda config, source: (
    f'{" and ".join(config.priors.splits)}, scales '
    + ', '.join(f'{scale:g}' for scale in config.priors.scales)
  ),
)
