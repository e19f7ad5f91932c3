"""Inference of a network on many images: in buckets, at several scales, on the local devices."""

import collections
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import buckets
from pnoc_jax.engine import memory, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.ops import normalize
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.types import Array, PyTree, Variables

_AT_MOST = 2000
"""Bytes to a pixel that no network here needs: images that fit with it are not looked at."""
_AHEAD = 5
"""Batches that are on the host at once: read ahead, in reading, and the one that is placed."""
_RESULTS = 3
"""Copies of a batch's results on the host: fetched, of the next batch, and as they are written."""


Images = Sequence[tuple[info.Source, Iterable[int]]]
"""Of each split, the source and the indices of the images wanted."""


class Grid(NamedTuple):
  """The images that the maps of all scales are joined on.

  Attributes:
    scaled: i32[B, 2] a scale, heights and widths of the scaled images.
    native: i32[B, 2], heights and widths of the original images.
    shape: (H, W) of the bucket that holds the original images; static.
    context: what else is known of the images, arrays [B, ...].
  """

  scaled: list[Array]
  native: Array
  shape: tuple[int, int]
  context: Mapping[str, Array]


class Network(NamedTuple):
  """What is inferred with.

  Attributes:
    scale: `(variables, image f32[B, H, W, C] normalised, its content's size i32[B, 2])` -> what one
      scale gives, arrays [B, ...].
    fuse: `(what each scale gave, grid)` -> arrays [B, ...].
    variables: the network's.
    dataset: mean and deviation of its images.
    context: (most classes of an image, (H, W) of a bucket) -> shapes of `Grid.context` of one
      image; for estimates.
  """

  scale: Callable[[Variables, Array, Array], PyTree]
  fuse: Callable[[list[Any], Grid], PyTree]
  variables: Variables
  dataset: info.DatasetInfo
  context: Callable[[int, tuple[int, int]], Mapping[str, Any]] = lambda classes, shape: {}


def work(
  network: Network,
  config: settings.InferenceConfig,
  images: memory.Images,
  *,
  scales: Sequence[float] | None = None,
) -> memory.Work:
  """Estimates what an inference holds of each image in work; compiles nothing.

  Args:
    network: what is inferred with; shapes will do for its variables.
    config: as of `Inference`.
    images: the largest one, and its classes.
    scales: as of `Inference`.
  """
  scales = tuple(scales or getattr(config, 'scales', (1.0,)))
  square, height, width = getattr(config, 'resize_to', 0), *images.largest
  shown = (square, square) if square else (height, width)
  pixels = [math.prod(_bucket(shown, scale, config)) for scale in scales]
  native, channels = _bucket((height, width), 1.0, config), len(network.dataset.mean)
  # Where little is needed, nothing is traced: networks take seconds.
  least = max(pixels) * _AT_MOST + math.prod(native) * 24 * images.classes
  device, made = least, math.prod(native) * 4 * images.classes
  read = _AHEAD * channels * sum(pixels)
  room = memory.SHARE * min(memory.device_bytes(), memory.host_bytes())
  if config.batch_size * (least + read + _RESULTS * made) > room:
    shape = (1, *_bucket(shown, max(scales), config), channels)
    image, box = jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct((1, 4), np.int32)
    size, scale = jax.ShapeDtypeStruct((1, 2), np.int32), _at_scale(network)
    found = jax.eval_shape(scale, network.variables, image, box)

    def fuse(found: PyTree, size: Array, context: Mapping[str, Array]) -> PyTree:
      count = len(scales)
      return network.fuse([found] * count, Grid([size] * count, size, native, context))

    context = network.context(images.classes, native)
    result = memory.tree_bytes(jax.eval_shape(fuse, found, size, context))
    forward = memory.forward_bytes(scale, network.variables, image, box)
    device = max(forward, memory.forward_bytes(fuse, found, size, context)) + result
    made = result
  return memory.Work('inference', device, read + _RESULTS * made, config.batch_size, images)


def _bucket(
  size: tuple[int, int], scale: float, config: settings.InferenceConfig
) -> tuple[int, int]:
  return buckets.scaled_bucket(size, scale, multiple=config.multiple)


def _at_scale(network: Network) -> Callable[[Variables, Array, Array], PyTree]:
  """`Network.scale` of images as they are read: u8[B, H, W, C], and boxes i32[B, 4]."""

  def scale(variables: Variables, image: Array, box: Array) -> PyTree:
    mean, std = network.dataset.mean, network.dataset.std
    image = normalize.normalize(image, box, mean=mean, std=std)
    return network.scale(variables, image, box[:, 2:])

  return scale


def images_of(*sources: info.Source) -> memory.Images:
  """The largest image of some splits, and the most classes of one."""
  sizes = [source.size(i) for source in sources for i in range(len(source))]
  classes = max(int(source.labels.sum(axis=1).max(initial=0)) for source in sources)
  return memory.Images(max(sizes, key=math.prod), max(classes, 1))


class Inference:
  """Compiled inference; a new image size compiles nothing once its bucket has been seen."""

  def __init__(
    self,
    network: Network,
    config: settings.InferenceConfig,
    runtime: Runtime,
    *,
    scales: Sequence[float] | None = None,
  ):
    """Binds the functions; compiles nothing.

    Args:
      network: what is inferred with.
      config: the shapes, and of a `MultiScaleConfig` the scales.
      runtime: where to run.
      scales: in place of the config's; 1 where it has none.
    """
    self._mesh, self._workers = runtime.local_mesh, runtime.config.loaders
    self._variables = arrays.replicate(network.variables, self._mesh)
    devices = self._mesh.size
    self._shapes = buckets.Shapes(
      scales=tuple(scales or getattr(config, 'scales', (1.0,))),
      resize_to=getattr(config, 'resize_to', 0),
      batch_size=-(-config.batch_size // devices) * devices,
      multiple=config.multiple,
      max_buckets=config.max_buckets,
    )
    self._network, self._config, self._scales = network, config, scales
    self._scale = compiler.jit(
      _at_scale(network), self._mesh, ins=(REPLICATED, BATCH, BATCH), outs=BATCH
    )
    self._fuse, self._fused = network.fuse, {}
    self._late, self._seen = 0, set()

  @property
  def traces(self) -> int:
    """How many programs were made."""
    return sum(program.traces for program in (self._scale, *self._fused.values()))

  @property
  def late(self) -> int:
    """How many of them when images of their bucket and number of classes had been seen before."""
    return self._late

  def __call__(
    self,
    source: info.Source,
    indices: Iterable[int],
    *,
    among: Iterable[int] | None = None,
    context: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] = lambda batch: {},
    by_classes: bool = False,
  ) -> Iterator[tuple[int, tuple[int, int], PyTree]]:
    """Infers images, in the order of their buckets.

    Args:
      source: the images.
      indices: those wanted, each once.
      among: which lay out the batches, see `buckets.multi_scale_batches`.
      context: what `fuse` needs to know of a batch, which has `index` i32[B] and `bucket` (H, W):
        arrays [B, ...].
      by_classes: whether only images of about as many classes share a batch, as `present` fills
        them up. Then an image's result does not depend on which others are wanted.

    Yields:
      The index, the image's (H, W), and its row of each array that `fuse` made, as numpy.
    """
    # The device works on the next batch while this one is fetched and written.
    ahead = None
    shapes = self._fitting(source)
    counts = np.maximum((source.labels > 0).sum(axis=1), 1) if by_classes else np.ones(len(source))
    batches = buckets.multi_scale_batches(
      source,
      indices,
      shapes,
      among=among,
      kind=lambda i: width(int(counts[i])),
      workers=self._workers,
    )
    with batches:
      for batch in batches:
        made, kind = self.traces, (tuple(batch['bucket']), width(int(counts[batch['index'][0]])))
        started = batch, self._start(batch, context(batch))
        self._late += self.traces - made if kind in self._seen else 0
        self._seen.add(kind)
        if ahead is not None:
          yield from _rows(*ahead)
        ahead = started
    if ahead is not None:
      yield from _rows(*ahead)

  def _fitting(self, source: info.Source) -> buckets.Shapes:
    """The shapes, with as many images at a time as there is memory for, and a word on it."""
    need = work(self._network, self._config, images_of(source), scales=self._scales)
    devices, rows = self._mesh.size, self._shapes.batch_size
    fitting = need.fitting(devices)
    if fitting >= rows:
      return self._shapes
    need = need._replace(at_once=rows)
    warnings.warn(f'{source.split}: {need.describe(fitting)}', stacklevel=1)
    count = max(fitting // devices, 1) * devices
    return dataclasses.replace(self._shapes, batch_size=min(count, rows))

  def _start(self, batch: Mapping[str, Any], context: Mapping[str, np.ndarray]) -> PyTree:
    results, scaled = [], []
    for image, box in zip(batch['images'], batch['boxes'], strict=True):
      placed = self._place({'image': image, 'box': box, 'size': box[:, 2:]})
      results.append(self._scale(self._variables, placed['image'], placed['box']))
      scaled.append(placed['size'])
    native = self._place({'size': batch['size']})['size']
    return self._fused_for(tuple(batch['bucket']))(results, scaled, native, self._place(context))

  def _fused_for(self, shape: tuple[int, int]) -> compiler.Compiled:
    """The program that joins the scales of images in a bucket."""
    if shape not in self._fused:

      def fuse(
        results: list[Any], scaled: list[Array], native: Array, context: Mapping[str, Array]
      ) -> PyTree:
        return self._fuse(results, Grid(scaled, native, shape, context))

      self._fused[shape] = compiler.jit(fuse, self._mesh, ins=BATCH, outs=BATCH)
    return self._fused[shape]

  def calls(
    self,
    images: Images,
    *,
    context: Callable[[tuple[int, int]], Mapping[str, tuple[tuple[int, ...], Any]]] = lambda x: {},
  ) -> list[compiler.Call]:
    """The programs of one pass, as if all images were in the bucket that most of them are in.

    Args:
      images: those wanted.
      context: of what `fuse` needs to know of a batch, bucket -> shapes without B, and dtypes.
    """
    shapes, found = self._shapes, collections.Counter()
    for source, indices in images:
      sizes = [source.size(i) for i in range(len(source))]
      planned = buckets.plan_buckets(
        sizes, multiple=shapes.multiple, max_buckets=shapes.max_buckets
      )
      found.update(buckets.choose(sizes[i], planned) for i in indices)
    if not found:
      return []
    bucket, count = found.most_common(1)[0][0], shapes.batch_size
    largest = (shapes.resize_to, shapes.resize_to) if shapes.resize_to else bucket
    channels = len(images[0][0].info.mean)

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((count, *shape), dtype)

    def call(name: str, program: compiler.Compiled, arguments: tuple[Any, ...]) -> compiler.Call:
      return compiler.Call(name, program, arguments, count, found.total() / count, padded=True)

    result, parts, size = [], [], array((2,), np.int32)
    variables = compiler.shapes(self._variables)
    for scale in shapes.scales:
      shape = buckets.scaled_bucket(largest, scale, multiple=shapes.multiple)
      arguments = variables, array((*shape, channels), np.uint8), array((4,), np.int32)
      result.append(call(f'scale {scale:g}', self._scale, arguments))
      parts.append(jax.eval_shape(_at_scale(self._network), *arguments))
    known = {name: array(*what) for name, what in context(bucket).items()}
    arguments = parts, [size] * len(parts), size, known
    return [*result, call('join', self._fused_for(bucket), arguments)]

  def _place(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return arrays.to_global(batch, self._mesh)


def _rows(batch: Mapping[str, Any], found: PyTree) -> Iterator[tuple[int, tuple[int, int], PyTree]]:
  found = jax.device_get(found)
  for row in np.flatnonzero(batch['weight'] > 0):
    height, width = (int(n) for n in batch['size'][row])
    yield int(batch['index'][row]), (height, width), jax.tree.map(lambda x, row=row: x[row], found)


def compilations(inferences: Iterable[Inference]) -> dict[str, int]:
  """Counts programs for a stage's record: `programs`, and `programs_late` after the warm-up."""
  inferences = list(inferences)
  return {
    'programs': sum(inference.traces for inference in inferences),
    'programs_late': sum(inference.late for inference in inferences),
  }


def present_width(images: Images, count: int) -> int:
  """P of `present` in the first batch of `count` images of all."""
  labels = np.concatenate([source.labels[list(indices)] for source, indices in images])
  return present(labels[:count]).shape[1]


def width(classes: int) -> int:
  """The next power of two: images with about as many classes share a program."""
  return 1 << (classes - 1).bit_length()


def with_classes(classes: int, shape: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
  """`Network.context` of one that is told the classes of its images, as `present` makes them."""
  del shape
  return {'classes': jax.ShapeDtypeStruct((1, width(classes)), np.int32)}


def present(labels: np.ndarray) -> np.ndarray:
  """i32[B, P]: the classes of each image's label, filled up with class 0 to a power of two."""
  most = max(int((labels > 0).sum(axis=1).max()), 1)
  classes = np.zeros((len(labels), min(width(most), labels.shape[1])), np.int32)
  for row, label in enumerate(labels):
    found = np.flatnonzero(label)
    classes[row, : len(found)] = found
  return classes
