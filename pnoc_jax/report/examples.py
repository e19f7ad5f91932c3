"""Chooses images by a fixed rule and sets what a run makes of them beside image and mask."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import images, products
from pnoc_jax.metrics import segmentation
from pnoc_jax.report import files, page, pictures

Read = TypeVar('Read')
OpenSource = Callable[[Mapping[str, Any], str], info.Source]
"""(content of a run's config.json, split) -> the split."""


class Picture(NamedTuple):
  """One picture of a strip.

  Attributes:
    caption: below it.
    alt: in words, for readers who do not see it.
    array: u8[H, W, 3].
    photograph: whether it may be stored with losses.
  """

  caption: str
  alt: str
  array: np.ndarray
  photograph: bool = False


@dataclasses.dataclass(frozen=True)
class Example:
  """An image of a split, and what a run made of it; all is read when it is asked for.

  Attributes:
    run: the run.
    split: of the data set.
    source: that split.
    index: of the image in it.
  """

  run: files.RunFiles
  split: str
  source: info.Source
  index: int

  @property
  def id(self) -> str:
    """The image's name."""
    return self.source.ids[self.index]

  @functools.cached_property
  def image(self) -> np.ndarray:
    """u8[H, W, 3]; of microscopy's four channels the first three."""
    return np.asarray(self.source.example(self.index)['image'])[..., :3]

  def target(self) -> np.ndarray | None:
    """u8[H, W], its true mask; None where the split has none."""
    return self.source.mask(self.index) if self.source.has_masks else None

  def prior(self) -> products.Prior | None:
    """Its prior; None where it is not there, damaged or of another image."""
    checks = {'size': self.source.size(self.index), 'num_classes': self.source.info.num_classes}
    return self._read(products.read_prior, 'priors', '.npz', **checks, arrays=('high',))

  def walk(self) -> products.Walk | None:
    """Its maps after the random walk; None as for `prior`."""
    size = self.source.size(self.index)
    return self._read(products.read_walk, 'random_walk', '.npz', size=size)

  def png(self, stage: str, folder: str = '') -> np.ndarray | None:
    """u8[H, W] of its PNG in a folder of a stage; None as for `prior`."""
    found = self._read(images.read_mask, stage, '.png', folder)
    return found if found is not None and found.shape == self.image.shape[:2] else None

  def _read(
    self, read: Callable[..., Read], stage: str, suffix: str, folder: str = '', **checks: Any
  ) -> Read | None:
    path = self.run.product(stage, folder + self.split, self.id + suffix)
    try:
      return read(path, **checks)
    except (errors.UserError, OSError):
      return None

  def coloured(self, labels: np.ndarray, caption: str, alt: str) -> Picture:
    """A label map, int[H, W], in the data set's colours."""
    return Picture(caption, alt, pictures.colour_mask(labels, self.source.info.palette))

  def overlaid(self, maps: np.ndarray, caption: str, alt: str) -> Picture:
    """The largest of f[K, H, W] laid over the image."""
    laid = pictures.overlay(self.image, maps.max(axis=0).astype(np.float32))
    return Picture(caption, alt, laid, True)


class Look:
  """What a section is drawn from: the files of the runs, the data set, and the images to show.

  Attributes:
    runs: (name, files) of each run that the page sets side by side.
    run: the first of them, on the page of a single run the only one.
    images: how many images of a split the priors show.
    source: split -> the split, opened once; raises UserError or OSError where it cannot be.
    ranked: split -> (id, IoU in percent) of its images by the IoU of their priors, best first;
      without masks IoU is NaN and the order that of the split.
  """

  def __init__(
    self, runs: Sequence[tuple[str, files.RunFiles]], open_source: OpenSource, images: int
  ) -> None:
    self.runs, self.run, self.images = runs, runs[0][1], images
    self.source = functools.cache(functools.partial(open_source, self.run.config))
    self.ranked = functools.cache(self._rank)

  def _rank(self, split: str, limit: int = 400) -> list[tuple[str, float]]:
    """Ranks by the mean IoU over the runs the images of which every run has a prior.

    Of a long split, `limit` images at equal distances are looked at.
    """
    source, scores = self.source(split), []
    for index in _spaced(len(source.ids), limit):
      found = [_iou(Example(run, split, source, index)) for _, run in self.runs]
      known = [iou for iou in found if iou is not None]
      if len(known) == len(found) and not (source.has_masks and np.isnan(known).any()):
        scores.append((source.ids[index], float(np.mean(known))))
    return sorted(scores, key=lambda item: -item[1]) if source.has_masks else scores

  def chosen(self, split: str) -> list[tuple[str, str, float]]:
    """The images of the sections after the priors, as `choose` gives them.

    They are half as many as of the priors and chosen by the same rule. Without priors they stand at
    equal distances in the split; there are none if the split does not open.
    """
    try:
      ranked = self.ranked(split) or [(x, float('nan')) for x in self.source(split).ids]
    except (errors.UserError, OSError):
      return []
    return choose(ranked, -(-self.images // 2))


def _iou(example: Example) -> float | None:
  """Mean IoU in percent of a prior's label map at the best threshold; None without the prior.

  The mean is over the classes that occur in the mask or in the label map, background included; it
  is NaN without a mask, and where no pixel of it counts.
  """
  prior, target = example.prior(), example.target()
  if prior is None or target is None:
    return None if prior is None else float('nan')
  threshold = example.run.threshold('priors', example.split)
  labels = pictures.prior_mask(prior.keys, prior.high, threshold)
  counts = segmentation.count(labels, target, num_classes=example.source.info.num_classes + 1)
  present = counts.true + counts.predicted > 0
  return float(100 * segmentation.iou(counts)[present].mean()) if present.any() else float('nan')


def _spaced(total: int, count: int) -> list[int]:
  """At most `count` indices of `range(total)` at equal distances, with both ends."""
  return sorted(set(np.linspace(0, total - 1, min(total, count)).round().astype(int).tolist()))


def choose(ranked: Sequence[tuple[str, float]], count: int = 12) -> list[tuple[str, str, float]]:
  """A third each of the best, of those around the median, and of the worst.

  Args:
    ranked: (id, IoU), best first.
    count: images at most; of each kind one at least.

  Returns:
    (why, id, IoU), best first; images at equal distances in `ranked` where the IoU is NaN.
  """
  if not ranked or count < 1:
    return []
  if np.isnan(ranked[0][1]):
    return [('example', *ranked[i]) for i in _spaced(len(ranked), count)]
  n = len(ranked)
  third = -(-n // 3) if n <= count else max(1, count // 3)
  start = max(0, (n - third) // 2)
  places = dict.fromkeys(range(n - third, n), 'worst')
  places |= dict.fromkeys(range(start, min(n, start + third)), 'median')
  places |= dict.fromkeys(range(third), 'best')
  return [(places[i], *ranked[i]) for i in sorted(places)]


Panels = Callable[[Example], Iterable[Picture]]
"""The pictures that follow image and mask in a strip; without any, the image is not shown."""


def gallery(look: Look, split: str, heading: str, panels: Panels, top: str = '') -> str:
  """The chosen images below a heading and `top`; empty where there are none."""
  chosen = look.chosen(split)
  return page.heading(heading) + top + strips(look, split, chosen, panels) if chosen else ''


def strips(
  look: Look, split: str, chosen: Sequence[tuple[str, str, float]], panels: Panels, side: int = 192
) -> str:
  """Images as HTML: of each the image, its mask, and what `panels` makes of it.

  Args:
    look: the runs and the data set.
    split: whose images they are.
    chosen: (why, id, IoU) of each.
    panels: the pictures that follow.
    side: small images are enlarged by whole pixels to about this.
  """
  source = look.source(split)
  names = (source.info.background, *source.info.classes)
  colours = list(zip(names, source.info.palette))
  if source.has_masks:
    colours.append(('not labelled', pictures.VOID_COLOUR))
  parts = [page.legend(colours)]
  for why, image_id, iou in chosen:
    example = Example(look.run, split, source, source.ids.index(image_id))
    found, target = list(panels(example)), example.target()
    if not found:
      continue
    present = ', '.join(names[k + 1] for k in np.flatnonzero(source.labels[example.index]))
    if target is not None:
      found.insert(0, example.coloured(target, 'mask', f'True mask of {image_id}'))
    found.insert(0, Picture('image', f'Image {image_id}, showing {present}', example.image, True))
    score = '' if np.isnan(iou) else f'{why} prior, IoU {iou:.1f}: '
    small = max(example.image.shape[:2]) < side
    encoded = [_encode(picture, small, side) for picture in found]
    parts.append(page.strip(image_id, f'{score}{present}', encoded))
  return ''.join(parts)


def _encode(picture: Picture, small: bool, side: int) -> tuple[str, str, str, bool]:
  array = pictures.enlarge(picture.array, side) if small else picture.array
  uri = pictures.data_uri(array, photograph=picture.photograph and not small)
  return picture.caption, picture.alt, uri, small
