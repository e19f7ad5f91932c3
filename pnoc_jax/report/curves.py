"""Line charts as inline SVG in the text colour of the page, which may be light or dark."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.text
import numpy as np

from pnoc_jax.io import terminal

Series = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]

# Lines of these have a contrast of 3:1 or more to white and to the page's dark.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#aa4499', '#808080', '#a67c00', '#3b8fc4', '#c0504d')
INK = '#010203'  # Stands for the page's colour until the SVG is written.
_DASHES = ('-', '--', ':', '-.')


def chart(
  series: Mapping[str, Series],
  *,
  name: str,
  alt: str,
  xlabel: str,
  ylabel: str,
  points: bool = False,
  mark_best: bool = False,
  max_points: int = 300,
) -> str:
  """Draws lines.

  Args:
    series: by legend name, (x, y).
    name: unique in the page; prefixes the SVG's ids.
    alt: what a reader who does not see the chart should know.
    xlabel: of the axis.
    ylabel: of the axis.
    points: draw a dot at each value.
    mark_best: ring the highest value of each line.
    max_points: longer series are drawn as means of equal blocks.

  Returns:
    An `<svg>` element.
  """
  figure, axes = blank(6.4, 3.4, xlabel, ylabel)
  for i, (label, (x, y)) in enumerate(series.items()):
    x, y = _thin(np.asarray(x, float), np.asarray(y, float), max_points)
    colour, dash = COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]
    dot = 'o' if points or len(x) == 1 else ''
    # matplotlib leaves labels that begin with _ out of the legend.
    label = f'\u200b{label}' if label.startswith('_') else label
    axes.plot(x, y, dot + dash, color=colour, label=label, linewidth=1.8, markersize=3.5)
    if mark_best and len(y):
      best = int(np.argmax(y))
      ring = {'markersize': 9, 'fillstyle': 'none', 'markeredgewidth': 1.6}
      axes.plot(x[best], y[best], 'o', color=colour, linestyle=dash, **ring)
  axes.grid(color=INK, alpha=0.14, linewidth=0.8)
  axes.set_axisbelow(True)
  if len(series) > 1:
    figure.legend(
      loc='outside upper center', ncols=min(len(series), 5), frameon=False, labelcolor=INK
    )
  return svg(figure, name, alt)


def bars(counts: Sequence[int], alt: str, *, width: int = 200, height: int = 60) -> str:
  """Draws how many things lie in each of equal parts of 0 to 100.

  Args:
    counts: of each part.
    alt: as for `chart`.
    width: of the drawing, in units of its own.
    height: of the highest bar.

  Returns:
    An `<svg>` element.
  """
  step, most = width / len(counts), max(*counts, 1)
  drawn = ''.join(
    f'<rect x="{i * step + 1:.1f}" y="{14 + height * (1 - n / most):.1f}" width="{step - 2:.1f}" '
    f'height="{height * n / most:.1f}" fill="{COLOURS[0]}"/>'
    f'<text x="{(i + 0.5) * step:.1f}" y="{11 + height * (1 - n / most):.1f}" font-size="9" '
    f'text-anchor="middle" fill="currentColor">{n or ""}</text>'
    for i, n in enumerate(counts)
  )
  base = 14 + height
  marks = ''.join(
    f'<text x="{x * width}" y="{base + 11}" font-size="9" text-anchor="{anchor}" '
    f'fill="currentColor">{round(100 * x)}</text>'
    for x, anchor in ((0, 'start'), (0.5, 'middle'), (1, 'end'))
  )
  title = html.escape(terminal.visible(alt))
  return (
    f'<svg role="img" aria-label="{title}" viewBox="0 0 {width} {base + 14}">{drawn}'
    f'<path d="M0 {base}H{width}" stroke="currentColor"/>{marks}</svg>'
  )


def blank(
  width: float, height: float, xlabel: str, ylabel: str
) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
  """An empty drawing without a frame; its size is in inches."""
  figure = matplotlib.figure.Figure(figsize=(width, height), layout='constrained')
  axes = figure.add_subplot()
  axes.set_xlabel(xlabel, color=INK)
  axes.set_ylabel(ylabel, color=INK)
  axes.tick_params(colors=INK, length=0)
  axes.spines[:].set_visible(False)
  return figure, axes


def _thin(x: np.ndarray, y: np.ndarray, limit: int) -> Series:
  block = -(-len(x) // limit)
  if block <= 1:
    return x, y
  edges = np.arange(0, len(x), block)
  sizes = np.diff(np.append(edges, len(x)))
  return np.add.reduceat(x, edges) / sizes, np.add.reduceat(y, edges) / sizes


def save(figure: matplotlib.figure.Figure, file: IO[bytes], **options: Any) -> None:
  """Draws a figure whose texts are names: `$` is a dollar in them, and begins no formula.

  Args:
    figure: the drawing.
    file: that is written.
    **options: as of matplotlib's `savefig`.
  """
  # Labels of the ticks are made when they are drawn.
  with matplotlib.rc_context({'text.parse_math': False}):
    for text in figure.findobj(matplotlib.text.Text):
      text.set_parse_math(False)
      text.set_text(terminal.visible(text.get_text()))
    figure.savefig(file, **options)


def svg(figure: matplotlib.figure.Figure, name: str, alt: str) -> str:
  """A figure as an `<svg>` element whose `INK` is the page's colour.

  Args:
    figure: the drawing.
    name: as for `chart`.
    alt: as for `chart`.
  """
  # Splits are part of it, and an id of SVG has no other characters.
  name = re.sub(r'[^\w-]', '_', name, flags=re.ASCII)
  buffer = io.BytesIO()
  # Text stays text (it can be read out and searched); a fixed salt gives the same file each time.
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name}):
    save(figure, buffer, format='svg', transparent=True, metadata={'Date': None})
  text = buffer.getvalue().decode()
  text = text[text.index('<svg') :]
  text = re.sub(r'<(metadata|style)\b.*?</\1>', '', text, flags=re.DOTALL)
  text = re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{name}-', text)
  text = re.sub(r'font: ([\d.]+px) [^;"]*', r'font-size: \1', text)
  text = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', '', text, count=2)
  title = html.escape(terminal.visible(alt))
  head = f'<svg role="img" aria-label="{title}" class="chart"'
  return text.replace('<svg', head, 1).replace(INK, 'currentColor')
