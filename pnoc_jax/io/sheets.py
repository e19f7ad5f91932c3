"""Tables in csv for people, whose spreadsheet must not take a name for a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

from pnoc_jax.io import terminal

_FORMULA = ('=', '+', '-', '@')  # What a cell that is computed begins with.


def text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A table as csv.

  A cell that a spreadsheet would compute begins with an apostrophe, which spreadsheets do not show,
  and control characters are written as escapes.

  Args:
    header: names of the columns.
    rows: cells.
  """
  stream = io.StringIO()
  table = csv.writer(stream, lineterminator='\n')
  table.writerow(header)
  table.writerows([_cell(str(x)) for x in row] for row in rows)
  return stream.getvalue()


def _cell(value: str) -> str:
  value = terminal.visible(value)
  return f"'{value}" if value.lstrip().startswith(_FORMULA) else value
