"""The front of a report: the run in a few numbers, and all its stages in one table."""

import numpy as np

from pnoc_jax.data import sources
from pnoc_jax.engine import clock
from pnoc_jax.report import files, page, published, tables

_METHODS = {
  'vanilla': 'Vanilla',
  'puzzle': 'Puzzle-CAM',
  'occse': 'OC-CSE',
  'poc': 'P-OC',
  'pnoc': 'P-NOC',
}
# Scores that are no mIoU over the data set's classes.
_OF_TWO = ('saliency_priors', 'saliency')


def method(run: files.RunFiles) -> str:
  """The run's method as the literature writes it."""
  trained = {stage.name for stage in run.stages}
  if (
    'segmentation' in trained and 'generator' not in trained and published.is_supervised(run.config)
  ):
    return 'Supervised'
  return _METHODS.get(run.method, run.method)


def dataset_name(run: files.RunFiles) -> str:
  """The data set for the reader: its kind, or its folder's name."""
  root = files.lookup(run.config, 'dataset.root', '')
  kind = files.lookup(run.config, 'dataset.name', 'an unknown data set')
  named = root and kind in sources.names() and sources.row(kind).named_by_root
  return str(root).rstrip('/').split('/')[-1] if named else str(kind)


def summary(run: files.RunFiles) -> str:
  """What a reader wants first."""
  items = [
    ('Data set', dataset_name(run), ''),
    ('Method', method(run), files.lookup(run.config, 'generator.model.backbone', '')),
  ]
  for split, result in run.evaluations.items():
    small = f'at threshold {tables.number(result.get("threshold"), 2)}'
    if result.get('images'):
      small += f', {result["images"]} images'
    items.append((f'mIoU of the priors, {split}', tables.number(result['miou']), small))
  for name in ('pseudo_masks', 'predictions'):
    for split, result in run.scores.get(name, {}).items():
      what = tables.title(name).lower()
      backbone = files.lookup(run.config, 'segmentation.model.backbone', '')
      small = backbone if name == 'predictions' else ''
      items.append((f'mIoU of the {what}, {split}', tables.number(result['miou']), small))
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
  """One row a stage: how good, how far, how long, how fast; and what was published, if anything."""
  splits = tuple(dict.fromkeys(split for found in run.scores.values() for split in found))
  authors = published.scores(run.config)
  header = ['stage', 'state', *(f'mIoU, {split}' for split in splits)]
  header += ['published'] * bool(authors) + ['steps', 'epochs', 'time', 'images/s']
  rows = [
    [
      stage.name.replace('_', ' '),
      'done' if stage.done else 'not finished',
      *(_score(run, stage.name, split) for split in splits),
      *([authors.get(stage.name, '')] * bool(authors)),
      *_work(stage),
    ]
    for stage in run.stages
  ]
  caption = 'In percent, maps at their best threshold; of saliency, over its two classes.'
  if authors:
    caption += " Published: the authors' figures with the paper's networks and recipe."
  notes = page.paragraph('Times from a log leave out compilation, evaluation and saving.')
  return page.table(header, rows, caption=caption if splits else '') + notes


def _score(run: files.RunFiles, name: str, split: str) -> str:
  result = run.scores.get(name, {}).get(split)
  if result is None:
    return ''
  return tables.number(result['miou']) + (' (of 2)' if name in _OF_TWO else '')


def _work(stage: files.StageFiles) -> tuple[str, str, str, str]:
  last = stage.rows[-1] if stage.rows else {}
  speed = stage.products.get('images_per_second')
  if speed is None and stage.keys('time/images_per_second'):
    speed = float(np.median(stage.series('time/images_per_second')[1]))
  seconds = _seconds(stage)
  return (
    str(last['step']) if last else '',
    tables.number(last.get('epoch')) if last else '',
    clock.duration(seconds) if seconds else '-',
    tables.number(speed),
  )
