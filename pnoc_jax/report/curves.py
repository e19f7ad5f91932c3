"""Charts as inline SVG in the text colour of the page, which may be light or dark."""

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.text
import numpy as np
from matplotlib import ticker

from pnoc_jax.io import terminal

Series = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]

# Lines of these have a contrast of 3:1 or more to white and to the page's dark.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#aa4499', '#808080', '#a67c00', '#3b8fc4', '#c0504d')
INK = '#010203'  # Stands for the page's colour until the SVG is written.
_DASHES = ('', '7 3', '2 3', '9 3 2 3')
_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 452, 6, 202  # The edges of what is drawn in it.


def chart(
  series: Mapping[str, Series],
  *,
  alt: str,
  xlabel: str,
  ylabel: str,
  points: bool = False,
  mark_best: bool = False,
  max_points: int = 300,
) -> str:
  """Draws lines, each with a colour and a dash of its own.

  Args:
    series: by legend name, (x, y).
    alt: what a reader who does not see the chart should know.
    xlabel: of the axis.
    ylabel: of the axis.
    points: draw a dot at each value.
    mark_best: ring the highest value of each line.
    max_points: longer series are drawn as means of equal blocks.

  Returns:
    An `<svg>` element, below the legend if there are several lines.
  """
  lines = [
    _thin(np.asarray(x, float), np.asarray(y, float), max_points) for x, y in series.values()
  ]
  across, up = (_Axis.of(np.concatenate([xy[i] for xy in lines])) for i in (0, 1))
  drawn = [_grid(across, up, xlabel, ylabel)]
  for i, (x, y) in enumerate(lines):
    left, top = across.place(x, _LEFT, _RIGHT), up.place(y, _BOTTOM, _TOP)
    path = ' '.join(f'{u:.1f},{v:.1f}' for u, v in zip(left, top, strict=True))
    style = _stroke(i)
    drawn.append(f'<polyline points="{path}" fill="none" {style}/>')
    dots = zip(left, top, strict=True) if points or len(x) == 1 else ()
    fill = COLOURS[i % len(COLOURS)]
    drawn += (f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2.4" fill="{fill}"/>' for u, v in dots)
    if mark_best and len(y):
      best = int(np.argmax(y))
      place = f'cx="{left[best]:.1f}" cy="{top[best]:.1f}"'
      drawn.append(f'<circle {place} r="5.5" fill="none" stroke="{fill}" stroke-width="1.5"/>')
  return (_legend(list(series)) if len(series) > 1 else '') + (
    f'<svg role="img" aria-label="{_text(alt)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
    f'font-size="11" fill="currentColor">{"".join(drawn)}</svg>'
  )


def _thin(x: np.ndarray, y: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
  block = -(-len(x) // limit)
  if block <= 1:
    return x, y
  edges = np.arange(0, len(x), block)
  sizes = np.diff(np.append(edges, len(x)))
  return np.add.reduceat(x, edges) / sizes, np.add.reduceat(y, edges) / sizes


class _Axis(NamedTuple):
  """The range of an axis, and where it has its marks."""

  low: float
  high: float
  marks: tuple[float, ...]

  @classmethod
  def of(cls, values: np.ndarray) -> '_Axis':
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
      room = abs(low) / 10 or 0.5
      low, high = low - room, high + room
    room = (high - low) / 25
    low, high = low - room, high + room
    marks = ticker.MaxNLocator(6, steps=(1, 2, 5, 10)).tick_values(low, high)
    return cls(low, high, tuple(float(x) for x in marks if low <= x <= high))

  def place(self, values: np.ndarray, start: float, end: float) -> np.ndarray:
    """Where values lie, the axis being drawn from one coordinate to another."""
    return start + (values - self.low) / (self.high - self.low) * (end - start)


def _grid(across: _Axis, up: _Axis, xlabel: str, ylabel: str) -> str:
  """The lines of the marks, their numbers, and the names of the axes."""
  drawn = []
  for mark, x in zip(across.marks, across.place(np.array(across.marks), _LEFT, _RIGHT)):
    drawn.append(f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" class="grid"/>')
    drawn.append(
      f'<text x="{x:.1f}" y="{_BOTTOM + 14}" text-anchor="middle">{_number(mark)}</text>'
    )
  for mark, y in zip(up.marks, up.place(np.array(up.marks), _BOTTOM, _TOP)):
    drawn.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" class="grid"/>')
    drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(mark)}</text>')
  middle = (_LEFT + _RIGHT) / 2
  drawn.append(
    f'<text x="{middle:g}" y="{_HEIGHT - 4}" text-anchor="middle">{_text(xlabel)}</text>'
  )
  drawn.append(
    f'<text transform="translate(11 {(_TOP + _BOTTOM) / 2:g}) rotate(-90)" text-anchor="middle">'
    f'{_text(ylabel)}</text>'
  )
  return ''.join(drawn)


def _number(mark: float) -> str:
  text = f'{mark:.6g}'
  if len(text) <= 6:
    return text
  mantissa, exponent = f'{mark:.2e}'.split('e')
  return f'{mantissa.rstrip("0").rstrip(".")}e{int(exponent)}'


def _stroke(i: int) -> str:
  """How the line of a number is drawn."""
  dash = _DASHES[i % len(_DASHES)]
  dashed = f' stroke-dasharray="{dash}"' if dash else ''
  return f'stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="1.9"{dashed}'


def _legend(names: Sequence[str]) -> str:
  items = ''.join(
    f'<li><svg viewBox="0 0 26 8" aria-hidden="true"><path d="M0 4H26" {_stroke(i)}/></svg>'
    f'{_text(name)}</li>'
    for i, name in enumerate(names)
  )
  return f'<ul class="legend lines" aria-label="Lines">{items}</ul>'


def _text(text: str) -> str:
  return html.escape(terminal.visible(text))


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
  return (
    f'<svg role="img" aria-label="{_text(alt)}" viewBox="0 0 {width} {base + 14}">{drawn}'
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


def save(figure: matplotlib.figure.Figure, file: IO[bytes], **options: Any) -> None:
  """Draws a figure whose texts are names: `$` is a dollar in them, and begins no formula.

  Args:
    figure: the drawing.
    file: that is written.
    **options: as of matplotlib's `savefig`.
  """
  # Labels of the ticks are made when they are drawn.
  with matplotlib.rc_context({'text.parse_math': False}), warnings.catch_warnings():
    # Letters that the font lacks are boxes in a PNG, and stay letters in an SVG.
    warnings.filterwarnings('ignore', 'Glyph .* missing from')
    for text in figure.findobj(matplotlib.text.Text):
      text.set_parse_math(False)
      text.set_text(terminal.visible(text.get_text()))
    figure.savefig(file, **options)


def svg(figure: matplotlib.figure.Figure, name: str, alt: str) -> str:
  """A figure as an `<svg>` element whose `INK` is the page's colour.

  Args:
    figure: the drawing.
    name: unique in the page; prefixes the SVG's ids.
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
  head = f'<svg role="img" aria-label="{_text(alt)}" class="chart"'
  return text.replace('<svg', head, 1).replace(INK, 'currentColor')
