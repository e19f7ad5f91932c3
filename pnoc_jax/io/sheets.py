"""Names in tables for people: in csv they are no formula, and in Markdown no markup."""

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence

from pnoc_jax.io import terminal

_FORMULA = ('=', '+', '-', '@')  # What a cell that is computed begins with.
_QUOTED = (*_FORMULA, "'")  # So that `own` can tell an apostrophe that was put there.


def text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A table as csv.

  A cell that a spreadsheet would compute begins with an apostrophe, which spreadsheets do not show,
  and control characters are written as escapes.

  Args:
    header: names of the columns.
    rows: cells; numbers stay as they are.
  """
  stream = io.StringIO()
  table = csv.writer(stream, lineterminator='\n')
  table.writerow(header)
  table.writerows([_cell(x) for x in row] for row in rows)
  return stream.getvalue()


def _cell(value: object) -> object:
  if isinstance(value, int | float):
    return value
  value = terminal.visible(str(value))
  return f"'{value}" if value.lstrip().startswith(_QUOTED) else value


def own(cell: str) -> str:
  """The text that `text` made a cell of, but for control characters."""
  return cell[1:] if cell[:1] == "'" and cell[1:].lstrip().startswith(_QUOTED) else cell


def markdown(value: object) -> str:
  """A text on one line of Markdown, also in a cell of a table: shown as it is, and never obeyed.

  It begins no other cell or row, no tag of HTML, no link and no picture; control characters are
  written as escapes.
  """
  line = ' '.join(terminal.visible(str(value)).split())
  return html.escape(re.sub(r'([\\`*|\[\]])', r'\\\1', line), quote=False)
