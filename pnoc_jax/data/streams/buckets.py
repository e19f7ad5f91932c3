"""Few static shapes for images of many sizes, and multi-scale batches in them.

An image lies in the top-left corner of its bucket; its box says where it ends. A compiled function
then meets only as many shapes as there are buckets and scales.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.io import images

Size = tuple[int, int]
"""(height, width) in px."""


def plan_buckets(sizes: Sequence[Size], *, multiple: int = 32, max_buckets: int = 4) -> list[Size]:
  """Chooses few shapes that hold all sizes with little padding.

  Starts from the distinct sizes, rounded up, and merges the two whose common shape adds the least
  padding over all images, until few enough are left.

  Args:
    sizes: (H, W) of every image.
    multiple: heights and widths of buckets are multiples of this.
    max_buckets: largest number of buckets.

  Returns:
    The buckets, by ascending area.
  """
  if not sizes:
    return []
  rounded = _round_up(np.asarray(sizes), multiple)
  shapes, counts = np.unique(rounded, axis=0, return_counts=True)
  shapes, counts = shapes.astype(np.int64), counts.astype(np.int64)
  while len(shapes) > max_buckets:
    union = np.maximum(shapes[:, None], shapes[None])
    area = union.prod(-1)
    own = counts * shapes.prod(-1)
    added = area * (counts[:, None] + counts[None]) - own[:, None] - own[None]
    added[np.tril_indices(len(shapes))] = np.iinfo(np.int64).max
    i, j = np.unravel_index(added.argmin(), added.shape)
    shapes[i], counts[i] = union[i, j], counts[i] + counts[j]
    shapes, counts = np.delete(shapes, j, 0), np.delete(counts, j)
  return sorted(((int(h), int(w)) for h, w in shapes), key=_by_area)


def choose(size: Size, buckets: Sequence[Size]) -> Size:
  """The bucket of least area that holds (H, W).

  Raises:
    ValueError: none does.
  """
  fitting = [x for x in buckets if size[0] <= x[0] and size[1] <= x[1]]
  if not fitting:
    raise ValueError(f'no bucket holds the size {size}: {list(buckets)}')
  return min(fitting, key=_by_area)


def scaled_bucket(bucket: Size, scale: float, *, multiple: int = 32) -> Size:
  """The shape that holds the images of a native bucket at one scale."""
  height, width = (int(_round_up(math.ceil(n * scale), multiple)) for n in bucket)
  return height, width


@dataclasses.dataclass(frozen=True)
class Shapes:
  """How images become batches of few shapes.

  Attributes:
    scales: factors of height and width.
    resize_to: side in px of a square that images are squeezed to (bilinear) before they are
      scaled; 0 for none.
    batch_size: B.
    multiple: heights and widths of all shapes are multiples of this, px.
    max_buckets: largest number of shapes at each scale.
  """

  scales: tuple[float, ...] = (1.0,)
  resize_to: int = 0
  batch_size: int = 8
  multiple: int = 32
  max_buckets: int = 4


def multi_scale_batches(
  source: info.Source,
  indices: Iterable[int],
  shapes: Shapes,
  *,
  among: Iterable[int] | None = None,
  kind: Callable[[int], int] = lambda index: 0,
  workers: int = 0,
) -> pipeline.Batches:
  """One pass over some images, each at several scales; all images of a batch share its shapes.

  Batches go through the buckets of the whole source in their order, and through a bucket's images
  in the order of `among`. Places of other images, and those after the last one, are filled with
  repeats of weight 0. Flips are left to the device.

  Args:
    source: the examples.
    indices: of the images to yield, each once.
    among: indices that have `indices` among them and lay out the batches; `indices` by default. An
      image then has the same row of the same batch whichever are wanted: on CPUs the last bits of
      what a network makes of it depend on its row.
    shapes: scales, and the shapes of the batches.
    kind: of an image, by its index; images of different kinds share no batch.
    workers: processes that prepare batches; 0 for threads of this process.

  Returns:
    An iterator of {'index': i32[B], 'weight': f32[B], 'size': i32[B, 2] native (H, W), 'bucket':
    (H, W) that holds all native sizes, and a list with an entry a scale of each 'images':
    u8[B, Hs, Ws, C] and 'boxes': i32[B, 4] = (0, 0, height, width)}.
  """
  sizes = [source.size(i) for i in range(len(source))]
  buckets = plan_buckets(sizes, multiple=shapes.multiple, max_buckets=shapes.max_buckets)
  groups: dict[tuple[Size, int], list[int]] = {}
  order = [int(index) for index in indices]
  wanted = set(order)
  for index in map(int, order if among is None else among):
    groups.setdefault((choose(sizes[index], buckets), kind(index)), []).append(index)
  square, count, plan = shapes.resize_to, shapes.batch_size, []
  for (bucket, _), members in sorted(groups.items(), key=lambda x: (_by_area(x[0][0]), x[0][1])):
    largest = (square, square) if square else bucket
    scaled = [scaled_bucket(largest, scale, multiple=shapes.multiple) for scale in shapes.scales]
    for start in range(0, len(members), count):
      batch = members[start : start + count]
      last = next((index for index in batch if index in wanted), None)
      if last is None:
        continue
      rows, weights = [], []
      for index in [*batch, *[-1] * (count - len(batch))]:
        is_wanted = index in wanted
        last = index if is_wanted else last
        rows.append(last)
        weights.append(float(is_wanted))
      plan.append(_Plan(bucket, scaled, rows, weights))
  dataset = grain.MapDataset.source(plan).map(_Load(source, shapes.scales, square))
  return pipeline.Batches(dataset, workers=workers, buffer=2)


class _Plan(NamedTuple):
  """What one batch of a process holds; `shapes` has an entry a scale."""

  bucket: Size
  shapes: list[Size]
  indices: list[int]
  weights: list[float]


class _Load:
  """Reads and resizes the images of one batch."""

  def __init__(self, source: info.Source, scales: tuple[float, ...], resize_to: int):
    self._source, self._scales, self._resize_to = source, scales, resize_to

  def __call__(self, plan: _Plan) -> dict[str, Any]:
    rows = len(plan.indices)
    sizes = np.zeros((rows, 2), np.int32)
    channels = len(self._source.info.mean)
    scaled = [np.zeros((rows, *shape, channels), np.uint8) for shape in plan.shapes]
    boxes = [np.zeros((rows, 4), np.int32) for _ in plan.shapes]
    for row, index in enumerate(plan.indices):
      if row and plan.indices[row - 1] == index:  # A repeat that fills a place.
        for x in (sizes, *scaled, *boxes):
          x[row] = x[row - 1]
        continue
      image = self._source.example(index)['image']
      sizes[row] = image.shape[:2]
      if self._resize_to:
        image = images.resize_bilinear(image, (self._resize_to, self._resize_to))
      for n, scale in enumerate(self._scales):
        # Python's round: halves go to the even neighbour, as in the reference.
        height, width = (max(round(x * scale), 1) for x in image.shape[:2])
        scaled[n][row, :height, :width] = images.resize_bicubic(image, (height, width))
        boxes[n][row] = 0, 0, height, width
    return {
      'index': np.array(plan.indices, np.int32),
      'weight': np.array(plan.weights, np.float32),
      'size': sizes,
      'bucket': plan.bucket,
      'images': scaled,
      'boxes': boxes,
    }


def _by_area(size: Size) -> tuple[int, Size]:
  return size[0] * size[1], size


def _round_up(n: Any, multiple: int) -> Any:
  return -(-n // multiple) * multiple
