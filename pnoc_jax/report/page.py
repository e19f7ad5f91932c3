"""The HTML of a report: one file that holds its style and loads nothing else."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from pnoc_jax.io import terminal
from pnoc_jax.report import tables

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #566170; --line: #8a939f;
  --faint: #d9dee5; --paper: #ffffff; --card: #f5f7f9; --note: #fff6dd; --mark: #1d5fd1; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #a3aebc;
  --line: #6b7684; --faint: #333c48; --paper: #14181e; --card: #1c222a; --note: #3a3116;
  --mark: #7fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1.2rem 1.25rem 3rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto,
  'Helvetica Neue', Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .7rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.3rem 0 .4rem; } summary h3 { display: inline; margin: 0; }
p { max-width: 46rem; margin: .6rem 0; } header p { margin: 0; }
.soft, figcaption, small { color: var(--soft); }
a, summary { color: var(--mark); } summary { cursor: pointer; padding: .3rem 0; }
nav { margin: .6rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .92rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem;
  margin: 1rem 0; padding: 0; }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; }
.cards dt { color: var(--soft); font-size: .85rem; } .cards dd { margin: 0; font-size: 1.3rem;
  font-weight: 600; } .cards small { display: block; font-size: .82rem; font-weight: 400; }
.note { background: var(--note); border-radius: .5rem; padding: .6rem .9rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--faint);
  white-space: nowrap; }
thead th { border-bottom-color: var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.prose th:last-child, .prose td:last-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; font-size: .88rem; }
tbody th { font-weight: 400; } tr.mean { font-weight: 600; }
.charts, .bars { display: grid; gap: 1.1rem 2rem; margin: .6rem 0 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr)); }
.charts > div { min-width: 0; }
.bars { grid-template-columns: repeat(auto-fill, minmax(min(12rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .88rem; }
.drawn figcaption { color: var(--ink); font-weight: 600; margin-bottom: .25rem; }
svg { width: 100%; height: auto; font-family: inherit; display: block; }
.grid { stroke: currentColor; stroke-opacity: .16; }
.lines svg { display: inline-block; width: 26px; height: 8px; margin-right: .4rem;
  vertical-align: .1rem; }
.example { margin: .9rem 0 1.2rem; } .example h4 { margin: 0 0 .25rem; font-size: .95rem;
  font-weight: 600; } .example h4 span { font-weight: 400; color: var(--soft); }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .6rem; }
.strip div { position: relative; overflow: hidden; border: 1px solid var(--line);
  border-radius: .25rem; }
.strip img { width: 100%; height: auto; display: block; }
.strip img.pixels { image-rendering: pixelated; }
.strip b { position: absolute; transform: translate(-50%, -50%); padding: 0 .25em; color: #fff;
  background: rgb(0 0 0 / .7); border-radius: .2em; font: 600 .72rem/1.3 inherit;
  white-space: nowrap; max-width: 100%; overflow: hidden; text-overflow: ellipsis; }
.keys { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
.wall .example { margin: .5rem 0; }
.wall .strip { --gaps: (var(--most) - 1) * .4rem; --share: (100% - var(--gaps)) / var(--most);
  gap: .4rem; max-width: calc(var(--most) * 8.5rem + var(--gaps));
  grid-template-columns: repeat(auto-fill, minmax(max(6.6rem, var(--share) - .1px), 1fr)); }
.wall figcaption { font-size: .76rem; line-height: 1.25; } .wall .strip b { font-size: .62rem; }
.wall h4 { font-size: .85rem; } .wall p { font-size: .92rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .3rem 0 .6rem;
  list-style: none; font-size: .88rem; }
.legend i { display: inline-block; width: .85rem; height: .85rem; border-radius: .2rem;
  margin-right: .4rem; vertical-align: -.08rem; border: 1px solid var(--line); }
.legend img { width: 8rem; height: .8rem; vertical-align: -.08rem; margin: 0 .4rem; }
footer { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--line);
  color: var(--soft); font-size: .86rem; }
footer dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
footer dd { margin: 0; } footer p, .wall p { max-width: none; }
@media (max-width: 40rem) { body { padding: .8rem .8rem 2rem; }
  .wall .strip { grid-template-columns: repeat(auto-fill, minmax(max(5.2rem, var(--share) - .1px),
    1fr)); } table { font-size: .84rem; } th, td { padding: .3rem .4rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } nav { display: none; }
  th, td { white-space: normal; padding: .15rem .3rem; }
  .example, figure, tr, .cards div { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  .wall .strip { grid-template-columns: repeat(auto-fill, minmax(4.6rem, 1fr)); }
  .strip b, .legend i, .note, .cards div { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; } .scroll { overflow: visible; } }
"""


class Figure(NamedTuple):
  """A picture of a strip.

  Attributes:
    caption: below it.
    alt: in words, for readers who do not see it.
    uri: its data.
    pixels: whether single pixels should show.
    tags: (text, x, y) of names that stand in it, x and y as shares of its width and height.
  """

  caption: str
  alt: str
  uri: str
  pixels: bool = False
  tags: tuple[tuple[str, float, float], ...] = ()


def page(
  title: str,
  lead: str,
  sections: Sequence[tuple[str, str]],
  *,
  top: str = '',
  facts: Sequence[tuple[str, str]] = (),
) -> str:
  """The whole document.

  Args:
    title: of the page.
    lead: a sentence below the title.
    sections: (heading, HTML) in order.
    top: HTML before the first section.
    facts: (name, value) of what stands at the end: how the page came about.
  """
  links = ''.join(
    f'<a href="#s{i}">{_text(heading)}</a>' for i, (heading, _) in enumerate(sections)
  )
  body = ''.join(
    f'<section aria-labelledby="s{i}"><h2 id="s{i}">{_text(heading)}</h2>\n{content}\n</section>\n'
    for i, (heading, content) in enumerate(sections)
  )
  listed = ''.join(f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>' for name, value in facts)
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
    f'<header><h1>{_text(title)}</h1>\n<p class="soft">{_text(lead)}</p></header>\n'
    f'<nav aria-label="Sections">{links}</nav>\n<main>\n{top}\n{body}</main>\n'
    f'<footer>{f"<dl>{listed}</dl>" if listed else ""}'
    '<p>Written by pnoc_jax from the files of the run.</p></footer>\n</body>\n</html>\n'
  )


def _text(text: str) -> str:
  """A text that somebody else may have chosen, as HTML that shows it."""
  return html.escape(terminal.visible(text))


def heading(text: str) -> str:
  """A heading within a section."""
  return f'<h3>{_text(text)}</h3>\n'


def paragraph(text: str) -> str:
  """Plain text."""
  return f'<p>{_text(text)}</p>\n'


def note(text: str) -> str:
  """A remark that stands out."""
  return f'<p class="note">{_text(text)}</p>\n'


def cards(items: Sequence[tuple[str, str, str]]) -> str:
  """(name, value, small print) each in a box."""
  boxes = [
    f'<div><dt>{_text(name)}</dt><dd>{_text(value)}'
    + (f'<small>{_text(small)}</small>' if small else '')
    + '</dd></div>'
    for name, value, small in items
  ]
  return f'<dl class="cards">{"".join(boxes)}</dl>\n'


def table(
  header: Sequence[str],
  rows: Sequence[tables.Row],
  *,
  caption: str = '',
  means: int = 0,
  words: bool = False,
) -> str:
  """A table whose first column names the rows.

  Args:
    header: names of the columns.
    rows: the cells.
    caption: above it.
    means: how many rows at the end are set apart.
    words: whether the last column is prose, which begins at the left.
  """
  head = ''.join(f'<th scope="col">{_text(name)}</th>' for name in header)
  aligned = ' class="prose"' if words else ''
  lines = []
  for i, (first, *cells) in enumerate(rows):
    kind = ' class="mean"' if i >= len(rows) - means else ''
    cells = ''.join(f'<td>{_text(tables.cell(cell))}</td>' for cell in cells)
    lines.append(f'<tr{kind}><th scope="row">{_text(tables.cell(first))}</th>{cells}</tr>')
  caption = f'<caption>{_text(caption)}</caption>' if caption else ''
  return (
    f'<div class="scroll"><table{aligned}>{caption}<thead><tr>{head}</tr></thead>\n'
    f'<tbody>{"".join(lines)}</tbody></table></div>\n'
  )


def chart(caption: str, svg: str) -> str:
  """A drawing below its caption."""
  return f'<figure class="drawn"><figcaption>{_text(caption)}</figcaption>{svg}</figure>'


def beside(parts: Sequence[str]) -> str:
  """Blocks of HTML next to each other where there is room; empty ones are left out."""
  blocks = ''.join(f'<div>{part}</div>\n' for part in parts if part)
  return f'<div class="charts">{blocks}</div>\n' if blocks else ''


def small_charts(parts: Sequence[str]) -> str:
  """Small drawings next to each other."""
  return f'<div class="bars">{"".join(parts)}</div>\n' if parts else ''


def folded(summary: str, content: str) -> str:
  """HTML that opens by a click on its heading."""
  return f'<details><summary><h3>{_text(summary)}</h3></summary>\n{content}</details>\n'


def wall(content: str, most: int) -> str:
  """Strips of pictures that are small, so that many of them can be taken in at once.

  Args:
    content: the strips, and what stands between them.
    most: how many pictures the longest of them has. All strips have the columns of that one.
  """
  return f'<div class="wall" style="--most:{most}">{content}</div>\n'


def keys(parts: Sequence[str]) -> str:
  """Legends in a row."""
  return f'<div class="keys">{"".join(parts)}</div>\n'


def strip(title: str, detail: str, figures: Sequence[Figure]) -> str:
  """One example's pictures in a row.

  Args:
    title: the example's name.
    detail: small print after it.
    figures: the pictures.
  """
  inner = ''.join(map(_figure, figures))
  return (
    f'<div class="example"><h4>{_text(title)} <span>{_text(detail)}</span></h4>'
    f'<div class="strip">{inner}</div></div>\n'
  )


def _figure(figure: Figure) -> str:
  kind = ' class=pixels' if figure.pixels else ''
  tags = ''.join(
    f'<b style="left:{100 * x:.0f}%;top:{100 * y:.0f}%">{_text(text)}</b>'
    for text, x, y in figure.tags
  )
  return (
    f'<figure><div><img{kind} alt="{_text(figure.alt)}" src="{figure.uri}">{tags}</div>'
    f'<figcaption>{_text(figure.caption)}</figcaption></figure>'
  )


def colour_bar(name: str, uri: str) -> str:
  """What the colours from 0 to 1 look like."""
  return (
    f'<p class="legend"><span>{_text(name)}: 0<img alt="Colours from 0 to 1" src="{uri}">1</span>'
    '</p>\n'
  )


def legend(colours: Sequence[tuple[str, Sequence[int]]], label: str = 'Colours') -> str:
  """(name, RGB) of each colour as a list of swatches."""
  items = ''.join(
    f'<li><i style="background:rgb({",".join(str(int(x)) for x in colour)})"></i>{_text(name)}</li>'
    for name, colour in colours
  )
  return f'<ul class="legend" aria-label="{_text(label)}">{items}</ul>\n'
