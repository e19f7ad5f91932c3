"""A table of images and labels in any columns: names in one column, or a column for each class."""

import csv
import pathlib
from collections.abc import Sequence

from pnoc_jax.data.layouts import found
from pnoc_jax.data.readers import lists
from pnoc_jax.errors import UserError

_LABELS = ('label', 'labels', 'class', 'classes', 'category', 'categories', 'tag', 'tags')
_SPLITS = ('split', 'subset', 'set', 'fold', 'partition')
_YES = {'1', '1.0', 'true', 'yes', 'x', 'y'}
_NO = {'', '0', '0.0', 'false', 'no', 'n'}
_SEPARATORS = '|;,'
NO_SEPARATOR = 'none'

Row = dict[str, str]


def read(request: found.Request) -> found.Found:
  """Reads a table with a header, separated by commas, semicolons or tabs.

  The column of files is the one whose cells all name images; the columns of labels are the one
  called `label`, `class` or alike, or all others if their cells say yes or no. What is found
  otherwise, the request names. A column called `split` or alike gives splits.

  Raises:
    UserError: the table is ambiguous or names images that are not there.
  """
  path = request.input
  if not path.is_file():
    raise UserError(f'{path} is no file; give the table')
  header, table = _rows(path)
  rows = list(table.values())
  images = found.beside(request, path)
  file_column = _file_column(header, rows, images, request)
  split_column = _split_column(header, rows)
  rest = [x for x in header if x not in (file_column, split_column)]
  columns, one_hot = _label_columns(rest, rows, request)
  separator = None if one_hot else _separator(rows, columns[0], request)
  labels: dict[pathlib.Path, frozenset[str]] = {}
  splits: dict[pathlib.Path, str] = {}
  problems = []
  for number, row in table.items():
    file = images.find(row[file_column])
    if file is None:
      problems.append(f'line {number}: there is no image {row[file_column]!r} below {images.root}')
      continue
    if one_hot:
      names = {x for x in columns if _truth(row[x])}
    else:
      cell = row[columns[0]]
      names = {x.strip() for x in ([cell] if separator is None else cell.split(separator))} - {''}
    split = found.split_of(row[split_column]) if split_column else ''
    if splits.setdefault(file, split) != split:
      problems.append(f'line {number}: {file.name} has rows of two splits')
    # Several rows of one image add up: one row for each label is a common form.
    labels[file] = labels.get(file, frozenset()) | names
  found.refuse(path, problems)
  examples = [found.Example(file, names, splits[file]) for file, names in labels.items()]
  return found.Found(examples, tuple(columns) if one_hot else (), images.unlisted(examples))


def _rows(path: pathlib.Path) -> tuple[list[str], dict[int, Row]]:
  """Returns the header, and the rows by the number of the line that each ends in."""
  problems: list[str] = []
  lines = lists.read_lines(path, problems)
  found.refuse(path, problems)
  first = next((x for x in lines if x.strip()), '')
  # With line ends, which quoted cells may hold.
  reader = csv.reader((f'{x}\n' for x in lines), delimiter=max(',;\t', key=first.count))
  table: dict[int, list[str]] = {}
  try:
    for cells in reader:
      if any(x.strip() for x in cells):
        table[reader.line_num] = cells
  except csv.Error as error:
    raise UserError(f'{path} cannot be read as a table: {error}') from error
  if len(table) < 2:
    raise UserError(f'{path} has no rows below a header')
  header = [x.strip() for x in table.pop(min(table))]
  if len(set(header)) < len(header) or '' in header:
    raise UserError(
      f'{path}: the columns of the header need names that differ: {", ".join(header)}'
    )
  for number, cells in table.items():
    if len(cells) != len(header):
      raise UserError(
        f'{path}, line {number}: {len(cells)} cells, but the header has {len(header)}'
      )
  return header, {
    number: dict(zip(header, (x.strip() for x in cells), strict=True))
    for number, cells in table.items()
  }


def _file_column(
  header: Sequence[str], rows: Sequence[Row], images: found.Images, request: found.Request
) -> str:
  if request.file_column:
    return _named(request.file_column, header, '--file_column')
  counts = {name: sum(images.holds(x[name]) for x in rows) for name in header}
  best = max(counts.values())
  fitting = [x for x, n in counts.items() if n == best]
  if not best:
    raise UserError(
      f'{request.input}: no column names images below {images.root}; say with --images where they '
      f'lie, and with --file_column which of {", ".join(header)} names them'
    )
  if len(fitting) > 1:
    raise UserError(
      f'{request.input}: the columns {", ".join(fitting)} name images; choose with --file_column'
    )
  return fitting[0]


def _split_column(header: Sequence[str], rows: Sequence[Row]) -> str | None:
  named = [x for x in header if x.lower() in _SPLITS and all(found.split_of(r[x]) for r in rows)]
  return named[0] if named else None


def _label_columns(
  rest: Sequence[str], rows: Sequence[Row], request: found.Request
) -> tuple[list[str], bool]:
  """The columns of labels, and whether there is one for each class."""
  if request.label_columns:
    columns = [_named(x, rest, '--label_columns') for x in request.label_columns]
    return columns, len(columns) > 1 or _all_truths(rows, columns)
  named = [x for x in rest if x.lower() in _LABELS]
  if len(named) == 1:
    return named, False
  truths = [x for x in rest if _all_truths(rows, [x])]
  if not named and len(truths) == len(rest) and rest:
    return truths, True
  if not named and len(rest) == 1:
    return list(rest), False
  raise UserError(
    f'{request.input}: which columns are labels? Name one column of names, or one for each class, '
    f'with --label_columns={",".join(rest)}'
  )


def _named(name: str, known: Sequence[str], flag: str) -> str:
  if name not in known:
    raise UserError(f'{flag} names the column {name!r}; there are {", ".join(known)}')
  return name


def _all_truths(rows: Sequence[Row], columns: Sequence[str]) -> bool:
  return all(x[name].lower() in _YES | _NO for x in rows for name in columns)


def _truth(cell: str) -> bool:
  if cell.lower() not in _YES | _NO:
    raise UserError(f'a column of one class has the cell {cell!r}; it takes 1 and 0, or yes and no')
  return cell.lower() in _YES


def _separator(rows: Sequence[Row], column: str, request: found.Request) -> str | None:
  """What stands between the names in a cell; None if each cell is one name."""
  if request.separator:
    return None if request.separator == NO_SEPARATOR else request.separator
  cells = {x[column] for x in rows}
  for separator in _SEPARATORS:
    if any(separator in x for x in cells):
      return separator
  # Is `cat dog` one class or two? Two, if both words are classes of other rows.
  for cell in sorted(cells):
    words = cell.split()
    if len(words) > 1 and all(x in cells for x in words):
      raise UserError(
        f'{request.input}: {cell!r} in the column {column} may be one class or {len(words)}; say '
        f"--separator=' ' or --separator={NO_SEPARATOR}"
      )
  return None
