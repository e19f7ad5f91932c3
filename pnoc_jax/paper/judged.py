"""Figure 2: what the judge of erased images sees of them while generators train."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.figure
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import networks
from pnoc_jax.report import examples, files, pictures
from pnoc_jax.stages import generator
from pnoc_jax.stages.common import judge_history, map_history

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.gridspec

  from pnoc_jax.paper import tables as table_lib

_IMAGES, _EPOCHS = 2, 5  # Of those that are kept, at equal distances.
_CELL, _TEXT = 1.3, 7  # Inches, points.
_MASKS = ('soft mask', 'hard mask')


class _Trained(NamedTuple):
  """A generator whose judge has left what it saw.

  Attributes:
    title: of its row.
    config: of its training.
    directory: of its training.
    epochs: that are shown.
  """

  title: str
  config: generator.GeneratorConfig
  directory: Path
  epochs: list[int]


def draw(title: str, look: 'table_lib.Look') -> matplotlib.figure.Figure | None:
  """Draws softly and hard erased images over the epochs, with the judge's map and score of each.

  Each row's first run that has kept it is drawn. Of the images that all of them have kept, the
  first and the last are.

  Args:
    title: of the drawing.
    look: the rows with their runs.

  Returns:
    The drawing; None where no run has kept what its judge saw.
  """
  config = look.config
  split = config.generator.eval_split or config.dataset.train_split
  trained = list(_trained(look, split))
  if not trained:
    return None
  source = look.source(split)
  known = [set(judge_history.names(x.directory, x.epochs[-1], split)) for x in trained]
  ids = [x for x in source.ids if all(x in found for found in known)]
  shown = [ids[i] for i in examples.spaced(len(ids), _IMAGES)]
  if not shown:
    return None
  wide, high = 2 + max(len(x.epochs) for x in trained), len(_MASKS) * len(trained)
  figure = matplotlib.figure.Figure(
    figsize=(_CELL * (wide + 0.5), (_CELL + 0.1) * high * len(shown) + 1), layout='constrained'
  )
  figure.suptitle(
    f'{title}\nColours: its map of the class, over the maximum of its map of the whole image. '
    'Numbers: its score of the class.',
    fontsize=9,
  )
  parts = np.atleast_1d(figure.subfigures(len(shown), 1))
  for part, name in zip(parts, shown, strict=True):
    _draw_image(part.add_gridspec(high, wide), source, split, name, trained)
  return figure


def _trained(look: 'table_lib.Look', split: str):
  for row, config, runs in look.found:
    for run in (x for x in runs if x is not None and 'generator' in x.stages):
      directory = run.stages['generator'].directory
      there = judge_history.epochs(directory, split)
      if there:
        epochs = [there[i] for i in examples.spaced(len(there), _EPOCHS)]
        yield _Trained(row.title, config.generator, directory, epochs)
        break
      print(
        f'{directory / files.JUDGED} has nothing of {split}: Figure 2 is without this run. Its '
        'generator was not measured while it trained, or by a version before.',
        flush=True,
      )


def _draw_image(
  grid: 'matplotlib.gridspec.GridSpec',
  source: info.Source,
  split: str,
  name: str,
  trained: 'list[_Trained]',
) -> None:
  """Draws the image left, then of each run whole and erased images under the judge's map."""
  figure, height = grid.figure, len(_MASKS)
  for number, run in enumerate(trained):
    image, _ = map_history.square(source, run.config, source.ids.index(name))
    image, mean = image[..., :3], _mean(source, run.config)
    top = height * number
    found = [judge_history.read(run.directory, epoch, split, name) for epoch in run.epochs]
    if number == 0:
      axes = _axes(figure.add_subplot(grid[:, 0]), image)
      what = next((x.name for x in found if x), '')
      axes.set_title(f'{name}\nclass: {what}', fontsize=_TEXT)
    last = next((x for x in reversed(found) if x), None)
    if last is not None:
      axes = _axes(figure.add_subplot(grid[top : top + height, 1]), image, last.maps[0])
      axes.set_title(f'{run.title}\nwhole image', fontsize=_TEXT)
      _score(axes, last.scores[0])
    for column, (epoch, kept) in enumerate(zip(run.epochs, found, strict=True), 2):
      for line, mask in enumerate(_MASKS):
        if kept is None:
          continue
        erased = mean + (image - mean) * (1 - kept.masks[line][..., None])
        axes = figure.add_subplot(grid[top + line, column])
        _axes(axes, np.round(erased).astype(np.uint8), kept.maps[1 + line])
        _score(axes, kept.scores[1 + line])
        if line == 0:
          axes.set_title(f'epoch {epoch}', fontsize=_TEXT)
        if column == 2:
          axes.set_ylabel(mask, fontsize=_TEXT)


def _mean(source: info.Source, config: generator.GeneratorConfig) -> np.ndarray:
  """The colour that is left where an image is erased: f[3], 0 to 255."""
  return 255 * np.asarray(networks.colours(config.model, source.info).mean)[:3]


def _axes(
  axes: 'matplotlib.axes.Axes', image: np.ndarray, cam: np.ndarray | None = None
) -> 'matplotlib.axes.Axes':
  """Shows an image, under a map if there is one."""
  axes.imshow(image if cam is None else pictures.overlay(image, cam), interpolation='nearest')
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(False)
  return axes


def _score(axes: 'matplotlib.axes.Axes', score: float) -> None:
  axes.text(
    0.03,
    0.03,
    f'{100 * score:.0f} %',
    transform=axes.transAxes,
    fontsize=_TEXT,
    color='white',
    bbox={'facecolor': 'black', 'alpha': 0.6, 'linewidth': 0, 'pad': 1.5},
  )
