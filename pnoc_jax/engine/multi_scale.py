"""Inference of a network on many images at several scales: in buckets, on the local devices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import buckets
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.ops import normalize
from pnoc_jax.parallel import arrays, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.types import Array, PyTree, Variables


class Config(Protocol):
  """The fields of a stage's config that say how it infers.

  Attributes:
    scales: factors on the image's size.
    resize_to: side of a square that images are squeezed to before they are scaled; 0 for none.
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most, for each scale.
  """

  scales: tuple[float, ...]
  resize_to: int
  batch_size: int
  multiple: int
  max_buckets: int


def faults(name: str, config: Any) -> list[str]:
  """What is wrong with how a stage infers, in words.

  Args:
    name: the field of the run's config that holds it, e.g. `priors`.
    config: a `Config`; the fields of one that infers at a single scale may lack the first two.
  """
  found = []
  scales, resize_to = getattr(config, 'scales', (1.0,)), getattr(config, 'resize_to', 0)
  if not scales or min(scales) <= 0:
    found.append(f'{name}.scales is {scales}; name one or more positive scales')
  if resize_to < 0:
    found.append(f'{name}.resize_to is {resize_to}; it is a side in pixels, or 0 for none')
  for field in ('batch_size', 'multiple', 'max_buckets'):
    if getattr(config, field) < 1:
      found.append(f'{name}.{field} is {getattr(config, field)}; it is at least 1')
  return found


class Inference:
  """Compiled inference; a new image size compiles nothing once its bucket has been seen."""

  def __init__(
    self,
    scale: Callable[[Variables, Array, Array], PyTree],
    fuse: Callable[..., PyTree],
    variables: Variables,
    dataset: info.DatasetInfo,
    config: Config,
    runtime: Runtime,
  ):
    """Binds the functions; compiles nothing.

    Args:
      scale: (variables, image f32[B, H, W, 3] normalised, its content's size i32[B, 2]) -> what
        one scale gives, arrays [B, ...].
      fuse: (what each scale gave, the sizes i32[B, 2] at each scale, native size i32[B, 2],
        context, shape=(H, W) of the native bucket) -> arrays [B, ...].
      variables: the network's.
      dataset: whose images these are.
      config: scales and shapes.
      runtime: where to run.
    """
    self._config, self._workers = config, runtime.config.workers
    self._mesh = runtime.local_mesh
    self._variables = arrays.replicate(variables, self._mesh)

    def one(variables, image, box):
      image = normalize.normalize(image, box, mean=dataset.mean, std=dataset.std)
      return scale(variables, image, box[:, 2:])

    self._scale = compiler.jit(one, self._mesh, batch_args=(1, 2), outs=sharding.Layout.BATCH)
    self._fuse, self._fused = fuse, {}

  def __call__(
    self,
    source: info.Source,
    indices: Sequence[int],
    *,
    context: Callable[[np.ndarray], Mapping[str, np.ndarray]] = lambda index: {},
  ) -> Iterator[tuple[int, tuple[int, int], PyTree]]:
    """Infers images, in the order of their buckets.

    Args:
      source: the images.
      indices: those wanted, each once.
      context: what `fuse` needs to know of the images i32[B]: arrays [B, ...].

    Yields:
      The index, the image's (H, W), and its row of each array that `fuse` made, as numpy.
    """
    config, devices = self._config, self._mesh.size
    batches = buckets.multi_scale_batches(
      source,
      indices,
      scales=config.scales,
      resize_to=config.resize_to or None,
      batch_size=-(-config.batch_size // devices) * devices,
      buckets=buckets.plan_buckets(
        [source.size(i) for i in range(len(source))],
        multiple=config.multiple,
        max_buckets=config.max_buckets,
      ),
      multiple=config.multiple,
      workers=self._workers,
    )
    with batches:
      for batch in batches:
        found = jax.device_get(self._batch(batch, context(batch['index'])))
        for row in np.flatnonzero(batch['weight'] > 0):
          height, width = (int(n) for n in batch['size'][row])
          mine = jax.tree.map(lambda x, row=row: x[row], found)
          yield int(batch['index'][row]), (height, width), mine

  def _batch(self, batch: dict[str, Any], context: Mapping[str, np.ndarray]) -> PyTree:
    results, sizes = [], []
    for image, box in zip(batch['images'], batch['boxes'], strict=True):
      placed = self._place({'image': image, 'box': box, 'size': box[:, 2:]})
      results.append(self._scale(self._variables, placed['image'], placed['box']))
      sizes.append(placed['size'])
    shape = tuple(batch['bucket'])
    if shape not in self._fused:
      self._fused[shape] = compiler.jit(
        lambda *arguments: self._fuse(*arguments, shape=shape),
        self._mesh,
        batch_args=(0, 1, 2, 3),
        outs=sharding.Layout.BATCH,
      )
    native = self._place({'size': batch['size']})['size']
    return self._fused[shape](results, sizes, native, self._place(context))

  def _place(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return arrays.to_global(batch, self._mesh)


def present(labels: np.ndarray) -> np.ndarray:
  """i32[B, P]: the classes of each image's label, filled up with class 0 to a power of two."""
  most = max(int((labels > 0).sum(axis=1).max()), 1)
  width = min(1 << (most - 1).bit_length(), labels.shape[1])
  classes = np.zeros((len(labels), width), np.int32)
  for row, label in enumerate(labels):
    found = np.flatnonzero(label)
    classes[row, : len(found)] = found
  return classes
