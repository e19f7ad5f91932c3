"""What a table is made of, and how it is written: Markdown, CSV, LaTeX and a picture."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

from pnoc_jax.io import atomic
from pnoc_jax.io import sheets as names
from pnoc_jax.io import terminal as terminals
from pnoc_jax.report import curves, tables


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number of a table.

  Attributes:
    values: of each run, in the order of the seeds; None where a run has none.
    digits: after the point.
  """

  values: tuple[float | None, ...]
  digits: int = 1

  @property
  def known(self) -> list[float]:
    """The values that there are."""
    return [x for x in self.values if x is not None and np.isfinite(x)]

  @property
  def mean(self) -> float | None:
    """Their mean; None where there is none."""
    return float(np.mean(self.known)) if self.known else None

  @property
  def deviation(self) -> float | None:
    """Their standard deviation (of the sample, n - 1); None of fewer than two."""
    return float(np.std(self.known, ddof=1)) if len(self.known) > 1 else None

  def text(self) -> str:
    """The mean and, over several runs, the deviation."""
    return tables.spread(self.known, self.digits)


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A table that is filled.

  Attributes:
    title: above it.
    first: what its lines are.
    columns: names of the others.
    lines: name and cells of each line.
    drawn: the columns that the picture shows.
    best: the columns whose highest mean stands out.
    notes: what must be known to read it.
  """

  title: str
  first: str
  columns: tuple[str, ...]
  lines: tuple[tuple[str, tuple[Cell, ...]], ...]
  drawn: tuple[str, ...] = ()
  best: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()

  def stands_out(self, line: int, column: int) -> bool:
    """Whether a cell holds the highest mean of its column."""
    if self.columns[column] not in self.best:
      return False
    means = [cells[column].mean for _, cells in self.lines]
    known = [x for x in means if x is not None]
    return len(known) > 1 and means[line] == max(known)

  def texts(self, emphasis: str = '{}') -> list[list[str]]:
    """The cells of all lines as text; the best ones within `emphasis`."""
    return [
      [
        emphasis.format(cell.text()) if self.stands_out(i, j) else cell.text()
        for j, cell in enumerate(cells)
      ]
      for i, (_, cells) in enumerate(self.lines)
    ]


def terminal(sheet: Sheet) -> str:
  """The table for a terminal, and its notes."""
  rows = [(name, *texts) for (name, _), texts in zip(sheet.lines, sheet.texts(), strict=True)]
  return '\n'.join((sheet.title, tables.aligned((sheet.first, *sheet.columns), rows), *sheet.notes))


def markdown(sheet: Sheet) -> str:
  """The table in Markdown, with its title and notes."""
  shown = names.markdown
  head = [
    (shown(sheet.first), *map(shown, sheet.columns)),
    ('---', *['---:'] * len(sheet.columns)),
  ]
  rows = [
    (shown(name), *texts)
    for (name, _), texts in zip(sheet.lines, sheet.texts('**{}**'), strict=True)
  ]
  table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in (*head, *rows))
  notes = ''.join(f'\n{shown(note)}\n' for note in sheet.notes)
  return f'# {shown(sheet.title)}\n\n{table}\n{notes}'


def comma_separated(sheet: Sheet) -> str:
  """A line a cell: its line and column, mean, standard deviation, runs, and each run's value."""
  count = max((len(cell.values) for _, cells in sheet.lines for cell in cells), default=0)
  header = (sheet.first, 'column', 'mean', 'deviation', 'runs', *(f'run {i}' for i in range(count)))
  rows: list[tuple[object, ...]] = []
  for name, cells in sheet.lines:
    for column, cell in zip(sheet.columns, cells, strict=True):
      numbers = (cell.mean, cell.deviation, len(cell.known), *cell.values)
      known = (x if x is not None and np.isfinite(x) else '' for x in numbers)
      rows.append((name, column, *known))
  return names.text(header, rows)


_LATEX = {
  '\\': r'\textbackslash{}',
  '&': r'\&',
  '%': r'\%',
  '$': r'\$',
  '#': r'\#',
  '_': r'\_',
  '{': r'\{',
  '}': r'\}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '±': r'$\pm$',
}


def _escape(text: str) -> str:
  return ''.join(_LATEX.get(x, x) for x in ' '.join(terminals.visible(text).split()))


def _number(text: str) -> str:
  """A cell; a text's hyphen is no minus."""
  escaped = _escape(text)
  return f'$-${escaped[1:]}' if escaped.startswith('-') and len(escaped) > 1 else escaped


def latex(sheet: Sheet) -> str:
  r"""The table as a `tabular` of booktabs, within a `table`; notes are comments."""
  rows = [
    [
      rf'\textbf{{{_number(text)}}}' if sheet.stands_out(i, j) else _number(text)
      for j, text in enumerate(texts)
    ]
    for i, texts in enumerate(sheet.texts())
  ]
  lines = [
    *(f'% {" ".join(terminals.visible(note).split())}' for note in sheet.notes),
    r'\begin{table}',
    rf'  \caption{{{_escape(sheet.title)}}}',
    rf'  \begin{{tabular}}{{l{"r" * len(sheet.columns)}}}',
    r'    \toprule',
    '    ' + ' & '.join(map(_escape, (sheet.first, *sheet.columns))) + r' \\',
    r'    \midrule',
    *(
      '    ' + ' & '.join((_escape(name), *cells)) + r' \\'
      for (name, _), cells in zip(sheet.lines, rows, strict=True)
    ),
    r'    \bottomrule',
    r'  \end{tabular}',
    r'\end{table}',
  ]
  return '\n'.join(lines) + '\n'


def picture(sheet: Sheet) -> matplotlib.figure.Figure | None:
  """Means with their standard deviations, and each run as a small dot; None where nothing is known.

  Lines stand below each other, and each drawn column has a colour.
  """
  drawn = [sheet.columns.index(name) for name in sheet.drawn]
  lines = [(n, c) for n, c in sheet.lines if any(c[j].known for j in drawn)]
  if not lines:
    return None
  figure, axes = curves.blank(6.4, 1.0 + 0.32 * len(lines), '', '')
  for number, j in enumerate(drawn):
    colour = curves.COLOURS[number % len(curves.COLOURS)]
    shift = 0.5 * (number - (len(drawn) - 1) / 2) / max(len(drawn), 1)
    label = sheet.columns[j]
    for y, (_, cells) in enumerate(lines):
      cell = cells[j]
      mean = cell.mean
      if mean is None:
        continue
      axes.errorbar(
        mean,
        y + shift,
        xerr=cell.deviation,
        fmt='o',
        color=colour,
        markersize=5,
        capsize=3,
        label=label,
      )
      axes.plot(cell.known, [y + shift] * len(cell.known), '.', color=colour, alpha=0.5)
      label = None  # Once in the legend.
  axes.set_yticks(range(len(lines)), [terminals.visible(name) for name, _ in lines])
  axes.invert_yaxis()
  axes.grid(axis='x', color=curves.INK, alpha=0.14)
  axes.set_xlabel('%' if len(drawn) > 1 else f'{sheet.columns[drawn[0]]}, %', color=curves.INK)
  if len(drawn) > 1:
    figure.legend(loc='outside upper center', ncols=4, frameon=False)
  return figure


def write(sheet: Sheet, folder: Path, name: str) -> list[Path]:
  """Writes `<folder>/<name>.md`, `.csv`, `.tex` and, where there are numbers, `.svg`."""
  folder.mkdir(parents=True, exist_ok=True)
  kinds = (('md', markdown), ('csv', comma_separated), ('tex', latex))
  texts = {f'{name}.{suffix}': make(sheet) for suffix, make in kinds}
  figure = picture(sheet)
  if figure is not None:
    texts[f'{name}.svg'] = curves.svg(figure, name, sheet.title) + '\n'
  for file, text in texts.items():
    atomic.write_text(folder / file, text)
  return [folder / file for file in texts]


def column(values: Sequence[float | None], digits: int = 1) -> Cell:
  """A cell of some runs' values."""
  return Cell(tuple(None if x is None else float(x) for x in values), digits)
