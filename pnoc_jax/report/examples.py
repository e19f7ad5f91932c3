"""Chooses images by a fixed rule and sets what a run makes of them beside image and mask."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import products
from pnoc_jax.metrics import segmentation
from pnoc_jax.report import files, page, pictures

OpenSource = Callable[[Mapping[str, Any], str], info.Source]
"""(content of a run's config.json, split) -> the split."""


class Look:
  """What a section is drawn from: the files of the runs, the data set, and the images to show.

  Attributes:
    runs: (name, files) of each run that the page sets side by side.
    run: the first of them, on the page of a single run the only one.
    images: how many images of a split the priors show.
    source: split -> the split, opened once; raises UserError or OSError where it cannot be.
    ranked: split -> (id, IoU) of the images by the mean over the runs; see `rank`.
  """

  def __init__(
    self, runs: Sequence[tuple[str, files.RunFiles]], open_source: OpenSource, images: int
  ) -> None:
    self.runs, self.run, self.images = runs, runs[0][1], images
    self.source = functools.cache(functools.partial(open_source, self.run.config))
    self.ranked = functools.cache(self._ranked)

  def _ranked(self, split: str) -> list[tuple[str, float]]:
    source, scores = self.source(split), {}
    for _, run in self.runs:
      for image_id, iou in rank(run, split, source):
        scores.setdefault(image_id, []).append(iou)
    means = [(i, float(np.mean(s))) for i, s in scores.items() if len(s) == len(self.runs)]
    return sorted(means, key=lambda item: -item[1]) if source.has_masks else means

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


def rank(
  run: files.RunFiles, split: str, source: info.Source, *, limit: int = 400
) -> list[tuple[str, float]]:
  """Images by the IoU of their prior at the best threshold, best first.

  An image's IoU is the mean over the classes that occur in its mask or its prior's label map,
  background included. Of long splits, `limit` images at equal distances are looked at.

  Args:
    run: whose priors.
    split: of the data set.
    source: that split.
    limit: images looked at.

  Returns:
    (id, IoU in percent), without images of which no pixel counts; without masks the IoU is NaN and
    the order that of the split.
  """
  scores = []
  for index in spaced(len(source.ids), limit):
    prior = files.read_prior(run, split, source, index)
    if prior is None:
      continue
    target = source.mask(index) if source.has_masks else None
    iou = image_iou(prior, target, run.threshold('priors', split), len(source.info.classes) + 1)
    if target is None or not np.isnan(iou):
      scores.append((source.ids[index], iou))
  return sorted(scores, key=lambda item: -item[1]) if source.has_masks else scores


def spaced(total: int, count: int) -> list[int]:
  """At most `count` indices of `range(total)` at equal distances, with both ends."""
  return sorted(set(np.linspace(0, total - 1, min(total, count)).round().astype(int).tolist()))


def image_iou(
  prior: products.Prior, target: np.ndarray | None, threshold: float, num_classes: int
) -> float:
  """Mean IoU over the classes in the mask or the label map, in percent; NaN without a mask."""
  if target is None:
    return float('nan')
  labels = pictures.prior_mask(prior.keys, prior.high, threshold)
  counts = segmentation.count(labels, target, num_classes=num_classes)
  present = counts.true + counts.predicted > 0
  return float(100 * segmentation.iou(counts)[present].mean()) if present.any() else float('nan')


def choose(ranked: Sequence[tuple[str, float]], count: int = 12) -> list[tuple[str, str, float]]:
  """A third each of the best, of those around the median, and of the worst.

  Args:
    ranked: (id, IoU), best first.
    count: images at most; of each kind one at least.

  Returns:
    (why, id, IoU), best first; the ranking's even spread where IoU is unknown.
  """
  if not ranked or count < 1:
    return []
  if np.isnan(ranked[0][1]):
    return [('example', *ranked[i]) for i in spaced(len(ranked), count)]
  n = len(ranked)
  third = -(-n // 3) if n <= count else max(1, count // 3)
  start = max(0, (n - third) // 2)
  places = dict.fromkeys(range(n - third, n), 'worst')
  places |= dict.fromkeys(range(start, min(n, start + third)), 'median')
  places |= dict.fromkeys(range(third), 'best')
  return [(places[i], *ranked[i]) for i in sorted(places)]


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
  """An image of a split, and what a run made of it.

  Attributes:
    run: the run.
    split: of the data set.
    source: that split.
    index: of the image in it.
    image: u8[H, W, 3].
  """

  run: files.RunFiles
  split: str
  source: info.Source
  index: int
  image: np.ndarray

  @property
  def id(self) -> str:
    """The image's name."""
    return self.source.ids[self.index]

  def prior(self) -> products.Prior | None:
    """Its prior; None where it is not there and whole."""
    return files.read_prior(self.run, self.split, self.source, self.index)

  def png(self, stage: str, folder: str = '') -> np.ndarray | None:
    """u8[H, W] of its PNG in a folder of a stage; None where it is not there and whole."""
    inside = folder + self.split
    return files.read_png(self.run, stage, inside, self.id, self.image.shape[:2])

  def coloured(self, labels: np.ndarray, caption: str, alt: str) -> Picture:
    """A label map, int[H, W], in the data set's colours."""
    return Picture(caption, alt, pictures.colour_mask(labels, self.source.info.palette))

  def overlaid(self, maps: np.ndarray, caption: str, alt: str) -> Picture:
    """The largest of f[K, H, W] laid over the image."""
    laid = pictures.overlay(self.image, maps.max(axis=0).astype(np.float32))
    return Picture(caption, alt, laid, True)


Panels = Callable[[Example], Iterable[Picture]]
"""The pictures that follow image and mask in a strip; without any, the image is not shown."""


def gallery(look: Look, split: str, heading: str, panels: Panels, top: str = '') -> str:
  """The chosen images below a heading and `top`; empty where there are none."""
  chosen = look.chosen(split)
  return f'<h3>{heading}</h3>\n{top}{strips(look, split, chosen, panels)}' if chosen else ''


def strips(
  look: Look,
  split: str,
  chosen: Sequence[tuple[str, str, float]],
  panels: Panels,
  *,
  side: int = 192,
) -> str:
  """Images as HTML: of each the image, its mask, and what `panels` makes of it.

  Args:
    look: the runs and the data set.
    split: whose images they are.
    chosen: (why, id, IoU).
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
    index = source.ids.index(image_id)
    # Of microscopy's four channels the first three.
    image = np.asarray(source.example(index)['image'])[..., :3]
    example = Example(look.run, split, source, index, image)
    found = list(panels(example))
    if not found:
      continue
    present = ', '.join(names[k + 1] for k in np.flatnonzero(source.labels[index]))
    row = [Picture('image', f'Image {image_id}, showing {present}', image, True)]
    target = source.mask(index) if source.has_masks else None
    if target is not None:
      row.append(example.coloured(target, 'mask', f'True mask of {image_id}'))
    score = '' if np.isnan(iou) else f'{why} prior, IoU {iou:.1f}: '
    small = max(image.shape[:2]) < side
    encoded = [_encode(picture, small, side) for picture in (*row, *found)]
    parts.append(page.strip(image_id, f'{score}{present}', encoded))
  return ''.join(parts)


def _encode(picture: Picture, small: bool, side: int) -> tuple[str, str, str, bool]:
  array = pictures.enlarge(picture.array, side) if small else picture.array
  uri = pictures.data_uri(array, photograph=picture.photograph and not small)
  return picture.caption, picture.alt, uri, small
