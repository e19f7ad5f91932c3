"""The paper's figures: pictures of maps, hints and labels side by side, and curves."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np

from pnoc_jax.io import atomic
from pnoc_jax.paper import judged
from pnoc_jax.paper import rows as row_lib
from pnoc_jax.report import curves, examples, files, pictures, refinement, sections, tables

if TYPE_CHECKING:
  from pnoc_jax.paper import tables as table_lib

Panels = Callable[[Sequence[tuple[str, files.RunFiles]], examples.Example], Iterator]
"""(title and files of each row's first run, an image) -> the pictures after image and mask; None
stands in the place of one that is not there."""
_INCH, _DPI = 1.5, 150


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure of the paper.

  Attributes:
    title: what it shows.
    rows: that it can have; of each the first seed is drawn.
    draw: makes the drawing of what is there; None where that is nothing.
  """

  title: str
  rows: tuple[row_lib.Row, ...]
  draw: 'Callable[[Figure, table_lib.Look], matplotlib.figure.Figure | None]'


def _firsts(look: 'table_lib.Look') -> list[tuple[str, files.RunFiles]]:
  """The first run of each row that has one."""
  found = [(row.title, next((x for x in runs if x), None)) for row, _, runs in look.found]
  return [(title, run) for title, run in found if run is not None]


def montage(
  look: 'table_lib.Look', title: str, split: str, count: int, panels: Panels
) -> matplotlib.figure.Figure | None:
  """Images below each other; of each the image, its mask and what `panels` makes of it.

  The images are a third each of the best, of those around the median and of the worst by the IoU of
  the rows' priors, where there are priors and masks; never picked by hand.

  Args:
    look: the rows with their runs.
    title: of the drawing.
    split: whose images are shown.
    count: how many.
    panels: makes the pictures.
  """
  firsts = _firsts(look)
  if not firsts:
    return None
  views = {'priors': sections.prior_view}
  seen = examples.Look(firsts, lambda _, name: look.source(name), count, views)
  source = look.source(split)
  ranked = seen.ranked(split, 'priors') or [(x, float('nan')) for x in source.ids]
  shown = []
  for _, image_id, _ in examples.choose(ranked, count):
    example = examples.Example(firsts[0][1], split, source, source.ids.index(image_id))
    found, target = list(panels(firsts, example)), example.target()
    if not any(found):
      continue
    mask = None if target is None else example.coloured(target, 'mask', '')
    shown.append([examples.Picture('image', '', example.image), mask, *found])
  if not shown:
    return None
  # What no image has, such as masks, gets no column.
  columns = [x for x in itertools.zip_longest(*shown) if any(x)]
  figure = matplotlib.figure.Figure(
    figsize=(_INCH * len(columns), _INCH * len(shown) + 0.5), layout='constrained'
  )
  figure.suptitle(title, fontsize=9)
  grid = figure.subplots(len(shown), len(columns), squeeze=False)
  for places, strip in zip(grid.T, columns, strict=True):
    places[0].set_title(next(x.caption for x in strip if x), fontsize=7)
    for place, picture in zip(places, strip, strict=True):
      place.set_axis_off()
      if picture is not None:
        place.imshow(picture.array, interpolation='nearest')
  return figure


def _maps(runs: Sequence[tuple[str, files.RunFiles]], example: examples.Example) -> Iterator:
  """The largest map of each row."""
  for title, run in runs:
    prior = dataclasses.replace(example, run=run).prior()
    yield None if prior is None else example.overlaid(prior.high, title, '')


def _hints(runs: Sequence[tuple[str, files.RunFiles]], example: examples.Example) -> Iterator:
  """Of each row the hints, C2AM's mask and the saliency network's map."""
  for title, run in runs:
    ours = dataclasses.replace(example, run=run)
    prior, hints = ours.prior(), None
    if prior is not None:
      foreground = files.lookup(run.config, 'c2am.threshold', 0.4)
      laid = refinement.hint_overlay(ours.image, prior.high.max(axis=0), foreground=foreground)
      hints = examples.Picture(f'hints: {title}', '', laid)
    yield hints
    for stage, caption in (('saliency_priors', 'C2AM mask'), ('saliency', 'PoolNet')):
      found = ours.png(stage)
      grey = None if found is None else np.repeat(found[..., None], 3, axis=2)
      yield None if grey is None else examples.Picture(caption, '', grey)


def _affinity(runs: Sequence[tuple[str, files.RunFiles]], example: examples.Example) -> Iterator:
  """Of each row the affinity labels; before them, once, the priors alone at two thresholds."""
  for number, (title, run) in enumerate(runs):
    ours = dataclasses.replace(example, run=run)
    high = files.lookup(run.config, 'affinity_labels.foreground', 0.4)
    low = files.lookup(run.config, 'affinity_labels.background', 0.1)
    prior, found = ours.prior(), ours.png('affinity_labels')
    if number == 0:
      alone = None if prior is None else refinement.uncertain_labels(prior, high, low)
      yield None if alone is None else ours.coloured(alone, 'priors alone', '')
    yield None if found is None else ours.coloured(found, title, '')


def _overlays(runs: Sequence[tuple[str, files.RunFiles]], example: examples.Example) -> Iterator:
  """Of each row its predictions over the image."""
  for title, run in runs:
    found = dataclasses.replace(example, run=run).png('predictions')
    palette = example.source.info.palette
    laid = None if found is None else pictures.blend(example.image, found, palette)
    yield None if laid is None else examples.Picture(title, '', laid)


def _curves(figure: Figure, look: 'table_lib.Look') -> matplotlib.figure.Figure | None:
  """Left the effective rate of the noc over the training, right mIoU by threshold."""
  results = {
    row.title: [result for run in runs if run and (result := run.score('priors', look.train))]
    for row, _, runs in look.found
  }
  # A curve over seeds has the thresholds of the first.
  results = {
    title: [x for x in found if x.get('thresholds', ()) == found[0].get('thresholds')]
    for title, found in results.items()
  }
  results = {title: found for title, found in results.items() if found}
  if not results:
    return None
  drawing = matplotlib.figure.Figure(figsize=(9, 3.4), layout='constrained')
  drawing.suptitle(figure.title, fontsize=9)
  left, right = drawing.subplots(1, 2)
  colours = dict(zip(results, curves.COLOURS * 2, strict=False))
  for row, config, runs in look.found:
    run = next((x for x in runs if x and 'generator' in x.stages), None)
    if run is not None and row.words == ('method=pnoc',) and row.title in results:
      x, y = noc_rate(run.stages['generator'], config.generator.optim.rule.value)
      left.plot(x, y, color=colours[row.title], label=row.title)
  left.set(xlabel='epoch', ylabel='lambda_noc(t) lr(t)', title='(a) effective rate of the noc')
  if left.lines:
    left.legend(fontsize=7, frameon=False)
  for title, found in results.items():
    x, colour = np.array(found[0]['thresholds']), colours[title]
    lines = np.array([result['mious'] for result in found])
    mean = lines.mean(axis=0)
    # As in the tables: the mean of each seed's best.
    best = tables.number(float(lines.max(axis=1).mean()))
    right.plot(x, mean, color=colour, label=f'{title} {best}')
    if len(lines) > 1:
      spread = lines.std(axis=0, ddof=1)
      right.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15)
  right.set(xlabel='threshold', ylabel='mIoU, %', title=f'(b) maps of {look.train}, mean of seeds')
  right.legend(title='with the best mIoU', title_fontsize=7, fontsize=7, frameon=False)
  for axes in (left, right):
    axes.grid(alpha=0.2)
  return drawing


def noc_rate(stage: files.StageFiles, rule: str) -> tuple[list[float], list[float]]:
  """Epochs, and lambda_noc(t) lr(t) at them.

  With an adaptive optimiser a factor on the loss has no effect, so the logged learning rate of the
  noc holds the ramp already.

  Args:
    stage: the generator's log.
    rule: of its optimiser.
  """
  own = any('schedule/lr_noc' in row for row in stage.rows)
  rate = 'schedule/lr_noc' if own else 'schedule/lr'
  rows = [row for row in stage.rows if rate in row and 'schedule/lambda_noc' in row]
  ramped = own and rule != 'sgd'
  values = [row[rate] * (1.0 if ramped else row['schedule/lambda_noc']) for row in rows]
  return [row[stage.axis] for row in rows], values


def _side_by_side(
  split: str, count: int, panels: Panels
) -> 'Callable[[Figure, table_lib.Look], matplotlib.figure.Figure | None]':
  def draw(figure: Figure, look: 'table_lib.Look') -> matplotlib.figure.Figure | None:
    named = {'train': look.train, 'val': look.val, 'predicted': look.config.predictions.splits[0]}
    return montage(look, figure.title, named[split], count, panels)

  return draw


def _named(rows: Sequence[row_lib.Row], *names: str) -> tuple[row_lib.Row, ...]:
  return tuple(row for row in rows if row.name in names)


_SEGMENTED = _named(row_lib.SEGMENTATIONS, 'poc_segmentation', 'pnoc_segmentation')
FIGURES = {
  1: Figure(
    'Figure 1: maps of several methods',
    _named(row_lib.MAPS, 'vanilla', 'puzzle', 'poc', 'pnoc'),
    _side_by_side('train', 3, _maps),
  ),
  2: Figure(
    'Figure 2: what the judge sees of erased images',
    _named(row_lib.MAPS, 'poc', 'pnoc'),
    lambda figure, look: judged.draw(figure.title, look),
  ),
  4: Figure(
    'Figure 4: hints and saliency',
    _named(row_lib.SALIENCY, 'pnoc_h'),
    _side_by_side('train', 6, _hints),
  ),
  5: Figure(
    'Figure 5: affinity labels without and with saliency',
    _named(row_lib.WALKS, 'pnoc_walk', 'pnoc_h_walk'),
    _side_by_side('train', 6, _affinity),
  ),
  6: Figure(
    'Figure 6: predictions over the images', _SEGMENTED, _side_by_side('predicted', 6, _overlays)
  ),
  7: Figure('Figure 7: rate of the noc, and thresholds', row_lib.MAPS, _curves),
  8: Figure('Figure 8: maps of all methods', row_lib.MAPS, _side_by_side('train', 9, _maps)),
  9: Figure(
    'Figure 9: more predictions over the images',
    _SEGMENTED,
    _side_by_side('predicted', 12, _overlays),
  ),
}
"""The figures by their number in the paper; its Figure 3 is a drawing of the method."""


def write(figure: Figure, look: 'table_lib.Look', folder: Path, name: str) -> list[Path]:
  """Writes `<folder>/<name>.png` where there is something to draw; returns the files."""
  drawing = figure.draw(figure, look)
  if drawing is None:
    return []
  path = folder / f'{name}.png'
  options = {'format': 'png', 'dpi': _DPI, 'metadata': {'Software': None}}
  atomic.write(path, lambda file: curves.save(drawing, file, **options))
  return [path]
