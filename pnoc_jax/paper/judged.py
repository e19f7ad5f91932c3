"""Figure 2: what the judge of erased images sees of them while generators train."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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

_EPOCHS = 5  # Of those that are kept, at equal distances.
_CELL, _TEXT = 1.3, 7  # Inches, points.
_MASKS = ('erased softly', 'erased hard')
# Where an image is erased it is grey, over which the report's own colours are faint.
_OVERLAY: dict[str, Any] = {'strength': 0.85, 'colormap': 'inferno'}


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
  first is, and the last of another class.

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
  shown = _two(ids, source)
  if not shown:
    return None
  wide, high = 2 + max(len(x.epochs) for x in trained), len(_MASKS) * len(trained)
  # Beside its lines an image has a title above the first one of each run.
  height = _CELL * high + 0.28 * len(trained)
  figure = matplotlib.figure.Figure(
    figsize=(_CELL * wide + 0.3, height * len(shown) + 1.2), layout='constrained'
  )
  figure.suptitle(title, fontsize=10)
  heights = [*[height] * len(shown), 0.55]
  parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
  for part, name in zip(parts, shown):
    _draw_image(part, part.add_gridspec(high, wide), source, split, name, trained)
  _draw_key(parts[-1].add_subplot())
  return figure


def _two(ids: Sequence[str], source: info.Source) -> list[str]:
  """The first image, and the last whose class is another, or else the last."""
  indices = [source.ids.index(x) for x in ids]
  classes = [judge_history.asked(source.labels[i]) for i in indices]
  others = [x for x, k in zip(ids, classes, strict=True) if k != classes[0]] or ids
  return list(dict.fromkeys([*ids[:1], *others[-1:]]))


def _trained(look: 'table_lib.Look', split: str) -> Iterator[_Trained]:
  """Of each row the first run that has kept what its judge saw; says which have not."""
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
  figure: matplotlib.figure.SubFigure,
  grid: 'matplotlib.gridspec.GridSpec',
  source: info.Source,
  split: str,
  name: str,
  trained: 'list[_Trained]',
) -> None:
  """Draws the image left, then of each run whole and erased images under the judge's map."""
  height = len(_MASKS)
  for number, run in enumerate(trained):
    top, mean = height * number, _mean(source, run.config)
    square = functools.cache(functools.partial(_square, source, run.config, name))
    read = [judge_history.read(run.directory, epoch, split, name) for epoch in run.epochs]
    found = {column: (run.epochs[column], kept) for column, kept in enumerate(read) if kept}
    for epoch, last in list(found.values())[-1:]:
      image = square(last.masks.shape[-1])
      if number == 0:
        axes = _axes(figure.add_subplot(grid[:, 0]), image)
        axes.set_title(f'{name}\nclass: {last.name}', fontsize=_TEXT)
      axes = _axes(figure.add_subplot(grid[top : top + height, 1]), image, last.maps[0])
      about = f'judge of {run.title},\nwhole image, epoch {epoch}'
      axes.set_title(about, fontsize=_TEXT, weight='bold')
      _score(axes, last.scores[0])
    for column, (epoch, kept) in found.items():
      image = square(kept.masks.shape[-1])
      for line, mask in enumerate(_MASKS):
        erased = mean + (image - mean) * (1 - kept.masks[line][..., None])
        axes = figure.add_subplot(grid[top + line, 2 + column])
        _axes(axes, np.round(erased).astype(np.uint8), kept.maps[1 + line])
        _score(axes, kept.scores[1 + line])
        if line == 0:
          axes.set_title(f'epoch {epoch}', fontsize=_TEXT)
        if column == min(found):
          axes.set_ylabel(mask, fontsize=_TEXT)


def _square(
  source: info.Source, config: generator.GeneratorConfig, name: str, side: int
) -> np.ndarray:
  """u8[side, side, 3] of an image: its run may have measured at another size than the config's."""
  config = dataclasses.replace(config, eval_size=side)
  return map_history.square(source, config, source.ids.index(name))[0][..., :3]


def _mean(source: info.Source, config: generator.GeneratorConfig) -> np.ndarray:
  """The colour that is left where an image is erased: f[3], 0 to 255."""
  return 255 * np.asarray(networks.colours(config.model, source.info).mean)[:3]


def _axes(
  axes: 'matplotlib.axes.Axes', image: np.ndarray, cam: np.ndarray | None = None
) -> 'matplotlib.axes.Axes':
  """Shows an image, under a map if there is one."""
  axes.imshow(
    image if cam is None else pictures.overlay(image, cam, **_OVERLAY), interpolation='nearest'
  )
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


def _draw_key(axes: 'matplotlib.axes.Axes') -> None:
  """Says what the colours and the numbers are."""
  ramp = np.broadcast_to(np.linspace(0, 1, 200, dtype=np.float32), (8, 200))
  grey = np.full((*ramp.shape, 3), 128, np.uint8)
  axes.imshow(pictures.overlay(grey, ramp, **_OVERLAY))
  axes.set_xticks([0, 199], ['0', 'its maximum in the whole image, or more'], fontsize=_TEXT)
  axes.set_yticks([])
  axes.spines[:].set_visible(False)
  axes.set_title("the judge's map of the class; numbers are its score of the class", fontsize=_TEXT)
