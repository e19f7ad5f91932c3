"""Tables of results, for the terminal and for Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def per_class(result: Mapping[str, Any], classes: Sequence[str] | None = None) -> str:
  """The evaluation's table: IoU, false positives and false negatives of each class.

  Args:
    result: of `metrics.thresholds.best_score` or `metrics.segmentation.score`, in percent.
    classes: names in order, the background first; all of the result's by default.

  Returns:
    Lines for a terminal.
  """
  rows = per_class_rows(result, classes)
  text = aligned(('class', 'IoU', 'FP', 'FN'), rows, rule_before=len(rows) - 2)
  if 'threshold' in result:
    text += f'\nbest threshold {result["threshold"]:.2f}'
  return text


_TITLES = {
  'priors': 'Priors',
  'priors_crf': 'Priors after the CRF',
  'saliency_priors': 'Saliency masks of C2AM',
  'saliency': 'Saliency maps',
  'affinity_labels': 'Affinity labels',
  'random_walk': 'Random walk',
  'pseudo_masks': 'Pseudo masks',
  'predictions': 'Predictions',
}
SCORES = tuple(_TITLES)
"""The scores that a run can have, in the order of its stages."""


def title(score: str) -> str:
  """What is scored, for a heading."""
  return _TITLES.get(score, score.replace('_', ' '))


def score(result: Mapping[str, Any]) -> str:
  """The table of any score, and in lines what stands beside it."""
  lines = [per_class(result)]
  if 'maps' in result:
    maps = result['maps']
    lines.append(f'2-class mIoU of the maps {number(maps["miou"])} at {maps["threshold"]:.2f}')
  if 'segmentation' in result:
    lines.append(f'mIoU with the true classes {number(result["segmentation"]["miou"])}')
  if 'segmentation' in result and 'priors' in result:
    lines.append(f'mIoU with the priors {number(result["priors"]["miou"])}')
  if 'undecided' in result:
    lines.append(
      f'undecided {number(result["undecided"])} %; '
      f'accuracy of the others {number(result["accuracy"])} %'
    )
  return '\n'.join(lines)


def whole_run(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
  """mIoU of every product, one column a split.

  Args:
    scores: score -> split -> result.
  """
  splits = tuple(dict.fromkeys(split for found in scores.values() for split in found))
  rows = [
    (title(name), *(number(found.get(split, {}).get('miou')) for split in splits))
    for name, found in scores.items()
  ]
  return aligned(('mIoU', *splits), rows)


def per_class_rows(
  result: Mapping[str, Any], classes: Sequence[str] | None = None
) -> list[tuple[str, str, str, str]]:
  """Rows (name, IoU, FP, FN) of each class, then of the means with and without background."""
  names = list(result['iou']) if classes is None else list(classes)
  columns = [result.get(key, {}) for key in ('iou', 'fp_class', 'fn_class')]
  rows = [(name, *(number(column.get(name)) for column in columns)) for name in names]
  rows.append(('mean', number(result.get('miou')), '', ''))
  means = (number(result.get(key)) for key in ('miou_fg', 'fp', 'fn'))
  return [*rows, ('mean of foreground', *means)]


def number(value: float | None, digits: int = 1) -> str:
  """A number for a table; a dash for what is absent or not finite."""
  if value is None or not np.isfinite(value):
    return '-'
  return f'{value:.{digits}f}'


def aligned(
  header: Sequence[str], rows: Sequence[Sequence[str]], *, rule_before: int | None = None
) -> str:
  """Columns for a terminal: the first left-aligned, the others right-aligned.

  Args:
    header: names of the columns.
    rows: cells.
    rule_before: draw a second line before this row.
  """
  lines = [header, *rows]
  widths = [max(len(str(line[i])) for line in lines) for i in range(len(header))]
  rule = '  '.join('-' * width for width in widths)
  text = [
    '  '.join(
      [f'{line[0]:<{widths[0]}}', *(f'{c:>{w}}' for c, w in zip(line[1:], widths[1:]))]
    ).rstrip()
    for line in lines
  ]
  if rule_before is not None:
    text.insert(1 + rule_before, rule)
  text.insert(1, rule)
  return '\n'.join(text)


ABLATION_HEADER = ('method', 'runs', 'mIoU', 'mIoU fg', 'FP', 'FN', 'threshold')


def ablation_rows(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, ...]]:
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


def by_group(
  runs: Sequence[tuple[str, Mapping[str, Any]]],
) -> dict[str, list[Mapping[str, Any]]]:
  """The results of each group, in order of appearance."""
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for group, result in runs:
    groups.setdefault(group, []).append(result)
  return groups


def spread(values: Sequence[float | None], digits: int = 1) -> str:
  """`mean ± standard deviation` (of the sample, n - 1); the mean alone of one value."""
  known = [value for value in values if value is not None]
  if not known:
    return '-'
  mean = number(float(np.mean(known)), digits)
  return mean if len(known) == 1 else f'{mean} ± {number(float(np.std(known, ddof=1)), digits)}'


def ablation(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """The table of a comparison for a terminal; see `ablation_rows`."""
  return aligned(ABLATION_HEADER, ablation_rows(runs))


def ablation_markdown(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """The table of a comparison in Markdown; see `ablation_rows`."""
  lines = [ABLATION_HEADER, ('---', *['---:'] * (len(ABLATION_HEADER) - 1)), *ablation_rows(runs)]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
