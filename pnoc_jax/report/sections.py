"""The sections on trainings and on priors, of one run and of several."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.io import images
from pnoc_jax.report import contract, curves, examples, files, page, pictures, tables

_NAMES = {
  'eval/miou': 'mIoU',
  'eval/miou_fg': 'mIoU of foreground',
  'eval/miou_inverted': 'mIoU, map inverted',
  'eval/miou_fg_inverted': 'mIoU of foreground, map inverted',
  'eval/threshold_inverted': 'threshold, map inverted',
  'eval/pseudo/miou': 'mIoU against the pseudo masks',
  'eval/pseudo/miou_fg': 'mIoU of foreground against the pseudo masks',
  'eval/map': 'mAP',
  'eval/precision': 'precision',
  'eval/recall': 'recall',
  'eval/f1': 'F1',
  'eval/roc_auc': 'ROC-AUC',
  'eval/fp': 'FP',
  'eval/fn': 'FN',
  'eval/threshold': 'threshold',
  'eval/judge_whole': 'judge, whole images',
  'eval/judge_soft': 'judge, softly erased',
  'eval/judge_hard': 'judge, hard erased',
}


def training(run: files.RunFiles, name: str) -> str:
  """Losses, the measurements of the maps during training, and the schedules of a stage."""
  stage, figures = run.stages[name], []

  def add(
    title: str, lines: Mapping[str, curves.Series], ylabel: str, alt: str, **how: Any
  ) -> None:
    if lines:
      alt = f'{alt} {_ends(lines)}'
      svg = curves.chart(lines, alt=alt, xlabel=stage.axis, ylabel=ylabel, **how)
      figures.append(page.chart(title, svg))

  def series(keys: Sequence[str]) -> dict[str, curves.Series]:
    return {_NAMES.get(key, key.split('/', 1)[-1]): stage.series(key) for key in keys}

  add('Losses', series(stage.keys('loss/')), 'loss', f'Losses of the {name}.')
  maps = series([key for key in stage.keys('eval/') if 'miou' in key])
  scores = series([key for key in ('eval/map', 'eval/f1') if key in stage.keys(key)])
  # Where the classification is measured too, the maps are those of a classifier.
  title = 'Maps on their own grid, no TTA' if scores else 'Measured during training'
  add(title, maps, '%', 'mIoU during training.', points=True, mark_best=True)
  add('Classification', scores, '%', 'Classification during training.', points=True)
  judged = series(stage.keys('eval/judge_'))
  alt = 'Mean score that the judge gives the erased class of a few images.'
  add('What the judge finds of a class', judged, 'mean score, %', alt, points=True)
  ramps = [key for key in stage.keys('schedule/lambda') if '_x_' not in key]
  add('Loss coefficients', series(ramps), 'coefficient', 'Coefficients of the losses.')
  rates = [key for key in stage.keys('schedule/') if key not in ramps]
  add('Learning rates', series(rates), 'learning rate', 'Learning rates.')
  effective = _noc_rate(stage, files.lookup(run.config, f'{name}.optim.rule', 'sgd'))
  title = 'Effective learning rate of the noc (Fig. 7a)'
  alt = 'Effective learning rate of the noc: it rises with the ramp, then falls with the decay.'
  add(title, effective, 'lambda_noc(t) lr(t)', alt)
  backbone = files.lookup(run.config, f'{name}.model.backbone', '')
  about = page.paragraph(f'Backbone: {backbone}.') if backbone else ''
  return about + (page.beside(figures) + _epochs(stage) or page.note('Its log holds no curve yet.'))


def _ends(lines: Mapping[str, curves.Series]) -> str:
  """First and last values in words, for readers who do not see a chart."""
  return '; '.join(f'{k}: from {y[0]:.4g} to {y[-1]:.4g}' for k, (_, y) in lines.items()) + '.'


def _noc_rate(stage: files.StageFiles, rule: str) -> dict[str, curves.Series]:
  """lambda_noc(t) lr(t) at the steps where both are logged.

  With an adaptive optimiser a factor on the loss has no effect, so the logged learning rate of the
  noc holds the ramp already.
  """
  rate = 'schedule/lr_noc' if stage.keys('schedule/lr_noc') else 'schedule/lr'
  rows = [row for row in stage.rows if rate in row and 'schedule/lambda_noc' in row]
  ramped = rule != 'sgd' and rate == 'schedule/lr_noc'
  values = [row[rate] * (1.0 if ramped else row['schedule/lambda_noc']) for row in rows]
  x = [row[stage.axis] for row in rows]
  return {'lambda_noc lr': (np.array(x), np.array(values))} if rows else {}


def _epochs(stage: files.StageFiles) -> str:
  """The measurements by epoch: the columns of Table 1."""
  rows = [row for row in stage.rows if any(key in row for key in _NAMES)]
  keys = [key for key in _NAMES if any(key in row for row in rows)]
  if not rows:
    return ''
  cells = [
    (
      tables.number(row[stage.axis], 0),
      *(tables.number(row.get(key), 2 if 'threshold' in key else 1) for key in keys),
    )
    for row in rows
  ]
  caption = 'Measured during training for the reader; never used to choose weights.'
  table = page.table((stage.axis, *(_NAMES[key] for key in keys)), cells, caption=caption)
  return page.folded(f'All {len(cells)} measurements', table)


def map_history(look: examples.Look, name: str, *, most: int = 8) -> str:
  """How the maps of a few images changed while a stage trained; empty where none are to be shown.

  Args:
    look: the run and its data set.
    name: of the stage.
    most: epochs shown, at equal distances.
  """
  folder = look.run.workdir / name / files.HISTORY
  there = (x for x in folder.glob('*') if x.name.isdecimal() and x.is_dir())
  epochs = sorted(there, key=lambda x: int(x.name))
  if not epochs or not look.images:
    return ''
  shown = [epochs[i] for i in examples.spaced(len(epochs), most)]
  parts, columns = [], 1
  for split in sorted(x.name for x in shown[-1].iterdir() if x.is_dir()):
    try:
      known = {image_id: i for i, image_id in enumerate(look.source(split).ids)}
    except (errors.UserError, OSError) as error:
      parts.append(page.note(f'No pictures, since the data set does not open: {error}'))
      continue
    for file in sorted((shown[-1] / split).rglob('*.png'))[: look.images]:
      image_id = file.relative_to(shown[-1] / split).as_posix().removesuffix('.png')
      if image_id in known:
        example = examples.Example(look.run, split, look.source(split), known[image_id])
        found = [*example.given(), *_epoch_maps(example, name, shown)]
        parts.append(page.strip(image_id, example.present, examples.encoded(found, 160)))
        columns = max(columns, len(found))
  # They are drawn while the network trains, so what is deleted later cannot come back.
  names = [{x.relative_to(epoch) for x in epoch.rglob('*.png')} for epoch in epochs]
  gone = sum(len(set().union(*names) - there) for there in names)
  if gone:
    parts.append(page.note(f'Pictures of these epochs that are not there any more: {gone}.'))
  kept = len(epochs)
  which = f'each of {kept} epochs' if len(shown) == kept else f'{len(shown)} of {kept} epochs'
  about = page.paragraph(
    f'Images at equal distances in the split that is measured during training, after {which}; no '
    'mask has a part in the choice. Each picture is the largest map of the classes in '
    'the image at one scale, each class over its own maximum in this picture: it shows where the '
    'network looks, and not how strongly. The maps of the priors join scales and mirror images.'
  )
  bar = page.colour_bar('maps', pictures.data_uri(pictures.colour_bar()))
  return page.heading('Maps over the epochs') + page.wall(about + bar + ''.join(parts), columns)


def _epoch_maps(
  example: examples.Example, name: str, epochs: Sequence[pathlib.Path]
) -> Iterator[examples.Picture]:
  """The part of an image that is measured, below its maps after some epochs."""
  image = example.image
  if not files.squeezes(example.run.config, name):
    side = min(image.shape[:2])
    image = image[:side, :side]
  for folder in epochs:
    try:
      found = images.read_mask(folder / example.split / f'{example.id}.png')
    except (errors.UserError, OSError):
      continue
    grey = images.resize_bilinear(found, image.shape[:2]).astype(np.float32) / 255
    caption = f'epoch {int(folder.name)}'
    laid = pictures.overlay(image, grey)
    yield examples.Picture(caption, f'Maps of {example.id}, {caption}', laid, True)


def training_comparison(
  runs: Sequence[tuple[str, files.RunFiles]], stages: Sequence[contract.Reported]
) -> str:
  """The maps' mIoU by epoch: a chart for each network, one line a run."""
  figures = []
  for stage in stages:
    found = {group: run.stages[stage.name] for group, run in runs if stage.name in run.stages}
    found = {group: log for group, log in found.items() if log.keys('eval/miou')}
    lines = {group: log.series('eval/miou') for group, log in found.items()}
    if lines:
      svg = curves.chart(
        lines,
        alt=f'mIoU of {stage.training_title} during training. {_ends(lines)}',
        xlabel=next(iter(found.values())).axis,
        ylabel='mIoU, %',
        points=True,
      )
      figures.append(page.chart(f'mIoU of {stage.training_title}', svg))
  return page.beside(figures) or page.note('No run measured its maps during training.')


def priors(look: examples.Look, split: str) -> str:
  """The section on priors: the table by class, the classification, and pictures."""
  # Priors of images without masks are not scored, but they are shown.
  if not look.run.has('priors', split):
    return ''
  content = ''
  if result := look.run.score('priors', split):
    content = page.beside([class_table(result), _classification(result)])
  return content + _prior_pictures(look, split)


def prior_view(example: examples.Example) -> examples.View | None:
  """The priors of an image, and what the best threshold makes of them."""
  prior = example.prior()
  if prior is None:
    return None
  threshold = example.run.threshold('priors', example.split)
  return examples.View('maps', pictures.prior_mask(prior.keys, prior.high, threshold), prior.high)


def swept(run: files.RunFiles, split: str) -> str:
  """mIoU of all maps of the classes against the threshold of the background (Fig. 7b)."""
  results = {
    run.scored[name].title: found[split]
    for name, found in run.scores.items()
    if split in found and tables.is_of_all_classes(found[split])
  }
  return threshold_chart('maps', split, results)


def class_table(result: files.Result) -> str:
  """IoU, false positives and negatives of each class."""
  caption = 'In percent.'
  if 'threshold' in result:
    caption = f'In percent, at threshold {tables.number(result["threshold"], 2)}.'
  caption = ' '.join((caption, *(f'Note: {said}.' for said in tables.notes(result))))
  rows = tables.per_class_rows(result)
  return page.table(tables.PER_CLASS_HEADER, rows, caption=caption, means=2)


def threshold_chart(product: str, split: str, results: Mapping[str, files.Result]) -> str:
  """mIoU against the threshold, one line a result.

  Args:
    product: what is scored.
    split: of the data set.
    results: by name in the legend; those of label maps have no line.
  """
  lines = {
    name: (result['thresholds'], result['mious'])
    for name, result in results.items()
    if {'thresholds', 'mious'} <= set(result)
  }
  if not lines:
    return ''
  words = '; '.join(
    f'{name}: best {max(y):.1f} at {x[int(np.argmax(y))]:.2f}' for name, (x, y) in lines.items()
  )
  svg = curves.chart(
    lines,
    alt=f'mIoU of the {product.replace("_", " ")} of {split} against the threshold. {words}.',
    xlabel='threshold of the background',
    ylabel='mIoU, %',
    points=True,
    mark_best=True,
  )
  figure = '' if product == 'saliency' else ' (Fig. 7b)'
  return page.chart(f'mIoU against threshold{figure}, {split}', svg)


def _classification(result: files.Result) -> str:
  """How well the network that made the priors tells the classes of an image."""
  scores = result.get('classification', {})
  known = {key: value for key, value in scores.items() if isinstance(value, int | float)}
  known = {key: v for key, v in known.items() if v or not key.startswith('undefined')}
  names = [_NAMES.get(f'eval/{key}', key.replace('_', ' ')) for key in known]
  cells = [str(v) if isinstance(v, int) else v for v in known.values()]
  return page.table(('', *names), [('classification', *cells)]) if known else ''


def proxy_comparison(
  split: str, results: Sequence[tuple[str, files.Result]], look: examples.Look
) -> str:
  """How sure the priors of several runs are of a split without masks, and pictures of them."""
  groups, first = tables.by_group(results), results[0][1]
  caption = f'{first["images"]} images, background at {first["threshold"]:.2f}; in percent.'
  header = (tables.PROXY_HEADER[0], *groups, *tables.PROXY_HEADER[2:])
  table = page.table(header, tables.proxy_rows(*groups.values()), caption=caption, words=True)
  return page.note(tables.PROXY_NOTE) + table + _prior_pictures(look, split)


def _prior_pictures(look: examples.Look, split: str) -> str:
  """The priors beside image and mask, of one run or of several (Fig. 8)."""
  heading = page.heading('Activations beside image and mask')
  try:
    source = look.source(split)
  except (errors.UserError, OSError) as error:
    return heading + page.note(f'No pictures, since the data set does not open: {error}')
  chosen = examples.choose(look.ranked(split, 'priors'), look.images)
  if not chosen:
    none = f'No pictures, since no prior of {split} is there and whole.'
    return heading + page.note(none) if look.images else ''
  rule = (
    'A third each of the best, of those around the median and of the worst by the mean IoU of the '
    'classes in the image; never picked by hand.'
    if source.has_masks
    else 'Images at equal distances in the split, which has no masks.'
  )
  panels = functools.partial(_prior_panels, look.runs)
  return heading + page.paragraph(rule) + examples.strips(look, split, chosen, panels)


def _prior_panels(
  runs: Sequence[tuple[str, files.RunFiles]], example: examples.Example
) -> Iterator[examples.Picture]:
  """The largest map of each run; of a single run its label map, and the map of every class."""
  for run_name, run in runs:
    prior = dataclasses.replace(example, run=run).prior()
    if prior is None:
      continue
    if len(runs) > 1:
      alt = f'Activation of {run_name} on {example.id}'
      yield example.overlaid(prior.high, run_name, alt)
      continue
    threshold = run.threshold('priors', example.split)
    labels = pictures.prior_mask(prior.keys, prior.high, threshold)
    alt = f'Label map of the prior of {example.id}'
    yield example.coloured(labels, f'prior at {threshold:.2f}', alt)
    for key, cam in zip(prior.keys[1:], prior.high):
      name = example.source.info.classes[key - 1]
      yield example.overlaid(cam[None], f'CAM: {name}', f'Activation of {name} on {example.id}')


def score_comparison(results: Sequence[tuple[str, files.Result]]) -> str:
  """The table of one score over all runs; of saliency also what it gives with classes (Table 3)."""
  caption = 'In percent, maps at their best threshold; ±: standard deviation over runs.'
  content = page.table(tables.ABLATION_HEADER, tables.ablation_rows(results), caption=caption)

  def mean(found: Sequence[files.Result], key: str) -> str:
    return tables.spread([result.get(key, {}).get('miou') for result in found])

  groups = tables.by_group(results)
  rows = [(x, mean(found, 'segmentation'), mean(found, 'priors')) for x, found in groups.items()]
  header = ('mIoU', 'with the true classes', 'with the priors')
  with_classes = any('segmentation' in result for _, result in results)
  return content + (page.table(header, rows) if with_classes else '')


def prior_comparison(
  split: str, results: Sequence[tuple[str, files.Result]], look: examples.Look
) -> str:
  """The threshold curves, IoU by class as means of the groups, and pictures of the priors."""
  groups = tables.by_group(results)
  rows = [
    (name, *(tables.spread([r['iou'].get(name) for r in found]) for found in groups.values()))
    for name in results[0][1]['iou']
  ]
  chart = threshold_chart('priors', split, {group: found[0] for group, found in groups.items()})
  table = page.table(('IoU of class', *groups), rows)
  return page.beside([chart, table]) + _prior_pictures(look, split)
