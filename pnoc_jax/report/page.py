"""The HTML of a report: one file that holds its style and loads nothing else."""

import html
from collections.abc import Sequence

from pnoc_jax.io import terminal
from pnoc_jax.report import tables

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5;
  --paper: #ffffff; --card: #f5f7f9; --note: #fff6dd; --mark: #1d5fd1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa6b5; --line: #333c48;
  --paper: #14181e; --card: #1c222a; --note: #3a3116; --mark: #7fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto,
  'Helvetica Neue', Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .5rem; }
p { max-width: 46rem; } .soft, figcaption { color: var(--soft); }
a { color: var(--mark); } nav { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0; padding: 0; }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .75rem .95rem; }
.cards dt { color: var(--soft); font-size: .85rem; } .cards dd { margin: 0; font-size: 1.4rem;
  font-weight: 600; overflow-wrap: anywhere; } .cards small { display: block; font-size: .82rem;
  font-weight: 400; color: var(--soft); }
.note { background: var(--note); border-radius: .5rem; padding: .7rem 1rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { padding: .34rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: .88rem; }
tbody th { font-weight: 400; } tr.mean { font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr));
  gap: 1.2rem 2rem; margin: .6rem 0 1rem; align-items: start; }
summary { cursor: pointer; color: var(--mark); }
figure { margin: 0; } figcaption { font-size: .88rem; }
.drawn figcaption { color: var(--ink); font-weight: 600; margin-bottom: .25rem; }
svg.chart { width: 100%; height: auto; font-family: inherit; }
.example { margin: 1.1rem 0 1.6rem; } .example h4 { margin: 0 0 .4rem; font-size: .95rem;
  font-weight: 600; } .example h4 span { font-weight: 400; color: var(--soft); }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  gap: .6rem; }
.strip img { width: 100%; height: auto; display: block; border-radius: .3rem;
  border: 1px solid var(--line); }
.strip img.pixels { image-rendering: pixelated; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; padding: 0; margin: .4rem 0 1rem;
  list-style: none; font-size: .9rem; }
.legend i { display: inline-block; width: .85rem; height: .85rem; border-radius: .2rem;
  margin-right: .4rem; vertical-align: -.08rem; border: 1px solid var(--line); }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
@media print { body { max-width: none; } .example, figure { break-inside: avoid; } }
"""


def page(title: str, lead: str, sections: Sequence[tuple[str, str]], top: str = '') -> str:
  """The whole document.

  Args:
    title: of the page.
    lead: a sentence below the title.
    sections: (heading, HTML) in order.
    top: HTML before the first section.
  """
  links = ''.join(
    f'<a href="#s{i}">{_text(heading)}</a>' for i, (heading, _) in enumerate(sections)
  )
  body = ''.join(
    f'<section aria-labelledby="s{i}"><h2 id="s{i}">{_text(heading)}</h2>\n{content}\n</section>\n'
    for i, (heading, content) in enumerate(sections)
  )
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
    f'<header><h1>{_text(title)}</h1>\n<p class="soft">{_text(lead)}</p></header>\n'
    f'<nav aria-label="Sections">{links}</nav>\n<main>\n{top}\n{body}</main>\n'
    '<footer>Written by pnoc_jax from the files of the run.</footer>\n</body>\n</html>\n'
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
  header: Sequence[str], rows: Sequence[tables.Row], *, caption: str = '', means: int = 0
) -> str:
  """A table whose first column names the rows, and whose last `means` rows are set apart."""
  head = ''.join(f'<th scope="col">{_text(name)}</th>' for name in header)
  lines = []
  for i, (first, *cells) in enumerate(rows):
    kind = ' class="mean"' if i >= len(rows) - means else ''
    cells = ''.join(f'<td>{_text(tables.cell(cell))}</td>' for cell in cells)
    lines.append(f'<tr{kind}><th scope="row">{_text(tables.cell(first))}</th>{cells}</tr>')
  caption = f'<caption>{_text(caption)}</caption>' if caption else ''
  return (
    f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>\n'
    f'<tbody>{"".join(lines)}</tbody></table></div>\n'
  )


def chart(caption: str, svg: str) -> str:
  """A drawing below its caption."""
  return f'<figure class="drawn"><figcaption>{_text(caption)}</figcaption>{svg}</figure>'


def beside(parts: Sequence[str]) -> str:
  """Blocks of HTML next to each other where there is room; empty ones are left out."""
  blocks = ''.join(f'<div>{part}</div>\n' for part in parts if part)
  return f'<div class="charts">{blocks}</div>\n' if blocks else ''


def folded(summary: str, content: str) -> str:
  """HTML that opens by a click."""
  return f'<details><summary>{_text(summary)}</summary>\n{content}</details>\n'


def strip(title: str, detail: str, images: Sequence[tuple[str, str, str, bool]]) -> str:
  """One example's pictures in a row.

  Args:
    title: the example's name.
    detail: small print after it.
    images: (caption, alternative text, data URI, whether single pixels should show).
  """
  inner = ''.join(
    f'<figure><img{" class=pixels" if pixels else ""} alt="{_text(alt)}" src="{uri}">'
    f'<figcaption>{_text(caption)}</figcaption></figure>'
    for caption, alt, uri, pixels in images
  )
  return (
    f'<div class="example"><h4>{_text(title)} <span>{_text(detail)}</span></h4>'
    f'<div class="strip">{inner}</div></div>\n'
  )


def legend(colours: Sequence[tuple[str, Sequence[int]]]) -> str:
  """(name, RGB) of each class as a list of swatches."""
  items = ''.join(
    f'<li><i style="background:rgb({",".join(str(int(x)) for x in colour)})"></i>{_text(name)}</li>'
    for name, colour in colours
  )
  return f'<ul class="legend" aria-label="Colours of the classes">{items}</ul>\n'
