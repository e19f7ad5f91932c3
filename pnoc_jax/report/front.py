"""The front of a report: images through all stages, the run in a few numbers, how it was made."""

from collections.abc import Iterator, Sequence

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import sources
from pnoc_jax.engine import clock
from pnoc_jax.report import curves, examples, files, page, pictures, published, tables
from pnoc_jax.updates import pnoc

_SIDE = 160  # Of the pictures on the wall, in pixels.


def method(run: files.RunFiles) -> str:
  """The run's method as the literature writes it."""
  if _is_supervised(run):
    return 'Supervised'
  name = files.lookup(run.config, 'generator.method', 'unknown')
  return pnoc.METHODS[name].title if name in pnoc.METHODS else str(name)


def _is_supervised(run: files.RunFiles) -> bool:
  """Whether all that a run has was learnt from true masks."""
  return 'generator' not in run.stages and published.is_supervised(run.config)


def dataset_name(run: files.RunFiles) -> str:
  """The data set for the reader: its kind, or its folder's name."""
  root = files.lookup(run.config, 'dataset.root', '')
  kind = files.lookup(run.config, 'dataset.name', 'an unknown data set')
  named = root and kind in sources.names() and sources.row(kind).named_by_root
  return str(root).rstrip('/').split('/')[-1] if named else str(kind)


def wall(look: examples.Look, splits: Sequence[str], *, rows: int = 8) -> str:
  """A few images through all stages: of each stage, one that it fails on by its own score.

  Args:
    look: the run and its data set.
    splits: those that may be shown; the fewest are that have all stages.
    rows: images at most; no more than the sections show.

  Returns:
    HTML; empty where there is nothing to show.
  """
  shown, rows = _covering(look, splits), min(rows, look.images)
  if not shown or not rows:
    return ''
  try:
    sources = [look.source(split) for split in shown]
  except (errors.UserError, OSError) as error:
    return page.note(f'No pictures, since the data set does not open: {error}')
  parts, present, failed, most = [], set(), set(), 1
  for place, (split, source) in enumerate(zip(shown, sources)):
    count = rows // len(shown) + (place < rows % len(shown))
    strips = []
    for image_id, reasons in _picked(look, split, count, failed).items() if count else ():
      example = examples.Example(look.run, split, source, source.ids.index(image_id))
      found = list(_stations(look, example))
      present.update(np.flatnonzero(source.labels[example.index]).tolist())
      detail = '; '.join(filter(None, (*reasons, example.present)))
      strips.append(page.strip(image_id, detail, examples.encoded(found, _SIDE)))
      most = max(most, len(found))
    if strips:
      parts += [page.heading(f'{split}: {len(strips)} of {len(source.ids)} images'), *strips]
  if not parts:
    return page.note('No pictures, since no product is there and whole.')
  keys = [page.colour_bar('maps', pictures.data_uri(pictures.colour_bar()))]
  keys.append(examples.legend(sources[0], present))
  if any(source.has_masks for source in sources):
    keys.append(page.legend([(f'error: {x}', rgb) for x, rgb in pictures.ERRORS.items()], 'Errors'))
  rules = ''.join(dict.fromkeys(_rule(look, split) for split in shown))
  return page.wall(rules + page.keys(keys) + ''.join(parts), most)


def _covering(look: examples.Look, splits: Sequence[str]) -> list[str]:
  """The fewest splits that show all stages, first the one that shows most."""
  has = {
    split: {name for name in look.views if look.run.has_files(name, split)} for split in splits
  }
  found, seen = [], set()
  while best := max(
    (x for x in has if has[x] - seen), key=lambda x: len(has[x] - seen), default=''
  ):
    found.append(best)
    seen |= has[best]
  return found


def _rule(look: examples.Look, split: str) -> str:
  """How the images of a split are chosen, in words."""
  if look.source(split).has_masks:
    return page.paragraph(
      'Chosen by a rule, never by hand: one image in the middle by the score of the last stage, '
      'then the worst of each stage by its own score. Below a picture stands its IoU in percent, '
      'the mean over the classes that occur in its mask or in what the stage made of it, '
      'background included.'
    )
  if look.run.proxies.get(split, {}).get('by_image'):
    return page.paragraph(
      'Without masks: the images whose maps and CRF agree least, which is a proxy and no score.'
    )
  return page.paragraph('Without masks: images at equal distances in the split.')


def _picked(look: examples.Look, split: str, count: int, failed: set[str]) -> dict[str, list[str]]:
  """The images to show, and for which reasons.

  Args:
    look: the run and its data set.
    split: of the data set.
    count: images at most.
    failed: stages whose worst image is shown already and that come last; it is added to.
  """
  ranked = {name: found for name in look.views if (found := look.ranked(split, name))}
  if not ranked:
    return {}
  if not look.source(split).has_masks:
    sure = look.run.proxies.get(split, {}).get('by_image', {})
    known = sorted((x for x in sure if x in look.source(split).ids), key=lambda x: sure[x])[:count]
    if known:
      return {x: [f'maps and CRF agree by {sure[x]:.1f} %'] for x in known}
    longest = max(ranked.values(), key=len)
    return {image_id: [] for _, image_id, _ in examples.choose(longest, count)}
  last = list(ranked)[-1]
  middle, iou = ranked[last][len(ranked[last]) // 2]
  found = {middle: [f'{_title(look, last)}: the median, IoU {iou:.1f}']}
  order = sorted(ranked, key=lambda name: name in failed)
  for place in range(max(map(len, ranked.values()))):
    for name in order:
      if place >= len(ranked[name]):
        continue
      image_id, iou = ranked[name][-1 - place]
      if image_id not in found and len(found) == count:
        continue
      # Of an image that is there already only the worst is worth a word.
      if image_id not in found or not place:
        which = f'number {place + 1} from the worst' if place else 'the worst'
        said = f'{_title(look, name)}: {which}, IoU {iou:.1f}'
        found.setdefault(image_id, []).append(said)
        failed.add(name)
  return found


def _title(look: examples.Look, stage: str) -> str:
  scored = look.run.scored
  return scored[stage].title if stage in scored else stage.replace('_', ' ')


def _stations(look: examples.Look, example: examples.Example) -> Iterator[examples.Picture]:
  """The image, its mask, what each stage made of it, and where the last label map is wrong."""
  yield from example.given()
  target, last = example.target(), None
  for view in look.views.values():
    found = view(example)
    if found is None:
      continue
    score = examples.iou(found, target)
    picture = example.seen(found)
    if score is not None and np.isfinite(score):
      picture = picture._replace(caption=f'{found.caption} {score:.0f}')
    yield picture
    last = last if found.salient else found
  if last is not None and target is not None and last.labels.shape == target.shape:
    wrong = pictures.errors(last.labels, target)
    alt = f'Where the {last.caption} of {example.id} is wrong'
    yield examples.Picture(f'error, {last.caption}', alt, wrong)


def histograms(look: examples.Look, splits: Sequence[str], *, bins: int = 10) -> str:
  """How many images have which IoU: a small chart for each stage and split with masks."""
  parts = []
  for split in splits:
    charts, images, total = [], 0, 0
    for name in look.views:
      scores = [iou for _, iou in look.ranked(split, name) if np.isfinite(iou)]
      images = max(images, len(scores))
      if scores:
        total = len(look.source(split).ids)
        counts = np.histogram(scores, bins, (0, 100))[0].tolist()
        title = f'{_title(look, name)}: median {np.median(scores):.0f}'
        charts.append(page.chart(title, curves.bars(counts, f'IoU by image of {title}, {split}')))
    if charts:
      heading = page.heading(f'{split}, {images} of {total} images')
      parts.append(heading + page.small_charts(charts))
  about = (
    'Images by their mean IoU, 0 to 100 % in steps of 10. The mean is over the classes that occur '
    'in the mask or in what the stage made of the image, background included. Of a long split, '
    'images at equal distances are looked at.'
  )
  return page.paragraph(about) + ''.join(parts) if parts else ''


def proxies(run: files.RunFiles) -> str:
  """How sure the priors of splits without masks are; empty where there is no such split."""
  parts = []
  for split, result in run.proxies.items():
    caption = f'{split}: {result["images"]} images, background at {result["threshold"]:.2f}'
    cells = tables.proxy_rows([result])
    parts.append(page.table(tables.PROXY_HEADER, cells, caption=caption, words=True))
    rows = [
      (name, str(found.get('images', '')), *map(found.get, ('shown', 'whole', 'erased')))
      for name, found in result['by_class'].items()
    ]
    header = ('class', 'images', 'shown', 'in the image', 'when erased')
    caption = (
      'In percent: images of a class whose label map shows it, then the probability that the '
      'network gives the class.'
    )
    table = page.table(header, rows, caption=caption)
    parts.append(page.folded(f'{len(rows)} classes of {split}', table))
  heading = page.heading('How sure the maps are, without masks')
  return heading + page.note(tables.PROXY_NOTE) + ''.join(parts) if parts else ''


def facts(run: files.RunFiles) -> list[tuple[str, str]]:
  """How the run and its page came about, for the end of the page."""
  seed = files.lookup(run.config, 'seed', 0)
  said = [(name, str(value)) for name, value in run.made.items()]
  if said:  # A stage that was done before may have been made elsewhere.
    said.insert(0, ('what follows is of', 'the last call of the run'))
  return [*said, ('seed', str(seed)), ('directory', str(run.workdir))] if run.config else said


def summary(run: files.RunFiles) -> str:
  """The boxes at the top of the page: data set, method, main scores, time."""
  named, network = method(run), 'segmentation' if _is_supervised(run) else 'generator'
  backbone = files.lookup(run.config, f'{network}.model.backbone', '')
  items = [('Data set', dataset_name(run), ''), ('Method', named, backbone)]
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
  """The stage's time: of its record, which knows the last call alone, or by its log if longer."""
  rows = [row for row in stage.rows if 'time/step' in row]
  steps = np.diff([0, *(row['step'] for row in rows)])
  logged = float(np.sum(steps * [row['time/step'] for row in rows]))
  return max(float(stage.products.get('seconds', 0)), logged) or None


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
  notes = page.paragraph(
    'Of a stage that was interrupted the time is that of its last call, or of the steps in its log '
    'if these took longer; a log leaves out compilation, evaluation and saving. Images a second '
    'are those of one process where a stage makes a file of each image.'
  )
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
