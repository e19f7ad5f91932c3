"""The paper's tables: which rows each has, and which numbers of a run's records stand in it."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info
from pnoc_jax.data.inspect import statistics
from pnoc_jax.engine import settings
from pnoc_jax.paper import rows as row_lib
from pnoc_jax.paper import sheets
from pnoc_jax.report import files, published
from pnoc_jax.stages import c2am

Found = Sequence[tuple[row_lib.Row, PipelineConfig, Sequence[files.RunFiles | None]]]
"""Of each row: its config, and the files of its runs by seed; None for a run that is not there."""


@dataclasses.dataclass(frozen=True)
class Look:
  """What a table is made from.

  Attributes:
    config: that was given.
    found: its rows with their runs.
    source: opens a split of the data set, or raises UserError.
    statistics: of the classes of a split, by its masks.
  """

  config: PipelineConfig
  found: Found
  source: Callable[[str], info.Source]
  statistics: Callable[[str], statistics.ClassStatistics]

  @property
  def splits(self) -> list[str]:
    """The splits that are scored: those of which a run has scores, or all before there is one."""
    wanted = list(self.config.evaluation.splits or self.config.priors.splits)
    known = {x for _, _, runs in self.found for run in runs if run for x in run.score_splits}
    return [x for x in wanted if x in known] or wanted

  @property
  def train(self) -> str:
    """The split that stands for the paper's "train": the first that is scored."""
    return self.splits[0]

  @property
  def val(self) -> str:
    """The split that stands for the paper's "val": the last that is scored."""
    return self.splits[-1]

  def published(self, stage: str, split: str) -> tuple[str, str]:
    """What of the authors' numbers a column of a split can stand beside: a `Column.printed`."""
    # Theirs are of the training split, but for predictions.
    is_val = split == self.config.dataset.val_split
    if is_val != (stage == 'predictions'):
      return '', ''
    return stage, 'val' if is_val else 'train'


@dataclasses.dataclass(frozen=True)
class Column:
  """A number of a run.

  Attributes:
    title: above it.
    value: the files of a run -> the number, or None.
    digits: after the point.
    printed: (stage, words after the number in `published.scores`) of the authors' own number.
    best: whether the highest stands out.
  """

  title: str
  value: Callable[[files.RunFiles], float | None]
  digits: int = 1
  printed: tuple[str, str] = ('', '')
  best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the paper.

  Attributes:
    title: what it shows.
    rows: that it can have.
    fill: makes the sheet of what is there.
  """

  title: str
  rows: tuple[row_lib.Row, ...]
  fill: 'Callable[[Table, Look], sheets.Sheet]'


def score(name: str, split: str, key: str = 'miou') -> Callable[[files.RunFiles], float | None]:
  """Reads a number of a score; `key` may have a dot."""

  def read(run: files.RunFiles) -> float | None:
    value = run.score(name, split)
    for part in key.split('.'):
      value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None

  return read


def epoch(number: int) -> Callable[[files.RunFiles], float | None]:
  """Reads what the generator's maps scored after an epoch."""

  def read(run: files.RunFiles) -> float | None:
    stage = run.stages.get('generator')
    found = stage.rows if stage else ()
    values = [
      x['eval/miou'] for x in found if 'eval/miou' in x and round(x.get('epoch', 0)) == number
    ]
    return values[-1] if values else None

  return read


def by_row(table: Table, look: Look, columns: Sequence[Column], drawn: str) -> sheets.Sheet:
  """A line a row; beside a column stands what the authors published for the same, if they did."""
  names, best, lines = [], [], [[] for _ in look.found]
  for column in columns:
    cells = [
      sheets.column([None if run is None else column.value(run) for run in runs], column.digits)
      for _, _, runs in look.found
    ]
    printed = [_printed(row, config, *column.printed) for row, config, _ in look.found]
    for line, cell in zip(lines, cells, strict=True):
      line.append(cell)
    names.append(column.title)
    best += [column.title] if column.best else []
    if any(x is not None for x in printed):
      names.append(f'{column.title}, published')
      for line, value in zip(lines, printed, strict=True):
        line.append(sheets.column([value]))
  return sheets.Sheet(
    table.title,
    'method',
    tuple(names),
    tuple((row.title, tuple(x)) for (row, *_), x in zip(look.found, lines, strict=True)),
    drawn=(drawn,),
    best=tuple(best),
    notes=notes(look, any('published' in x for x in names)),
  )


def _printed(row: row_lib.Row, config: PipelineConfig, stage: str, words: str) -> float | None:
  """What was published for a row, of a stage and with these words after the number.

  Of the stages after the maps, numbers were published with C2AM-H alone.
  """
  refined = stage in ('saliency_priors', 'saliency', 'pseudo_masks')
  without = row.saliency is False or config.c2am.method is c2am.Hints.C2AM
  if row.network or (refined and without):
    return None
  found = published.scores(settings.as_dict(config)).get(stage, '')
  number, _, rest = found.partition(' ')
  return float(number) if rest == words and number else None


def notes(look: Look, printed: bool) -> tuple[str, ...]:
  """How many runs there are, and whether the authors' numbers can stand beside them."""
  counts = [sum(run is not None for run in runs) for _, _, runs in look.found]
  few, many = min(counts, default=0), max(counts, default=0)
  runs = f'{many} run(s) a row' if few == many else f'{few} to {many} runs a row'
  spread = ', mean ± standard deviation (n - 1) over seeds' if many > 1 else ''
  said = [f'In percent, of {look.config.dataset.name}, by {look.config.name}; {runs}{spread}.']
  if printed:
    said.append(
      '"Published": by the authors (README of their code, or the paper), with their networks and '
      'settings.'
    )
  else:
    said.append('The authors published no number for this data set and these rows.')
  return (*said, *_origin(look))


def _origin(look: Look) -> list[str]:
  """By what code and on what machine the runs were made: each in a sentence, where that differs."""
  made = [run.made for _, _, runs in look.found for run in runs if run is not None]
  counts = collections.Counter((x.get('commit', ''), x.get('machine', '')) for x in made)
  found = [
    f'{number} run(s): {f"commit {commit}" if commit else "code that left no record"}'
    f'{f" on {machine}" if machine else ""}.'
    for (commit, machine), number in counts.items()
  ]
  mixed = ['Runs were made by different code or machines.'] if len(counts) > 1 else []
  return mixed + (found if any(any(x) for x in counts) else [])


def _epochs(table: Table, look: Look, every: bool) -> sheets.Sheet:
  measured = _measured_epochs(look)
  if not every and measured:
    # The beginning, thirds and the end, or what was measured next.
    wanted = (1, *(round(measured[-1] * i / 3) for i in (1, 2, 3)))
    measured = sorted({min((x for x in measured if x >= y), default=measured[-1]) for y in wanted})
  columns = [Column(f'E{x}', epoch(x), best=True) for x in measured]
  after = f'TTA {look.train}'
  printed = look.published('priors', look.train)
  columns.append(Column(after, score('priors', look.train), printed=printed, best=True))
  if not every:
    columns += [
      Column('FP', score('priors', look.train, 'fp')),
      Column('FN', score('priors', look.train, 'fn')),
      Column('threshold', score('priors', look.train, 'threshold'), digits=2),
    ]
    if look.val != look.train:
      columns.append(Column(f'TTA {look.val}', score('priors', look.val), best=True))
  return by_row(table, look, columns, after)


def _measured_epochs(look: Look) -> list[int]:
  """The epochs after which a run has measured its maps, or will where no run has."""
  logs = [run.stages['generator'].rows for *_, runs in look.found for run in _trained(runs)]
  found = {round(x['epoch']) for log in logs for x in log if {'epoch', 'eval/miou'} <= set(x)}
  ours = look.config.generator
  planned = range(ours.eval_every, ours.epochs + 1, ours.eval_every) if ours.eval_every else ()
  return sorted(found) or list(planned)


def _trained(runs: Sequence[files.RunFiles | None]) -> list[files.RunFiles]:
  return [run for run in runs if run is not None and 'generator' in run.stages]


def _walks(table: Table, look: Look) -> sheets.Sheet:
  columns = [
    Column(
      f'{what} {split}',
      score(name, split),
      best=True,
      printed=look.published(name, split) if split == look.train else ('', ''),
    )
    for name, what in (('random_walk', 'walk'), ('pseudo_masks', 'walk and CRF'))
    for split in dict.fromkeys((look.train, look.val))
  ]
  return by_row(table, look, columns, f'walk and CRF {look.train}')


def _saliency(table: Table, look: Look) -> sheets.Sheet:
  columns = [
    Column(
      f'{short}{what}',
      score(name, look.train, key),
      best=True,
      printed=(name, 'with the true classes') if what == ', GT' else ('', ''),
    )
    for name, short in (('saliency_priors', 'P.'), ('saliency', 'R.'))
    for key, what in (
      ('segmentation.miou', ', GT'),
      ('priors.miou', ', priors'),
      ('miou', ', 2 classes'),
    )
  ]
  sheet = by_row(table, look, columns, 'R., GT')
  said = (
    'P.: masks of C2AM or C2AM-H after the CRF; R.: maps of PoolNet. GT: what is salient takes its '
    "true class; priors: the priors' class, against a background of 1 - saliency; 2 classes: "
    'foreground and background.'
  )
  return dataclasses.replace(sheet, notes=(*sheet.notes, said))


def _segmentation(table: Table, look: Look) -> sheets.Sheet:
  split = look.config.predictions.splits[0]
  columns = [
    Column(f'pseudo masks {look.train}', score('pseudo_masks', look.train)),
    Column(
      split, score('predictions', split), best=True, printed=look.published('predictions', split)
    ),
  ]
  return by_row(table, look, columns, split)


def _by_class(table: Table, look: Look, name: str, split: str) -> sheets.Sheet:
  """A line a class, a column a row; the mean over all classes is the last line."""
  results = [
    [None if run is None else run.score(name, split) for run in runs] for _, _, runs in look.found
  ]
  classes = next((list(x['iou']) for of in results for x in of if x), [])
  titles = tuple(row.title for row, *_ in look.found)

  def cells(read: Callable[[files.Result], float | None]) -> tuple[sheets.Cell, ...]:
    return tuple(sheets.column([read(x) if x else None for x in of]) for of in results)

  lines = [(x, cells(lambda result, x=x: result['iou'].get(x))) for x in classes]
  lines.append(('mean', cells(lambda result: result['miou'])))
  said = (notes(look, printed=False)[0], *_origin(look))
  return sheets.Sheet(table.title, 'class', titles, tuple(lines), drawn=titles, notes=said)


# Classes of VOC by size and by context (the paper, Table 8); other data sets have thirds by size.
_CONTEXT = {
  'singleton': ('aeroplane', 'bird', 'cat'),
  'person-related': ('boat', 'cow', 'dog', 'horse', 'sheep', 'train'),
  'room': ('chair', 'diningtable', 'pottedplant', 'sofa', 'tvmonitor'),
  'traffic': ('bicycle', 'bus', 'car', 'motorbike'),
}
_SIZE = {
  'small': ('bicycle', 'boat', 'bottle', 'chair', 'pottedplant'),
  'medium': ('aeroplane', 'bird', 'car', 'cow', 'person', 'tvmonitor'),
  'large': ('bus', 'cat', 'diningtable', 'dog', 'horse', 'motorbike', 'sheep', 'sofa', 'train'),
}


def groups(dataset: info.DatasetInfo, size: np.ndarray) -> dict[str, tuple[str, ...]]:
  """The classes that are averaged: the paper's groups on VOC, elsewhere thirds by their size.

  Args:
    dataset: names of the classes.
    size: f[K], %S of each.
  """
  if set(_SIZE['small'] + _SIZE['medium'] + _SIZE['large']) == set(dataset.classes):
    return _SIZE | _CONTEXT
  order = [dataset.classes[i] for i in np.argsort(size, kind='stable')]
  return {
    name: tuple(map(str, part))
    for name, part in zip(('small', 'medium', 'large'), np.array_split(order, 3), strict=True)
    if len(part)
  }


def _classes(table: Table, look: Look) -> sheets.Sheet:
  """Table 8: IoU by class beside size and context, means of groups, and correlations."""
  plain = _by_class(table, look, 'priors', look.train)
  if len(plain.lines) == 1:  # Nothing is scored yet.
    return plain
  known, found = look.source(look.train).info, look.statistics(look.train)
  size = np.asarray(found.size, np.float64)
  facts = {
    known.background: (size[0], None, None),
    **{
      name: (size[i + 1], found.company[i], found.count[i]) for i, name in enumerate(known.classes)
    },
  }

  def beside(numbers: Sequence[float | None]) -> tuple[sheets.Cell, ...]:
    return tuple(sheets.column([x], d) for x, d in zip(numbers, (1, 1, 2), strict=True))

  # The last line is the mean's, whatever a class is called.
  *of_classes, (mean, cells_of_mean) = plain.lines
  by_name = dict(of_classes)
  lines = [(name, (*beside(facts[name]), *cells)) for name, cells in of_classes]
  lines.append((mean, (*beside(statistics.overall(found)), *cells_of_mean)))
  for group, names in groups(known, size[1:]).items():
    means = [
      sheets.column([_mean(x) for x in zip(*(by_name[n][j].values for n in names), strict=True)])
      for j in range(len(plain.columns))
      if all(n in by_name for n in names)
    ]
    indices = [known.classes.index(n) for n in names]
    own = [float(np.nanmean(x[indices])) for x in (size[1:], found.company, found.count)]
    if means:
      lines.append((f'{group} ({len(names)})', (*beside(own), *means)))
  for name in ('%S', '%C', 'L'):
    correlations = []
    for j in range(len(plain.columns)):
      if not all(n in by_name for n in known.classes):
        continue
      of_runs = zip(*(by_name[n][j].values for n in known.classes), strict=True)
      correlations.append(
        sheets.column(
          [
            None if None in ious else statistics.correlations(found, np.array(ious, float))[name]
            for ious in of_runs
          ]
        )
      )
    if correlations:
      lines.append((f'100 r with {name}', (*beside((None,) * 3), *correlations)))
  said = (
    '%S: mean share of an image that the class covers, over the images that show it; %C: share of '
    'its images with another class; L: mean number of classes in its images. r: correlation of the '
    "classes' IoU with them (Pearson)."
  )
  return dataclasses.replace(
    plain,
    columns=('%S', '%C', 'L', *plain.columns),
    lines=tuple(lines),
    notes=(*plain.notes, said),
  )


def class_statistics(source: info.Source) -> statistics.ClassStatistics:
  """The statistics of a split's classes; looks at every mask."""
  masks = (source.mask(i) for i in range(len(source)))
  areas = [statistics.shares(x, source.info.num_classes) for x in masks if x is not None]
  return statistics.class_statistics(np.asarray(source.labels), np.stack(areas))


def _mean(values: Sequence[float | None]) -> float | None:
  known = [x for x in values if x is not None]
  return float(np.mean(known)) if len(known) == len(values) else None


def _segmentation_by_class(table: Table, look: Look) -> sheets.Sheet:
  return _by_class(table, look, 'predictions', look.config.predictions.splits[0])


def _some_epochs(table: Table, look: Look) -> sheets.Sheet:
  return _epochs(table, look, every=False)


def _all_epochs(table: Table, look: Look) -> sheets.Sheet:
  return _epochs(table, look, every=True)


_MAPS = (*row_lib.MAPS, *row_lib.NETWORKS)
_LABELS = row_lib.SEGMENTATIONS
TABLES = {
  1: Table('Table 1: mIoU of the maps while they are learnt, and with TTA', _MAPS, _some_epochs),
  2: Table('Table 2: pseudo masks after the random walk', row_lib.WALKS, _walks),
  3: Table('Table 3: saliency by hints, network and priors', row_lib.SALIENCY, _saliency),
  4: Table('Table 4: the segmentation network', _LABELS, _segmentation),
  5: Table('Table 5 (of COCO in the paper): the segmentation network', _LABELS, _segmentation),
  6: Table('Table 6: the segmentation network by class', _LABELS, _segmentation_by_class),
  7: Table('Table 7: mIoU of the maps after every epoch', _MAPS, _all_epochs),
  8: Table('Table 8: IoU of the maps by class, beside size and context', _MAPS, _classes),
}
"""The tables by their number in the paper."""
