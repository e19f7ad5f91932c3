"""The front of a report: the run in a few numbers, and all its stages in one table."""

import numpy as np

from pnoc_jax.data import sources
from pnoc_jax.engine import clock
from pnoc_jax.report import files, page, published, tables
from pnoc_jax.updates import pnoc


def method(run: files.RunFiles) -> str:
  """The run's method as the literature writes it."""
  if 'generator' not in run.stages and published.is_supervised(run.config):
    return 'Supervised'
  name = files.lookup(run.config, 'generator.method', 'unknown')
  return pnoc.METHODS[name].title if name in pnoc.METHODS else str(name)


def dataset_name(run: files.RunFiles) -> str:
  """The data set for the reader: its kind, or its folder's name."""
  root = files.lookup(run.config, 'dataset.root', '')
  kind = files.lookup(run.config, 'dataset.name', 'an unknown data set')
  named = root and kind in sources.names() and sources.row(kind).named_by_root
  return str(root).rstrip('/').split('/')[-1] if named else str(kind)


def summary(run: files.RunFiles) -> str:
  """The boxes at the top of the page: data set, method, main scores, time."""
  items = [
    ('Data set', dataset_name(run), ''),
    ('Method', method(run), files.lookup(run.config, 'generator.model.backbone', '')),
  ]
  for name, found in run.scores.items():
    for split, result in found.items() if run.scored[name].headline else ():
      title = f'mIoU of the {run.scored[name].title.lower()}, {split}'
      threshold, images = result.get('threshold'), result.get('images')
      small = [f'at threshold {tables.number(threshold, 2)}'] * (threshold is not None)
      small += [f'{images} images'] * bool(images)
      items.append((title, tables.number(result['miou']), ', '.join(small)))
  total = sum(_seconds(stage) or 0 for stage in run.stages.values())
  if total:
    items.append(('Time of all stages', clock.duration(total), ''))
  return page.cards(items)


def _seconds(stage: files.StageFiles) -> float | None:
  """The stage's time from its record, or else the sum of steps x time per step over its log."""
  if 'seconds' in stage.products:
    return float(stage.products['seconds'])
  rows = [row for row in stage.rows if 'time/step' in row]
  if not rows:
    return None
  steps = np.diff([0, *(row['step'] for row in rows)])
  return float(np.sum(steps * [row['time/step'] for row in rows]))


def stages(run: files.RunFiles) -> str:
  """One row a stage: how good, how far, how long, how fast; and what was published, if anything."""
  splits, authors = run.score_splits, published.scores(run.config)
  header = ['stage', 'state', *(f'mIoU, {split}' for split in splits)]
  header += ['published'] * bool(authors) + ['steps', 'epochs', 'time', 'images/s']
  rows = [
    [
      name.replace('_', ' '),
      'done' if found.done else 'not finished',
      *(_score(run.score(name, split)) for split in splits),
      *([authors.get(name, '')] * bool(authors)),
      *_work(found),
    ]
    for name, found in run.stages.items()
  ]
  caption = 'In percent, maps at their best threshold; of saliency, over its two classes.'
  if authors:
    caption += " Published: the authors' figures with the paper's networks and recipe."
  notes = page.paragraph('Times from a log leave out compilation, evaluation and saving.')
  return page.table(header, rows, caption=caption if splits else '') + notes


def _score(result: files.Result | None) -> str:
  if result is None:
    return ''
  return tables.number(result['miou']) + ' (of 2)' * tables.is_of_saliency(result)


def _work(stage: files.StageFiles) -> tables.Row:
  last = stage.rows[-1] if stage.rows else {}
  speed = stage.products.get('images_per_second')
  if speed is None and stage.keys('time/images_per_second'):
    speed = float(np.median(stage.series('time/images_per_second')[1]))
  seconds = _seconds(stage)
  return (
    str(last['step']) if last else '',
    last.get('epoch') if last else '',
    clock.duration(seconds) if seconds else '-',
    speed,
  )
