"""Chooses images by fixed rules and sets what a run makes of them beside image and mask."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pnoc_jax import errors, types
from pnoc_jax.data import info
from pnoc_jax.io import images, products
from pnoc_jax.metrics import saliency, segmentation
from pnoc_jax.report import files, page, pictures

Read = TypeVar('Read')
OpenSource = Callable[[Mapping[str, Any], str], info.Source]
"""(content of a run's config.json, split) -> the split."""


_LOOKED_AT = 200  # Images of a long split, at equal distances.
_SMALL = 192  # Pictures of a shorter side than this show single pixels.
_NAMED = 0.004  # Of a picture's pixels: smaller spots of a class bear no name.


class Picture(NamedTuple):
  """One picture of a strip.

  Attributes:
    caption: below it.
    alt: in words, for readers who do not see it.
    array: u8[H, W, 3].
    photograph: whether it may be stored with losses.
    tags: (text, x, y) of names that stand in it, x and y as shares of its width and height.
  """

  caption: str
  alt: str
  array: np.ndarray
  photograph: bool = False
  tags: tuple[tuple[str, float, float], ...] = ()


class View(NamedTuple):
  """A stage's product of one image, as it is scored and as the page first shows it.

  Attributes:
    caption: what it is, in a word or two.
    labels: int[H, W], the label map that is scored; 255 where it is undecided.
    maps: f[K, H, W] in [0, 1], shown in place of the label map.
    salient: whether the labels are foreground and background, in place of the classes.
  """

  caption: str
  labels: np.ndarray
  maps: np.ndarray | None = None
  salient: bool = False


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

  @property
  def present(self) -> str:
    """The classes that it shows, in words."""
    classes = self.source.info.classes
    return ', '.join(classes[k] for k in np.flatnonzero(self.source.labels[self.index]))

  def given(self) -> list[Picture]:
    """The image, and its true mask if it has one."""
    found = [Picture('image', f'Image {self.id}, showing {self.present}', self.image, True)]
    target = self.target()
    if target is not None:
      found.append(self.coloured(target, 'true mask', f'True mask of {self.id}'))
    return found

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
    """A label map, int[H, W], in the report's colours, with the names of its classes."""
    classes = self.source.info.classes
    array = pictures.colour_mask(labels, pictures.palette(len(classes)))
    return Picture(caption, alt, array, False, self.names(labels))

  def names(self, labels: np.ndarray) -> tuple[tuple[str, float, float], ...]:
    """The tags of a label map, int[H, W]."""
    classes, counts = self.source.info.classes, np.bincount(np.ravel(labels), minlength=256)
    return tuple(
      (classes[key - 1], x, y)
      for key, (x, y) in pictures.places(labels).items()
      if key <= len(classes) and counts[key] >= _NAMED * labels.size
    )

  def seen(self, view: View) -> Picture:
    """The picture of a stage's product."""
    alt = f'{view.caption} of {self.id}'
    if view.maps is None:
      return self.coloured(view.labels, view.caption, alt)
    return self.overlaid(view.maps, view.caption, alt)

  def overlaid(self, maps: np.ndarray, caption: str, alt: str) -> Picture:
    """The largest of f[K, H, W] laid over the image."""
    laid = pictures.overlay(self.image, maps.max(axis=0).astype(np.float32))
    return Picture(caption, alt, laid, True)


ViewOf = Callable[[Example], View | None]
"""What a stage made of an image; None where it is not there."""
Ranked = list[tuple[str, float]]
"""(id, score in percent) of images, best first; NaN where there is no score."""


class Look:
  """What a section is drawn from: the files of the runs, the data set, and the images to show.

  Attributes:
    runs: (name, files) of each run that the page sets side by side.
    run: the first of them, on the page of a single run the only one.
    images: how many images of a split the priors show.
    views: by stage, what it made of an image.
    source: split -> the split, opened once; raises UserError or OSError where it cannot be.
    scored: split -> stage -> its images by their IoU with the masks, best first. Without masks IoU
      is NaN and the order that of the split. Of a long split, images at equal distances are scored.
  """

  def __init__(
    self,
    runs: Sequence[tuple[str, files.RunFiles]],
    open_source: OpenSource,
    images: int,
    views: Mapping[str, ViewOf],
  ) -> None:
    self.runs, self.run, self.images, self.views = runs, runs[0][1], images, views
    self.source = functools.cache(functools.partial(open_source, self.run.config))
    self.scored = functools.cache(self._score)

  def _score(self, split: str) -> dict[str, Ranked]:
    """Scores by the mean IoU over the runs the images of which every run has the product."""
    source = self.source(split)
    views = {
      name: view
      for name, view in self.views.items()
      if all(run.has_files(name, split) for _, run in self.runs)
    }
    found: dict[str, Ranked] = {name: [] for name in views}
    for index in spaced(len(source.ids), _LOOKED_AT) if views else ():
      made = [Example(run, split, source, index) for _, run in self.runs]
      target = made[0].target()
      for name, view in views.items():
        scores = [iou(view(example), target) for example in made]
        known = [score for score in scores if score is not None]
        if len(known) == len(scores) and not (source.has_masks and np.isnan(known).any()):
          found[name].append((source.ids[index], float(np.mean(known))))
    if source.has_masks:
      return {name: sorted(scores, key=lambda item: -item[1]) for name, scores in found.items()}
    return found

  def ranked(self, split: str, stage: str) -> Ranked:
    """A stage's images, best first; none where the split does not open or has no products."""
    try:
      return self.scored(split).get(stage, [])
    except (errors.UserError, OSError):
      return []

  def chosen(self, split: str, stage: str = 'priors') -> list[tuple[str, str, float]]:
    """The images that the section on a stage shows, by its own score, as `choose` gives them.

    They are half as many as of the priors. Of a stage without a score the images are those of the
    priors or, without these, at equal distances in the split; there are none if it does not open.
    """
    ranked = self.ranked(split, stage) or self.ranked(split, 'priors')
    try:
      ranked = ranked or [(x, float('nan')) for x in self.source(split).ids]
    except (errors.UserError, OSError):
      return []
    return choose(ranked, -(-self.images // 2))


def iou(view: View | None, target: np.ndarray | None) -> float | None:
  """Mean IoU in percent of a label map where it is decided; None where there is none.

  The mean is over the classes that occur in the mask or in the label map, background included; it
  is NaN without a mask, and where no pixel of it counts.
  """
  if view is None or target is None:
    return None if view is None else float('nan')
  if view.labels.shape != target.shape:
    return None
  if view.salient:
    target = saliency.binary_target(target)
  open_pixels = view.labels == types.VOID
  decided = np.where(open_pixels, types.VOID, target) if open_pixels.any() else target
  return 100 * segmentation.image_iou(view.labels, decided)


def spaced(total: int, count: int) -> list[int]:
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
    return [('example', *ranked[i]) for i in spaced(len(ranked), count)]
  n = len(ranked)
  third = -(-n // 3) if n <= count else max(1, count // 3)
  start = max(0, (n - third) // 2)
  places = dict.fromkeys(range(n - third, n), 'worst')
  places |= dict.fromkeys(range(start, min(n, start + third)), 'median')
  places |= dict.fromkeys(range(third), 'best')
  return [(places[i], *ranked[i]) for i in sorted(places)]


Panels = Callable[[Example], Iterable[Picture]]
"""The pictures that follow image and mask in a strip; without any, the image is not shown."""


def gallery(
  look: Look, split: str, heading: str, panels: Panels, *, top: str = '', stage: str = 'priors'
) -> str:
  """The images chosen by a stage's score, below a heading and `top`; empty where there are none."""
  chosen = look.chosen(split, stage)
  return page.heading(heading) + top + strips(look, split, chosen, panels) if chosen else ''


def strips(look: Look, split: str, chosen: Sequence[tuple[str, str, float]], panels: Panels) -> str:
  """Images as HTML: of each the image, its mask, and what `panels` makes of it.

  Args:
    look: the runs and the data set.
    split: whose images they are.
    chosen: (why, id, IoU) of each.
    panels: the pictures that follow.
  """
  source = look.source(split)
  parts, shown = [], set()
  for why, image_id, iou in chosen:
    example = Example(look.run, split, source, source.ids.index(image_id))
    if not (found := list(panels(example))):
      continue
    shown.update(np.flatnonzero(source.labels[example.index]).tolist())
    reason = '' if np.isnan(iou) else f'{why}, IoU {iou:.1f}: '
    detail = f'{reason}{example.present}'
    parts.append(page.strip(image_id, detail, encoded([*example.given(), *found])))
  return legend(source, shown) + ''.join(parts)


def legend(source: info.Source, shown: Iterable[int]) -> str:
  """The colours of the background, of the classes with these indices, and of void."""
  palette, classes = pictures.palette(source.info.num_classes), source.info.classes
  colours = [(source.info.background, palette[0])]
  colours += [(classes[k], palette[k + 1]) for k in sorted(shown)]
  return page.legend([*colours, ('no class, or not sure', pictures.VOID_COLOUR)])


def encoded(found: Iterable[Picture], side: int = 0) -> list[page.Figure]:
  """Pictures as the page holds them; with `side`, large ones are made smaller."""
  figures = []
  for picture in found:
    array = picture.array
    small = max(array.shape[:2]) < _SMALL
    if side:
      array = pictures.shrink(array, side, smooth=picture.photograph)
    uri = pictures.data_uri(array, photograph=picture.photograph and not small)
    figures.append(page.Figure(picture.caption, picture.alt, uri, small, picture.tags))
  return figures
