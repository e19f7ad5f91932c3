"""The sections on trainings and priors: each turns what a run left into HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pnoc_jax.report import curves, files, page, tables

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
  maps = [key for key in ('eval/miou', 'eval/miou_fg') if key in stage.keys(key)]
  options = {'points': True, 'mark_best': True}
  cams = stage.name in ('classifier', 'generator')
  title = 'Maps on their own grid, no TTA' if cams else 'Measured during training'
  add(title, maps, '%', 'mIoU during training.', **options)
  scores = [key for key in ('eval/map', 'eval/f1') if key in stage.keys(key)]
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
  chart = threshold_chart('priors', split, {'mIoU': result})
  return page.beside([chart, class_table(result) + _classification(result)])


def class_table(result: Mapping[str, Any]) -> str:
  """IoU, false positives and negatives of each class."""
  caption = 'In percent.'
  if 'threshold' in result:
    caption = f'In percent, at threshold {tables.number(result["threshold"], 2)}.'
  header = ('class', 'IoU', 'FP', 'FN')
  return page.table(header, tables.per_class_rows(result), caption=caption, means=2)


def threshold_chart(product: str, split: str, results: Mapping[str, Mapping[str, Any]]) -> str:
  """mIoU against the threshold, one line a result.

  Args:
    product: what is scored; with the split, unique in the page.
    split: of the data set.
    results: by name in the legend.
  """
  series = {name: (result['thresholds'], result['mious']) for name, result in results.items()}
  words = '; '.join(
    f'{name}: best {max(y):.1f} at {x[int(np.argmax(y))]:.2f}' for name, (x, y) in series.items()
  )
  svg = curves.chart(
    series,
    name=f'thresholds-{product}-{split}',
    alt=f'mIoU of the {product.replace("_", " ")} of {split} against the threshold. {words}.',
    xlabel='threshold of the background',
    ylabel='mIoU, %',
    points=True,
    mark_best=True,
  )
  figure = ' (Fig. 7b)' if product == 'priors' else ''
  return page.chart(f'mIoU against threshold{figure}', svg)


def _classification(result: Mapping[str, Any]) -> str:
  """How well the network that made the priors tells the classes of an image."""
  scores = result.get('classification', {})
  known = {key: value for key, value in scores.items() if isinstance(value, int | float)}
  known = {key: v for key, v in known.items() if v or not key.startswith('undefined')}
  if not known:
    return ''
  names = [_NAMES.get(f'eval/{key}', key.replace('_', ' ')) for key in known]
  cells = [str(v) if isinstance(v, int) else tables.number(v) for v in known.values()]
  return page.table(('', *names), [('classification', *cells)])


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
  groups = tables.by_group(results)
  content = score_comparison(results)
  names = list(results[0][1]['iou'])
  rows = [
    (name, *(tables.spread([r['iou'].get(name) for r in found]) for found in groups.values()))
    for name in names
  ]
  chart = threshold_chart('priors', split, {group: found[0] for group, found in groups.items()})
  return content + page.beside([chart, page.table(('IoU of class', *groups), rows)])


def score_comparison(results: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """The table of one score over all runs; of saliency also what it gives with classes (Table 3)."""
  caption = 'In percent, maps at their best threshold; ±: standard deviation over runs.'
  content = page.table(tables.ABLATION_HEADER, tables.ablation_rows(results), caption=caption)
  if not any('segmentation' in result for _, result in results):
    return content
  rows = [
    (
      group,
      *(
        tables.spread([result.get(key, {}).get('miou') for result in found])
        for key in ('segmentation', 'priors')
      ),
    )
    for group, found in tables.by_group(results).items()
  ]
  return content + page.table(('mIoU', 'with the true classes', 'with the priors'), rows)
