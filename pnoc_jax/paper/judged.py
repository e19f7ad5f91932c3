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
_CELL, _DPI_TEXT = 1.3, 7  # Inches, points.
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
