"""Chooses images by a fixed rule and sets what a run makes of them beside image and mask."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.io import products
from pnoc_jax.metrics import segmentation
from pnoc_jax.report import files, page, pictures


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


Panels = Callable[[str, int, np.ndarray], Iterable[Picture]]
"""(id, index in the source, image) -> what follows image and mask in the strip."""


def rank(
  run: files.RunFiles, split: str, source: info.Source, *, threshold: float, limit: int = 400
) -> list[tuple[str, float]]:
  """Images by the IoU of their prior, best first.

  An image's IoU is the mean over the classes that occur in its mask or its prior's label map,
  background included. Of long splits, `limit` images at equal distances are looked at.

  Args:
    run: whose priors.
    split: of the data set.
    source: that split.
    threshold: of the background.
    limit: images looked at.

  Returns:
    (id, IoU in percent), without images of which no pixel counts; without masks the IoU is NaN and
    the order that of the split.
  """
  ids = [source.ids[i] for i in spaced(len(source.ids), limit)]
  scores = []
  for image_id, index, prior in files.read_priors(run, split, source, ids):
    target = source.mask(index) if source.has_masks else None
    iou = image_iou(prior, target, threshold, len(source.info.classes) + 1)
    if target is None or not np.isnan(iou):
      scores.append((image_id, iou))
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


def strips(
  source: info.Source,
  chosen: Sequence[tuple[str, str, float]],
  panels: Panels,
  *,
  side: int = 192,
) -> str:
  """The chosen images as HTML: image, mask, and what `panels` gives of each.

  Args:
    source: the split.
    chosen: (why, id, IoU).
    panels: the pictures that follow; an image without any is left out.
    side: small images are enlarged by whole pixels to about this.
  """
  names = (source.info.background, *source.info.classes)
  colours = list(zip(names, source.info.palette))
  if source.has_masks:
    colours.append(('not labelled', pictures.VOID_COLOUR))
  parts = [page.legend(colours)]
  for why, image_id, iou in chosen:
    index = source.ids.index(image_id)
    # Of microscopy's four channels the first three.
    image = np.asarray(source.example(index)['image'])[..., :3]
    present = ', '.join(names[k + 1] for k in np.flatnonzero(source.labels[index]))
    small = max(image.shape[:2]) < side
    row = [Picture('image', f'Image {image_id}, showing {present}', image, True)]
    target = source.mask(index) if source.has_masks else None
    if target is not None:
      coloured = pictures.colour_mask(target, source.info.palette)
      row.append(Picture('mask', f'True mask of {image_id}', coloured))
    found = list(panels(image_id, index, image))
    if not found:
      continue
    score = '' if np.isnan(iou) else f'{why} prior, IoU {iou:.1f}: '
    encoded = [_encode(picture, small, side) for picture in (*row, *found)]
    parts.append(page.strip(image_id, f'{score}{present}', encoded))
  return ''.join(parts)


def _encode(picture: Picture, small: bool, side: int) -> tuple[str, str, str, bool]:
  array = pictures.enlarge(picture.array, side) if small else picture.array
  uri = pictures.data_uri(array, photograph=picture.photograph and not small)
  return picture.caption, picture.alt, uri, small


def prior_panels(
  runs: Sequence[tuple[str, files.RunFiles, float]], split: str, source: info.Source
) -> Panels:
  """The priors of one run or of several (Fig. 8).

  One run shows its label map at the threshold and the map of every class; of several, each shows
  the largest of its maps.

  Args:
    runs: (name, files, background threshold) of each.
    split: of the data set.
    source: that split.
  """
  names = (source.info.background, *source.info.classes)

  def panels(image_id, index, image):
    for name, run, threshold in runs:
      for _, _, prior in files.read_priors(run, split, source, [image_id]):
        if len(runs) > 1:
          laid = pictures.overlay(image, prior.high.max(axis=0).astype(np.float32))
          yield Picture(name, f'Activation of {name} on {image_id}', laid, True)
          continue
        labels = pictures.prior_mask(prior.keys, prior.high, threshold)
        coloured = pictures.colour_mask(labels, source.info.palette)
        caption = f'prior at {threshold:.2f}'
        yield Picture(caption, f'Label map of the prior of {image_id}', coloured)
        for key, cam in zip(prior.keys[1:], prior.high):
          laid = pictures.overlay(image, cam.astype(np.float32))
          alt = f'Activation of {names[key]} on {image_id}'
          yield Picture(f'CAM: {names[key]}', alt, laid, True)

  return panels
