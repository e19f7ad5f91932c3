"""The sections of a report: each turns what a run left into HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pnoc_jax.report import curves, files, page, tables
from pnoc_jax.training import clock

_METHODS = {
  'vanilla': 'Vanilla',
  'puzzle': 'Puzzle-CAM',
  'occse': 'OC-CSE',
  'poc': 'P-OC',
  'pnoc': 'P-NOC',
}
_NAMES = {
  'eval/miou': 'mIoU',
  'eval/miou_fg': 'mIoU of foreground',
  'eval/map': 'mAP',
  'eval/precision': 'precision',
  'eval/recall': 'recall',
  'eval/f1': 'F1',
  'eval/roc_auc': 'ROC-AUC',
  'eval/fp': 'FP',
  'eval/fn': 'FN',
  'eval/threshold': 'threshold',
}


def method_name(method: str) -> str:
  """A method as the literature writes it."""
  return _METHODS.get(method, method)


def dataset_name(run: files.RunFiles) -> str:
  """The data set for the reader: its kind, or its folder's name."""
  root = files.lookup(run.config, 'dataset.root', '')
  kind = files.lookup(run.config, 'dataset.name', 'an unknown data set')
  return str(root).rstrip('/').split('/')[-1] if kind == 'folder' and root else str(kind)


def summary(run: files.RunFiles) -> str:
  """What a reader wants first."""
  items = [
    ('Data set', dataset_name(run), ''),
    ('Method', method_name(run.method), files.lookup(run.config, 'generator.model.backbone', '')),
  ]
  for split, result in run.evaluations.items():
    small = f'at threshold {tables.number(result.get("threshold"), 2)}'
    if result.get('images'):
      small += f', {result["images"]} images'
    items.append((f'mIoU of the priors, {split}', tables.number(result['miou']), small))
  total = sum(_seconds(stage) or 0 for stage in run.stages)
  if total:
    items.append(('Time of all stages', clock.duration(total), ''))
  return page.cards(items)


def _seconds(stage: files.StageFiles) -> float | None:
  """What the stage says it took, or the sum over its log of steps x time a step."""
  if 'seconds' in stage.products:
    return float(stage.products['seconds'])
  rows = [row for row in stage.rows if 'time/step' in row]
  if not rows:
    return None
  steps = np.diff([0, *(row['step'] for row in rows)])
  return float(np.sum(steps * [row['time/step'] for row in rows]))


def stages(run: files.RunFiles) -> str:
  """One row a stage: how far, how long, how fast."""
  rows = []
  for stage in run.stages:
    last = stage.rows[-1] if stage.rows else {}
    speed = stage.products.get('images_per_second')
    if speed is None and stage.keys('time/images_per_second'):
      speed = float(np.median(stage.series('time/images_per_second')[1]))
    seconds = _seconds(stage)
    rows.append(
      (
        stage.name,
        'done' if stage.done else 'not finished',
        str(last['step']) if last else '-',
        tables.number(last.get('epoch')),
        clock.duration(seconds) if seconds else '-',
        tables.number(speed),
      )
    )
  header = ('stage', 'state', 'steps', 'epochs', 'time', 'images/s')
  caption = 'Times from a log leave out compilation, evaluation and saving.'
  return page.table(header, rows, caption=caption)


def training(stage: files.StageFiles, *, rule: str = 'sgd') -> str:
  """Losses, the measurements of the maps during training, and the schedules.

  Args:
    stage: a training.
    rule: of its optimiser.
  """
  figures = []

  def add(title: str, keys: Sequence[str], label: str, alt: str, **options: Any) -> None:
    series = {_NAMES.get(key, key.split('/', 1)[-1]): stage.series(key) for key in keys}
    if series:
      name = f'{stage.name}-{len(figures)}'
      svg = curves.chart(
        series, name=name, alt=f'{alt} {_ends(series)}', xlabel=stage.axis, ylabel=label, **options
      )
      figures.append((title, svg))

  add('Losses', stage.keys('loss/'), 'loss', f'Losses of the {stage.name}.')
  maps = [key for key in ('eval/miou', 'eval/miou_fg') if stage.keys(key)]
  options = {'points': True, 'mark_best': True}
  add('Maps on their own grid, no TTA', maps, '%', 'mIoU of the maps during training.', **options)
  scores = [key for key in ('eval/map', 'eval/f1') if stage.keys(key)]
  add('Classification', scores, '%', 'Classification during training.', points=True)
  ramps = [key for key in stage.keys('schedule/lambda') if '_x_' not in key]
  add('Loss coefficients', ramps, 'coefficient', 'Coefficients of the losses.')
  rates = [key for key in stage.keys('schedule/') if key not in ramps]
  add('Learning rates', rates, 'learning rate', 'Learning rates.')
  product = _noc_rate(stage, rule)
  if product is not None:
    svg = curves.chart(
      {'lambda_noc lr': product},
      name=f'{stage.name}-noc',
      alt='Effective learning rate of the noc: it rises with the ramp, then falls with the decay.',
      xlabel=stage.axis,
      ylabel='lambda_noc(t) lr(t)',
    )
    figures.append(('Effective learning rate of the noc (Fig. 7a)', svg))
  content = page.charts(figures) + _epochs(stage)
  return content or page.note('Its log holds no curve yet.')


def _ends(series: Mapping[str, curves.Series]) -> str:
  """First and last values in words, for readers who do not see a chart."""
  return '; '.join(f'{k}: from {y[0]:.4g} to {y[-1]:.4g}' for k, (_, y) in series.items()) + '.'


def _noc_rate(stage: files.StageFiles, rule: str) -> curves.Series | None:
  """lambda_noc(t) lr(t) at the steps where both are logged.

  Adaptive optimisers carry the ramp in the noc's learning rate already, since a factor on the loss
  cancels there.
  """
  rate = 'schedule/lr_noc' if stage.keys('schedule/lr_noc') else 'schedule/lr'
  rows = [row for row in stage.rows if rate in row and 'schedule/lambda_noc' in row]
  if not rows:
    return None
  ramped = rule != 'sgd' and rate == 'schedule/lr_noc'
  values = [row[rate] * (1.0 if ramped else row['schedule/lambda_noc']) for row in rows]
  return [row[stage.axis] for row in rows], values


def _epochs(stage: files.StageFiles) -> str:
  """The measurements by epoch: the columns of Table 1."""
  rows = [row for row in stage.rows if 'eval/miou' in row]
  keys = [key for key in _NAMES if any(key in row for row in rows)]
  if not rows:
    return ''
  cells = [
    (
      tables.number(row[stage.axis], 0),
      *(tables.number(row.get(key), 2 if key == 'eval/threshold' else 1) for key in keys),
    )
    for row in rows
  ]
  caption = 'Measured during training for the reader; never used to choose weights.'
  table = page.table((stage.axis, *(_NAMES[key] for key in keys)), cells, caption=caption)
  return page.folded(f'All {len(cells)} measurements', table)


def evaluation(split: str, result: Mapping[str, Any]) -> str:
  """mIoU against threshold (Fig. 7b) and the table by class."""
  header = ('class', 'IoU', 'FP', 'FN')
  caption = f'In percent, at threshold {tables.number(result.get("threshold"), 2)}.'
  table = page.table(header, tables.per_class_rows(result), caption=caption, means=2)
  chart = _threshold_chart(split, {'mIoU': result})
  return page.beside([chart, table + _other_scores(result)])


def _threshold_chart(split: str, results: Mapping[str, Mapping[str, Any]]) -> str:
  series = {name: (result['thresholds'], result['mious']) for name, result in results.items()}
  words = '; '.join(
    f'{name}: best {max(y):.1f} at {x[int(np.argmax(y))]:.2f}' for name, (x, y) in series.items()
  )
  svg = curves.chart(
    series,
    name=f'thresholds-{split}',
    alt=f'mIoU of the priors of {split} against the background threshold. {words}.',
    xlabel='threshold of the background',
    ylabel='mIoU, %',
    points=True,
    mark_best=True,
  )
  return page.chart('mIoU against threshold (Fig. 7b)', svg)


def _other_scores(result: Mapping[str, Any]) -> str:
  """Groups of numbers that stand beside the segmentation's, such as classification."""
  parts = []
  for name, scores in result.items():
    if name in ('iou', 'fp_class', 'fn_class') or not isinstance(scores, Mapping):
      continue
    known = {key: value for key, value in scores.items() if isinstance(value, int | float)}
    if known:
      names = [_NAMES.get(f'eval/{key}', key.replace('_', ' ')) for key in known]
      cells = [str(v) if isinstance(v, int) else tables.number(v) for v in known.values()]
      parts.append(page.table(('', *names), [(name, *cells)]))
  return ''.join(parts)


def training_comparison(runs: Sequence[tuple[str, files.RunFiles]]) -> str:
  """The maps' mIoU by epoch, one line a run."""
  series = {}
  axis = 'step'
  for group, run in runs:
    for stage in run.stages:
      if stage.name == 'generator' and stage.keys('eval/miou'):
        series[group], axis = stage.series('eval/miou'), stage.axis
  if not series:
    return page.note('No run measured its maps during training.')
  svg = curves.chart(
    series,
    name='training',
    alt=f'mIoU of the maps during training. {_ends(series)}',
    xlabel=axis,
    ylabel='mIoU, %',
    points=True,
  )
  return page.charts([('Maps on their own grid, no TTA', svg)])


def evaluation_comparison(split: str, results: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """The table over all runs, the threshold curves, and IoU by class as means of the groups."""
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for group, result in results:
    groups.setdefault(group, []).append(result)
  content = page.table(
    tables.ABLATION_HEADER,
    tables.ablation_rows(results),
    caption='In percent, each run at its own best threshold; ±: standard deviation over runs.',
  )
  names = list(results[0][1]['iou'])
  rows = [
    (name, *(tables.spread([r['iou'].get(name) for r in found]) for found in groups.values()))
    for name in names
  ]
  chart = _threshold_chart(split, {group: found[0] for group, found in groups.items()})
  return content + page.beside([chart, page.table(('IoU of class', *groups), rows)])
