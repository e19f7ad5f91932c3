"""Pictures of confusion matrices: what each class is taken for."""

import pathlib
from typing import IO

import matplotlib.figure
import numpy as np

from pnoc_jax.io import atomic
from pnoc_jax.report import curves, files

_COLOUR = (0.23, 0.51, 0.96)


def shares(result: files.Result) -> tuple[np.ndarray, tuple[str, ...]]:
  """What each true class is taken for.

  Args:
    result: of a score, with `iou` by class and `confusion`.

  Returns:
    f64[C, C] in percent of the true class's pixels, or f64[C, C+1] where some are predicted void;
    the names of the columns. A class without pixels has zeros.
  """
  matrix = np.asarray(result['confusion'], np.float64)
  names = tuple(result['iou'])
  if matrix.shape != (len(names), len(names) + 1):
    raise ValueError(f'the matrix is {matrix.shape}, but there are {len(names)} classes')
  percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  if not matrix[:, -1].any():
    return percent[:, :-1], names
  return percent, (*names, 'no class')


def figure(result: files.Result, *, most_numbers: int = 12) -> matplotlib.figure.Figure:
  """Draws the matrix: true classes below each other, predicted ones side by side.

  Args:
    result: as for `shares`.
    most_numbers: up to so many classes, the cells also hold their numbers.
  """
  percent, columns = shares(result)
  rows = columns[: len(percent)]
  side = float(np.clip(0.55 * len(columns) + 1.6, 4.5, 13))
  drawing, axes = curves.blank(side, side * 0.95, 'predicted', 'true')
  # One colour of growing opacity suits a light and a dark page.
  cells = np.empty((*percent.shape, 4))
  cells[..., :3], cells[..., 3] = _COLOUR, np.sqrt(percent / 100)
  axes.imshow(cells, interpolation='nearest')
  size = 9 if len(columns) <= 30 else 5
  axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
  axes.set_yticks(range(len(rows)), rows, fontsize=size)
  if len(rows) <= most_numbers:
    for (row, column), value in np.ndenumerate(percent):
      text = f'{value:.0f}' if value >= 0.5 else ''
      axes.text(column, row, text, ha='center', va='center', color=curves.INK, fontsize=9)
  return drawing


def chart(result: files.Result, *, name: str, what: str) -> str:
  """The matrix as an `<svg>`.

  Args:
    result: as for `shares`.
    name: unique in the page.
    what: names what was scored, for readers who do not see the drawing.
  """
  percent, columns = shares(result)
  others = percent[:, : len(percent)] - np.diag(np.diagonal(percent))
  row, column = np.unravel_index(np.argmax(others), others.shape)
  said = 'No class is taken for another one'
  if others[row, column] > 0:
    share = f'{others[row, column]:.0f} % of {columns[row]}'
    said = f'The largest confusion: {share} is taken for {columns[column]}'
  alt = f'Confusion matrix of {what}. {said}.'
  return curves.svg(figure(result), name, alt)


def write_png(path: str | pathlib.Path, result: files.Result, *, dpi: int = 120) -> None:
  """Writes the matrix as a PNG on white."""
  drawing = figure(result)

  def write(file: IO[bytes]) -> None:
    curves.save(
      drawing, file, format='png', dpi=dpi, facecolor='white', metadata={'Software': None}
    )

  atomic.write(path, write)
