"""Looks at every example of a split once, and tells what a run should know about them."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data.inspect import checks, statistics
from pnoc_jax.data.inspect.findings import Finding, Severity
from pnoc_jax.io import atomic, images

_SHOWN = 5  # So many ids are named in a finding.
_MANY = 20  # So many problems of one kind are told one by one.


@dataclasses.dataclass(frozen=True)
class Survey:
  """What one look at N examples showed.

  Attributes:
    problems: what is wrong with examples.
    sound: bool[N], whether nothing is wrong with an example.
    areas: f64[N, K + 1], each mask's `statistics.shares`, 0 for broken ones; None without masks.
    sizes: i64[N, 2] (H, W), 0 for broken ones.
    modes: Pillow's name of the images' colours -> ids.
  """

  problems: list[checks.Problem]
  sound: np.ndarray
  areas: np.ndarray | None
  sizes: np.ndarray
  modes: dict[str, list[str]]

  def statistics(self, source: info.Source) -> statistics.ClassStatistics:
    """Of the sound examples."""
    areas = None if self.areas is None else self.areas[self.sound]
    return statistics.class_statistics(source.labels[self.sound], areas)


def look(
  source: info.Source,
  *,
  on_progress: Callable[[int, int], None] | None = None,
  threads: int = 4,
) -> Survey:
  """Decodes all images and masks of a source.

  Args:
    source: the examples.
    on_progress: called with (examples done, examples).
    threads: how many threads decode.
  """
  count, num_classes = len(source), source.info.num_classes
  problems, modes = [], collections.defaultdict(list)
  sound = np.ones(count, bool)
  sizes = np.zeros((count, 2), np.int64)
  areas = np.zeros((count, num_classes + 1)) if source.has_masks else None

  def examine(index):
    found, image, mask = checks.examine(source, index)
    size = (0, 0) if image is None else image.shape[:2]
    share = None if mask is None else statistics.shares(mask, num_classes)
    return found, size, share, _mode(source, index)

  with futures.ThreadPoolExecutor(threads) as pool:
    for i, (found, size, share, mode) in enumerate(pool.map(examine, range(count))):
      problems += [checks.Problem(source.ids[i], x) for x in found]
      sound[i], sizes[i] = not found, size
      if sound[i] and share is not None and areas is not None:
        areas[i] = share
      if mode is not None:
        modes[mode].append(source.ids[i])
      if on_progress is not None:
        on_progress(i + 1, count)
  return Survey(problems, sound, areas, sizes, dict(modes))


def _mode(source, index):
  """Pillow's name of a colour image's colours, or None."""
  files = source.files(index)
  if len(source.info.mean) != 3 or not files:
    return None
  try:
    return images.image_mode(files[0])
  except errors.UserError:
    return None  # It is among the problems.


def judge(
  source: info.Source,
  survey: Survey,
  *,
  trains: bool,
  known: int | None = None,
  own_list: bool = False,
  broken: Severity = Severity.FAULT,
) -> list[Finding]:
  """The findings of a survey.

  Args:
    source: the examples.
    survey: what a look at them showed.
    trains: whether networks learn from this split.
    known: number of images of the published split, if one is known.
    own_list: whether the ids are from a list in place of the data set's own.
    broken: how much a broken example matters; it is less if the run leaves it out.
  """
  about = f'split {source.split}'
  found = [_count(source, survey, about, known, own_list)]
  found += [Finding(Severity.WARNING, about, x) for x in info.remarks(source)]
  lines = [f'{x.id}: {x.what}' for x in survey.problems]
  found += [Finding(broken, about, x) for x in lines[:_MANY]]
  if len(lines) > _MANY:
    found.append(Finding(broken, about, f'... and {len(lines) - _MANY} more broken examples'))
  found += _labels(source, survey, about, trains)
  found += _agreement(source, survey, about)
  for mode, ids in sorted(survey.modes.items()):
    if mode != 'RGB':
      what = f'{len(ids)} images are {mode}, and are read as RGB: {_some(ids)}'
      found.append(Finding(Severity.FACT, about, what))
  return found


def _count(source, survey, about, known, own_list):
  sides = survey.sizes[survey.sound]
  spread = ''
  if len(sides):
    low, high = sides.min(0), sides.max(0)
    spread = f', {low[0]}x{low[1]} to {high[0]}x{high[1]} px (height x width)'
  text = f'{len(source)} images{spread}, {"with" if source.has_masks else "without"} masks'
  if known is None:
    return Finding(Severity.FACT, about, text)
  if len(source) == known:
    return Finding(Severity.FACT, about, f'{text}; as many as published')
  level = Severity.WARNING if own_list else Severity.FAULT
  return Finding(level, about, f'{text}; published are {known}: {len(source) - known:+d}')


def _labels(source, survey, about, trains):
  """Classes without images, and images without a class."""
  labelled = source.labels.any(1)
  if not labelled.any():
    level = Severity.FAULT if trains else Severity.FACT
    return [Finding(level, about, 'no image has a label')]
  found = []
  absent = [x for x, n in zip(source.info.classes, source.labels.sum(0), strict=True) if not n]
  if absent:
    level = Severity.FAULT if trains else Severity.WARNING
    found.append(Finding(level, about, f'no image has the class {_some(absent, len(absent))}'))
  everywhere = [x for x, n in zip(source.info.classes, source.labels.sum(0)) if n == len(source)]
  if trains and everywhere:
    what = (
      f'every image has the class {_some(everywhere)}: no label tells it from what it stands on'
    )
    found.append(Finding(Severity.WARNING, about, f'{what}; add images without it'))
  empty = np.flatnonzero(~labelled)
  if not len(empty):
    return found
  ids = [source.ids[i] for i in empty]
  what = (
    f'{len(ids)} images have no label: they train no classifier and have pseudo masks of '
    f'background alone: {_some(ids)}'
  )
  if survey.areas is None:
    return [*found, Finding(Severity.WARNING, about, what)]
  shown = [i for i in empty if survey.areas[i, 1:].any()]
  for i in shown[:_MANY]:
    names = _names(source, survey.areas[i, 1:] > 0)
    what_shown = f'{source.ids[i]}: its label is empty, its mask shows {names}'
    found.append(Finding(Severity.FAULT, about, what_shown))
  if len(shown) > _MANY:
    more = f'... and {len(shown) - _MANY} more images whose empty label is not that of the mask'
    found.append(Finding(Severity.FAULT, about, more))
  return [*found, Finding(Severity.FACT, about, what)]


def _agreement(source, survey, about, tolerance=0.02):
  """Compares labels with masks; in the field's data sets about a percent of the images differ."""
  if survey.areas is None:
    return []
  label, shown = source.labels > 0, survey.areas[:, 1:] > 0
  compared = survey.sound & label.any(1)
  # If a mask shows other classes and none of its label's, it belongs to another image.
  swapped = compared & shown.any(1) & ~(label & shown).any(1)
  found = [
    Finding(
      Severity.FAULT,
      about,
      f'{source.ids[i]}: its label is {_names(source, label[i])}, its mask shows '
      f'{_names(source, shown[i])}: is it the mask of another image?',
    )
    for i in np.flatnonzero(swapped)[:_MANY]
  ]
  if swapped.sum() > _MANY:
    more = f'... and {swapped.sum() - _MANY} more masks that show no class of their label'
    found.append(Finding(Severity.FAULT, about, more))
  rest = compared & ~swapped
  for wrong, weight, what in (
    (shown & ~label, survey.areas[:, 1:], 'a class in the mask that is not in the label'),
    (label & ~shown, label, 'a class in the label that is not in the mask'),
  ):
    rows = np.flatnonzero(rest & wrong.any(1))
    if len(rows):
      worst = sorted(rows, key=lambda i: -(weight[i] * wrong[i]).sum())[:_SHOWN]
      named = [f'{source.ids[i]} ({_names(source, wrong[i])})' for i in worst]
      share = len(rows) / compared.sum()
      level = Severity.WARNING if share > tolerance else Severity.FACT
      text = f'{len(rows)} images ({share:.1%}) have {what}; the worst are {", ".join(named)}'
      found.append(Finding(level, about, text))
  return found


def compare(train: info.Source, val: info.Source) -> list[Finding]:
  """Finds images that are in both splits, which should have none in common."""
  both = sorted(set(train.ids) & set(val.ids))
  if not both:
    return []
  about = f'splits {train.split} and {val.split}'
  return [Finding(Severity.FAULT, about, f'{len(both)} images are in both: {_some(both)}')]


def line_ends(config: info.DatasetConfig, splits: Iterable[str]) -> list[Finding]:
  """Names the lists that have line ends of Windows, which are read like others."""
  if config.source is not info.Storage.FILES:
    return []
  names = ['classes.txt', *(f'{x}.txt' for x in splits)]
  paths = [pathlib.Path(config.labels).expanduser()] if config.labels else []
  for place in filter(None, (config.lists, config.root)):
    for folder, below, there in os.walk(pathlib.Path(place).expanduser()):
      below[:] = [x for x in below if not x.startswith('.')]
      texts = sorted(x for x in there if x in names or x.endswith('.csv'))
      paths += [pathlib.Path(folder, x) for x in texts]
  found = [str(x) for x in dict.fromkeys(paths) if _has_crlf(x)]
  what = 'has CRLF line ends, which is no fault'
  return [Finding(Severity.FACT, 'lists', f'{x} {what}') for x in found]


def _has_crlf(path: pathlib.Path) -> bool:
  """Whether the first lines have the line ends of Windows; not, if the file cannot be read."""
  try:
    with atomic.require_file(path).open('rb') as file:
      return b'\r\n' in file.read(1 << 16)
  except OSError:
    return False


def _names(source, which: np.ndarray) -> str:
  return ', '.join(x for x, has in zip(source.info.classes, which, strict=True) if has)


def _some(ids: Sequence[str], shown: int = _SHOWN) -> str:
  more = len(ids) - shown
  return ', '.join(ids[:shown]) + (f' and {more} more' if more > 0 else '')
