"""Stage `random_walk`: priors spread within edges; made for every image that has priors."""

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import buckets
from pnoc_jax.engine import multi_scale, networks, per_image, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import images, products
from pnoc_jax.ops import normalize
from pnoc_jax.parallel import arrays, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import edges
from pnoc_jax.stages import affinity
from pnoc_jax.stages.common import maps, stage

_BATCH = sharding.Layout.BATCH


@dataclasses.dataclass(slots=True)
class RandomWalkConfig:
  """The walk of the priors; its defaults are the reference's.

  Attributes:
    radius: the walk steps to cells closer than this; a cell is 4 px.
    beta: exponent of the affinities.
    exp_times: binary logarithm of the number of steps.
    flip: average the edges with those of the mirror image.
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most.
  """

  radius: int = 5
  beta: float = 10.0
  exp_times: int = 8
  flip: bool = True
  batch_size: int = settings.field(8, product=False)
  multiple: int = settings.field(32, product=False)
  max_buckets: int = settings.field(4, product=False)


def faults(config: RandomWalkConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = multi_scale.faults('random_walk', config)
  if config.radius < 2:
    found.append(f'random_walk.radius is {config.radius}; from 2 on a cell has a neighbour')
  if config.beta <= 0:
    found.append(f'random_walk.beta is {config.beta}; it is positive')
  if not 0 <= config.exp_times <= 16:
    found.append(f'random_walk.exp_times is {config.exp_times}; it lies in 0..16')
  return found


def product_path(directory: Path, split: str, name: str) -> Path:
  """Where the walk of the image `name` lies in the stage's directory."""
  return per_image.image_path(directory, split, name, '.npz')


def edge_path(directory: Path, split: str, name: str) -> Path:
  """Where the image's edges lie, to look at: grey, 255 for an edge, a pixel a cell."""
  return per_image.image_path(directory / 'edges', split, name)


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.npz` of every labelled image; skips those that are there."""
  inference, count, start = None, 0, time.monotonic()
  for split in config.priors.splits:
    source = runtime.source(config.dataset, split)
    if inference is None:
      model = affinity.build(config.affinity)
      variables = networks.load(model, source.info, inputs['affinity'])
      inference = _Inference(model, variables, source.info, config, runtime)
    (out / 'edges' / split).mkdir(parents=True, exist_ok=True)

    def results(indices, source=source, split=split, inference=inference):
      for index, edge, product in inference(source, indices, inputs['priors'] / split):
        name = source.ids[index]
        yield index, functools.partial(_write, out, split, name, edge, product)

    count += per_image.make(
      runtime,
      source,
      what=f'random walk of {split}',
      among=np.flatnonzero(source.labels.any(axis=1)),
      exists=lambda name, split=split: products.exists_walk(product_path(out, split, name)),
      results=results,
    )
  # This process's share of this call.
  return {'images': count, 'images_per_second': count / (time.monotonic() - start)}


def _write(out: Path, split: str, name: str, edge: np.ndarray, product: products.Walk) -> None:
  images.write_png(edge_path(out, split, name), edge)
  # Last: that it is there says that the image is done.
  products.write_walk(product_path(out, split, name), *product)


class _Inference:
  """Compiled inference; a new image size compiles nothing once its bucket has been seen."""

  def __init__(self, model, variables, dataset, config, runtime):
    ours = config.random_walk
    self._config = ours
    self._mesh = runtime.local_mesh
    self._workers = runtime.config.workers
    self._variables = arrays.replicate(variables, self._mesh)
    stride = affinity.stride(config.affinity)

    def find_edges(variables, image, box):
      image = normalize.normalize(image, box, mean=dataset.mean, std=dataset.std)
      return edges.edges(model, variables, image, box[:, 2:], stride=stride, flip=ours.flip)

    self._edges = compiler.jit(find_edges, self._mesh, batch_args=(1, 2), outs=_BATCH)

    @functools.cache
    def walk(shape):
      walk = functools.partial(
        edges.walk,
        stride=stride,
        shape=shape,
        radius=ours.radius,
        beta=ours.beta,
        exp_times=ours.exp_times,
      )
      return compiler.jit(walk, self._mesh, batch_args=(0, 1, 2), outs=_BATCH)

    self._walk = walk
    self._stride = stride

  def __call__(
    self, source: info.Source, indices: list[int], directory: Path
  ) -> Iterator[tuple[int, np.ndarray, products.Walk]]:
    """Yields (index, edges u8[h, w], walk) of each image, with the priors of `directory`."""
    config, devices = self._config, self._mesh.size
    batches = buckets.multi_scale_batches(
      source,
      indices,
      scales=(1.0,),
      batch_size=-(-config.batch_size // devices) * devices,
      buckets=buckets.plan_buckets(
        [source.size(i) for i in range(len(source))],
        multiple=config.multiple,
        max_buckets=config.max_buckets,
      ),
      multiple=config.multiple,
      workers=self._workers,
    )
    # The next batch is under way on the device while this one is fetched and written.
    waiting = None
    with batches:
      for batch in batches:
        started = self._start(source, batch, directory)
        if waiting is not None:
          yield from self._finish(*waiting)
        waiting = started
    if waiting is not None:
      yield from self._finish(*waiting)

  def _start(self, source, batch, directory):
    found = [_read(source, index, directory) for index in batch['index']]
    placed = arrays.to_global(
      {
        'image': batch['images'][0],
        'box': batch['boxes'][0],
        'size': batch['size'],
        'low': _stack([prior.low for prior in found], batch['bucket']),
      },
      self._mesh,
    )
    edge = self._edges(self._variables, placed['image'], placed['box'])
    walk = self._walk(tuple(batch['bucket']))(placed['low'], edge, placed['size'])
    return batch, [prior.keys for prior in found], edge, walk

  def _finish(self, batch, keys, edge, walk):
    edge, walk = jax.device_get((edge, walk))
    for row in np.flatnonzero(batch['weight'] > 0):
      height, width = batch['size'][row]
      cells = -(-height // self._stride), -(-width // self._stride)
      maps = np.moveaxis(walk[row, :height, :width, : len(keys[row]) - 1], -1, 0)
      yield (
        int(batch['index'][row]),
        np.round(255 * edge[row, : cells[0], : cells[1]]).astype(np.uint8),
        products.Walk(keys[row], maps.astype(np.float16)),
      )


def _read(source: info.Source, index: int, directory: Path) -> products.Prior:
  return products.read_prior(
    directory / f'{source.ids[index]}.npz',
    size=source.size(index),
    num_classes=source.info.num_classes,
    arrays=('low',),
  )


def _stack(maps: list[np.ndarray], bucket: tuple[int, int]) -> np.ndarray:
  """f32[B, h, w, P]: maps in the top-left corner, classes filled up to a power of two."""
  most = max(map(len, maps))
  stacked = np.zeros(
    (len(maps), *(-(-n // products.STRIDE) for n in bucket), 1 << (most - 1).bit_length()),
    np.float32,
  )
  for row, x in enumerate(maps):
    stacked[row, : x.shape[1], : x.shape[2], : len(x)] = np.moveaxis(x, 0, -1)
  return stacked


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  if 'affinity' in inputs:
    networks.load(affinity.build(config.affinity), source.info, inputs['affinity'])
  for split in config.priors.splits:
    images = runtime.source(config.dataset, split)
    priors = maps.Evidence(images, inputs, scores=maps.Scores.PRIORS, saliency=maps.Saliency.NONE)
    priors.check(priors.labelled)


STAGE = stage.Stage(
  name='random_walk',
  needs=lambda config: ('priors', 'affinity'),
  settings=lambda config: {
    'random_walk': config.random_walk,
    'priors.splits': config.priors.splits,
    'affinity.model': config.affinity.model,
    'affinity.width': config.affinity.width,
  },
  run=run,
  describe=lambda config, source: (
    f'{" and ".join(config.priors.splits)}, radius {config.random_walk.radius}, '
    f'beta {config.random_walk.beta:g}, {2**config.random_walk.exp_times} steps'
  ),
  check=_check,
)
