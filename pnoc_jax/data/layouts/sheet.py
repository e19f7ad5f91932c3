"""A contact sheet: a few images of each class, to see at a glance what a data set is."""

import pathlib

import matplotlib.figure
import numpy as np

from pnoc_jax.data import info

_SIDE = 1.1  # Inches of a picture.
_CLASSES = 40  # At most so many rows.


def write(source: info.Source, path: pathlib.Path, *, images: int = 6) -> None:
  """Writes a PNG with a row of images for each class, and one for images of no class.

  Args:
    source: of the images.
    path: of the PNG.
    images: how many of a class are shown.
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
  for line, k in zip(axes, rows):
    there = np.flatnonzero(shown[:, k])
    # A name is no formula: `$` is a dollar.
    how = {'ha': 'right', 'va': 'center', 'fontsize': 9, 'parse_math': False}
    line[0].text(1, 0.5, f'{names[k]}\n{len(there)}', **how)
    for ax, i in zip(line[1:], there[:images]):
      ax.imshow(_reduced(source.example(int(i))['image']))
  figure.savefig(path)


def _reduced(image: np.ndarray, side: int = 200) -> np.ndarray:
  """Every n-th pixel, so that large photographs do not fill the memory of the figure."""
  step = max(1, min(image.shape[:2]) // side)
  return image[::step, ::step, :3]
