"""Splits that are not here, to plan a run with: as many images as were published, of one size."""

import dataclasses

import numpy as np

from pnoc_jax.data import info, sources
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError

# Classes of a data set, and (height, width) in px that most of its images have.
_TYPICAL = {
  'voc12': (20, (375, 500)),
  'coco14': (80, (480, 640)),
  'cityscapes': (19, (1024, 2048)),
}


@dataclasses.dataclass(frozen=True)
class Imagined:
  """A split that is not here: as many images as published, all of one size, with 1 to 3 classes."""

  info: info.DatasetInfo
  split: str
  count: int
  shape: tuple[int, int]
  has_masks: bool = True

  def __len__(self) -> int:
    return self.count

  @property
  def ids(self) -> tuple[str, ...]:
    """Numbers."""
    return tuple(map(str, range(self.count)))

  @property
  def labels(self) -> np.ndarray:
    """f32[N, K]: one class an image, a second in every third, a third in every ninth."""
    classes = self.info.num_classes
    found = np.zeros((self.count, classes), np.float32)
    for further, every in enumerate((1, 3, 9)):
      rows = np.arange(0, self.count, every)
      found[rows, (rows + further) % classes] = 1
    return found

  def size(self, index: int) -> tuple[int, int]:
    """(H, W)."""
    del index
    return self.shape


class _Runtime(Runtime):
  """A run's runtime whose splits are imagined where the data set is not here."""

  def source(
    self, config: info.DatasetConfig, split: str, *, without: frozenset[str] = frozenset()
  ) -> info.Source:
    """As of `Runtime.source`."""
    row = sources.row(config.name)
    if config.root or not row.needs_root:
      return super().source(config, split, without=without)
    if config.name not in _TYPICAL or split not in row.images:
      raise UserError(
        f'the size of {split} of {config.name} is not known: say with --config.dataset.root where '
        'it is'
      )
    count, shape = _TYPICAL[config.name]
    names, palette = tuple(map(str, range(count))), info.color_map(count + 1)
    described = info.DatasetInfo(config.name, names, 'background', palette)
    return Imagined(described, split, row.images[split], shape)  # type: ignore[return-value]


def of(runtime: Runtime) -> Runtime:
  """The runtime, with imagined splits where `dataset.root` is not given."""
  return _Runtime(**{x.name: getattr(runtime, x.name) for x in dataclasses.fields(runtime)})
