"""Reads lists of ids and tables of labels; what is wrong is collected and told at once."""

import collections
import csv
import difflib
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

_SHOWN = 20  # Problems that a message lists.


def describe(root: str | pathlib.Path, problems: list[str]) -> str:
  """One message of the first problems of a data set, and how many more there are."""
  lines = problems[:_SHOWN]
  if len(problems) > _SHOWN:
    lines.append(f'... and {len(problems) - _SHOWN} more')
  count = 'a problem' if len(problems) == 1 else f'{len(problems)} problems'
  return f'The data set in {root} has {count}:\n  ' + '\n  '.join(lines)


def read_lines(path: pathlib.Path, problems: list[str]) -> list[str]:
  """Lines without their ends; a byte order mark and CRLF are tolerated."""
  try:
    return path.read_text(encoding='utf-8-sig').splitlines()
  except UnicodeDecodeError as error:
    problems.append(f'{path.name}: not UTF-8 text ({error.reason} at byte {error.start})')
    return []


def read_ids(
  path: pathlib.Path,
  name: str,
  problems: list[str],
  *,
  parse: Callable[[str], str] = str.strip,
) -> list[str]:
  """Ids, one a line, without blank lines; none and repeats are problems.

  Args:
    path: of the list.
    name: how messages call it.
    problems: grows.
    parse: from a line that is not blank to its id.
  """
  ids = [parse(line) for line in read_lines(path, problems) if line.strip()]
  if not ids:
    problems.append(f'{name}: no ids')
  for key, count in collections.Counter(ids).items():
    if count > 1:
      problems.append(f'{name}: the id {key!r} is given {count} times')
  return ids


def read_labels(
  path: pathlib.Path, names: Sequence[str], problems: list[str]
) -> dict[str, np.ndarray]:
  """{id: f32[K]} of a table `id,labels`; every row is looked at, whatever the split.

  Labels are class names separated by spaces; a space within a name is written as `_`.

  Args:
    path: of the table.
    names: the background, then the K classes.
    problems: grows.
  """
  numbers = {name.replace(' ', '_'): i for i, name in enumerate(names[1:])}
  table = {}
  rows = csv.reader(read_lines(path, problems))
  header = [x.strip() for x in next(rows, [])]
  if header != ['id', 'labels']:
    problems.append(f'{path.name}: the first line is {",".join(header)!r}, not "id,labels"')
    return table
  for row in rows:
    if not any(x.strip() for x in row):
      continue
    where = f'{path.name}, line {rows.line_num}'
    if len(row) != 2:
      problems.append(f'{where}: {len(row)} columns, not 2; separate labels by spaces')
      continue
    key = row[0].strip()
    if key in table:
      problems.append(f'{where}: the id {key!r} has a row already')
    label = np.zeros(max(len(names) - 1, 0), np.float32)
    for name in row[1].split():
      if name in numbers:
        label[numbers[name]] = 1
      else:
        problems.append(f'{where}: {key!r} has the unknown class {name!r}{hint(name, names)}')
    table[key] = label
  return table


def hint(name: str, names: Sequence[str]) -> str:
  """What may have been meant by a name that is no class; `names` begins with the background."""
  names = [x.replace(' ', '_') for x in names]
  if names and name == names[0]:
    return '; the background is no label: leave the field empty for an image without a class'
  near = difflib.get_close_matches(name.lower(), [x.lower() for x in names[1:]], 1, 0.5)
  if not near:
    return f'; known: {" ".join(names[1:])}'
  return f'; did you mean {next(x for x in names[1:] if x.lower() == near[0])!r}?'
