"""Tables of results, for the terminal and for Markdown."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pnoc_jax.metrics import saliency
from pnoc_jax.report import files

Item = TypeVar('Item')
Cell = str | float | None
Row = Sequence[Cell]
"""A line of a table; `cell` makes text of its numbers."""


def number(value: float | None, digits: int = 1) -> str:
  """A number for a table; a dash for what is absent or not finite."""
  return '-' if value is None or not np.isfinite(value) else f'{value:.{digits}f}'


def cell(value: Cell) -> str:
  """A cell as text; numbers have one digit after the point."""
  return value if isinstance(value, str) else number(value)


def aligned(header: Sequence[str], rows: Sequence[Row], *, rule_before: int | None = None) -> str:
  """Columns for a terminal: the first left-aligned, the others right-aligned.

  Args:
    header: names of the columns.
    rows: cells.
    rule_before: draw a second line before this row.
  """
  lines = [list(map(cell, line)) for line in (header, *rows)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  rule = '  '.join('-' * width for width in widths)
  text = [
    '  '.join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:]))]).rstrip()
    for first, *others in lines
  ]
  if rule_before is not None:
    text.insert(1 + rule_before, rule)
  text.insert(1, rule)
  return '\n'.join(text)


def is_of_saliency(result: files.Result) -> bool:
  """Whether a result is of foreground and background, in place of the data set's classes."""
  return set(result['iou']) == set(saliency.CLASSES)


def is_of_all_classes(result: files.Result) -> bool:
  """Whether a result is of the data set's classes and counts all labelled pixels."""
  return not is_of_saliency(result) and 'undecided' not in result


PER_CLASS_HEADER = ('class', 'IoU', 'FP', 'FN')


def per_class_rows(result: files.Result) -> list[Row]:
  """IoU, false positives and negatives of each class, then means with and without background."""
  columns = [result.get(key, {}) for key in ('iou', 'fp_class', 'fn_class')]
  rows: list[Row] = [(name, *(column.get(name) for column in columns)) for name in result['iou']]
  foreground = (result.get(key) for key in ('miou_fg', 'fp', 'fn'))
  return [*rows, ('mean', result.get('miou'), '', ''), ('mean of foreground', *foreground)]


def score(result: files.Result) -> str:
  """The table of a score by class for a terminal, and below it the other figures of the result.

  Args:
    result: of `metrics.thresholds.best_score` or `metrics.segmentation.score`, in percent.
  """
  rows = per_class_rows(result)
  lines = [aligned(PER_CLASS_HEADER, rows, rule_before=len(rows) - 2)]
  if 'threshold' in result:
    lines.append(f'best threshold {result["threshold"]:.2f}')
  if 'maps' in result:
    maps = result['maps']
    lines.append(f'2-class mIoU of the maps {number(maps["miou"])} at {maps["threshold"]:.2f}')
  if 'segmentation' in result:
    lines.append(f'mIoU with the true classes {number(result["segmentation"]["miou"])}')
  if 'segmentation' in result and 'priors' in result:
    lines.append(f'mIoU with the priors {number(result["priors"]["miou"])}')
  if 'undecided' in result:
    undecided, accuracy = number(result['undecided']), number(result['accuracy'])
    lines.append(f'undecided {undecided} %; accuracy of the others {accuracy} %')
  lines += [f'note: {said}' for said in notes(result)]
  return '\n'.join(lines)


def notes(result: files.Result) -> list[str]:
  """What must be known before a score is read: classes that its masks do not show."""
  absent = result.get('absent')
  if not absent:
    return []
  named = ', '.join(absent[:8]) + (f' and {len(absent) - 8} more' if len(absent) > 8 else '')
  return [
    f'the masks hold no pixel of {named}: what is not there counts 0 in the means (a value of 255 '
    'is void, and no class)'
  ]


PROXY_HEADER = ('without masks', '%', 'good is', 'what it is')


def proxy_rows(*groups: Sequence[files.Result]) -> list[Row]:
  """One row for each thing that tells how sure priors are; those that are not known are left out.

  Args:
    *groups: results of `stages.common.proxy.measure`, a column each; the results of a group differ
      in their seed alone.
  """
  scales = groups[0][0]['scales']
  views = 'of the image and its mirror image' if scales == 1 else f'of {scales:g} scales'
  rows = (
    ('crf', 'maps and CRF agree', 'high', 'IoU of the label maps before and after a CRF'),
    ('shown', 'classes shown', 'high', 'classes of the images that the label maps show at all'),
    ('views', 'views agree', 'high', f'IoU of the label maps and those {views} alone'),
    ('undecided', 'undecided', 'low', 'pixels that give AffinityNet no label'),
    ('whole', 'class in the image', 'high', "the network's probability of a class that is there"),
    ('erased', 'class when erased', 'low', 'the same without the pixels that the map marks'),
  )
  found = []
  for key, name, good, what in rows:
    values = [[result.get(key) for result in group] for group in groups]
    if any(x is not None for group in values for x in group):
      found.append((name, *map(spread, values), good, what))
  return found


PROXY_NOTE = (
  'A proxy, not a score: maps can be sure and wrong. Measured where there are masks, on 18 '
  'networks of three trainings on the data set shapes (docs/results.md), the agreement of maps and '
  'CRF followed mIoU (rank correlation 0.82), and still preferred Puzzle-CAM to the better P-OC. '
  'The other figures did not follow it. A class that is not shown at all is wrong for sure.'
)


def proxy(result: files.Result) -> str:
  """How sure the priors of a split without masks are, for a terminal."""
  rows = [(name, value, good) for name, value, good, _ in proxy_rows([result])]
  looked = f'{result["images"]} images, background at {result["threshold"]:.2f}'
  return '\n'.join([aligned(PROXY_HEADER[:3], rows), looked, PROXY_NOTE])


def whole_run(run: files.RunFiles) -> str:
  """mIoU of every product, one column a split."""
  rows = [
    (run.scored[name].title, *(found.get(split, {}).get('miou') for split in run.score_splits))
    for name, found in run.scores.items()
  ]
  return aligned(('mIoU', *run.score_splits), rows)


ABLATION_HEADER = ('method', 'runs', 'mIoU', 'mIoU fg', 'FP', 'FN', 'threshold')


def ablation_rows(runs: Sequence[tuple[str, files.Result]]) -> list[tuple[str, ...]]:
  """One row a group, in order of appearance: mean and, over several runs, standard deviation.

  Args:
    runs: (group, result) of each run; the runs of a group differ in their seed alone.
  """
  return [
    (
      group,
      str(len(results)),
      *(spread([r.get(key) for r in results]) for key in ('miou', 'miou_fg', 'fp', 'fn')),
      spread([r.get('threshold') for r in results], digits=2),
    )
    for group, results in by_group(runs).items()
  ]


def by_group(runs: Sequence[tuple[str, Item]]) -> dict[str, list[Item]]:
  """What belongs to each group, in order of appearance; `runs` holds (group, item) of each run."""
  groups: dict[str, list[Item]] = {}
  for group, item in runs:
    groups.setdefault(group, []).append(item)
  return groups


def spread(values: Sequence[float | None], digits: int = 1) -> str:
  """`mean ± standard deviation` (of the sample, n - 1); the mean alone of one value."""
  known = [value for value in values if value is not None]
  if not known:
    return '-'
  mean = number(float(np.mean(known)), digits)
  return mean if len(known) == 1 else f'{mean} ± {number(float(np.std(known, ddof=1)), digits)}'
