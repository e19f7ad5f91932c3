"""A contact sheet: a few images of each class, to see at a glance what a data set is."""

import pathlib

import matplotlib.figure
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.errors import UserError

_SIDE = 1.1  # Inches of a picture.
_CLASSES = 40  # At most so many rows.


def write(source: info.Source, path: pathlib.Path, *, images: int = 6) -> list[str]:
  """Writes a PNG with a row of images for each class, and one for images of no class.

  Args:
    source: of the images.
    path: of the PNG.
    images: how many of a class are shown.

  Returns:
    What is wrong with those of them that cannot be decoded; their places stay empty.
  """
  bare = ~source.labels.any(axis=1, keepdims=True)
  shown = np.concatenate([source.labels > 0, bare], axis=1)
  names = [*source.info.classes, '(no class)']
  rows = [k for k in range(len(names)) if shown[:, k].any()][:_CLASSES]
  figure = matplotlib.figure.Figure(
    figsize=(_SIDE * (images + 1.5), _SIDE * max(len(rows), 1)), dpi=100, layout='tight'
  )
  axes = figure.subplots(max(len(rows), 1), images + 1, squeeze=False)
  for ax in axes.flat:
    ax.set_axis_off()
  wrong = {}
  for line, k in zip(axes, rows):
    there = np.flatnonzero(shown[:, k])
    # A name is no formula: `$` is a dollar.
    how = {'ha': 'right', 'va': 'center', 'fontsize': 9, 'parse_math': False}
    line[0].text(1, 0.5, f'{_short(names[k])}\n{len(there)}', **how)
    for ax, i in zip(line[1:], there[:images]):
      try:
        ax.imshow(_reduced(source.example(int(i))['image']))
      except UserError as error:
        wrong[int(i)] = str(error)
  figure.savefig(path)
  return list(wrong.values())


def _short(name: str, longest: int = 24) -> str:
  return name if len(name) <= longest else f'{name[: longest - 1]}…'


def _reduced(image: np.ndarray, side: int = 200) -> np.ndarray:
  """Every n-th pixel, so that large photographs do not fill the memory of the figure."""
  step = max(1, min(image.shape[:2]) // side)
  return image[::step, ::step, :3]
