"""Reads lists of ids and tables of labels; problems are collected, to be told all at once."""

import collections
import csv
import difflib
import pathlib
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.io import atomic

_SHOWN = 20  # So many problems are listed in a message.


def describe(root: str | pathlib.Path, problems: list[str]) -> str:
  """One message of the first problems of a data set, and how many more there are."""
  lines = problems[:_SHOWN]
  if len(problems) > _SHOWN:
    lines.append(f'... and {len(problems) - _SHOWN} more')
  count = 'a problem' if len(problems) == 1 else f'{len(problems)} problems'
  return f'The data set in {root} has {count}:\n  ' + '\n  '.join(lines)


def read_lines(path: pathlib.Path, problems: list[str]) -> list[str]:
  """The lines without their ends; the file may have a byte order mark and CRLF.

  Letters with accents are composed, as `files.composed` has the names of files.
  """
  try:
    text = atomic.require_file(path).read_text(encoding='utf-8-sig')
    return unicodedata.normalize('NFC', text).splitlines()
  except UnicodeDecodeError as error:
    problems.append(f'{path.name}: not UTF-8 text ({error.reason} at byte {error.start})')
    return []
  except OSError as error:
    problems.append(f'{path.name}: cannot be read ({error.strerror})')
    return []


def read_table(path: pathlib.Path, problems: list[str]) -> list[tuple[int, list[str]]]:
  """The rows of a csv table that are not blank, each with the number of its last line.

  Args:
    path: the table.
    problems: what is wrong is appended here.
  """
  rows = csv.reader(read_lines(path, problems))
  try:
    return [(rows.line_num, row) for row in rows if any(x.strip() for x in row)]
  except csv.Error as error:
    problems.append(f'{path.name}, line {rows.line_num}: {error}')
    return []


def read_ids(
  path: pathlib.Path,
  name: str,
  problems: list[str],
  *,
  parse: Callable[[str], str] = str.strip,
) -> list[str]:
  """The ids of a list, which has one on each line; an empty list and repeated ids are problems.

  Args:
    path: the list.
    name: what messages call it.
    problems: what is wrong is appended here.
    parse: finds the id in a line that is not blank.
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
  """{id: f32[K]} of a table `id,labels`; all rows are checked, also those of other splits.

  Labels are class names separated by spaces; a space within a name is written as `_`.

  Args:
    path: the table.
    names: the background, then the K classes.
    problems: what is wrong is appended here.
  """
  numbers = {written(name): i for i, name in enumerate(names[1:])}
  table = {}
  rows = read_table(path, problems)
  header = [x.strip() for x in rows[0][1]] if rows else []
  if header != ['id', 'labels']:
    problems.append(f'{path.name}: the first line is {",".join(header)!r}, not "id,labels"')
    return table
  for line, row in rows[1:]:
    where = f'{path.name}, line {line}'
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


def own_list(
  config: info.DatasetConfig,
  split: str,
  problems: list[str],
  *,
  parse: Callable[[str], str] = str.strip,
) -> list[str]:
  """The ids of `<dataset.lists>/<split>.txt`."""
  path = pathlib.Path(config.lists).expanduser() / f'{split}.txt'
  if not path.is_file():
    problems.append(f'{path} is missing (dataset.lists)')
    return []
  return read_ids(path, str(path), problems, parse=parse)


def own_labels(
  config: info.DatasetConfig, ids: Sequence[str], names: Sequence[str], problems: list[str]
) -> np.ndarray:
  """f32[N, K] of the table `dataset.labels`; `names` begins with the background."""
  labels = np.zeros((len(ids), len(names) - 1), np.float32)
  path = pathlib.Path(config.labels).expanduser()
  if not path.is_file():
    problems.append(f'{path} is missing (dataset.labels)')
    return labels
  table = read_labels(path, names, problems)
  for i, key in enumerate(ids):
    if key in table:
      labels[i] = table[key]
    else:
      problems.append(f'{path.name}: no row for the id {key!r}')
  return labels


def written(name: str) -> str:
  """The name of a class as a table of labels has it, where spaces separate names."""
  return '_'.join(name.split())


def hint(name: str, names: Sequence[str]) -> str:
  """A hint at the class that a wrong name may mean; `names` begins with the background."""
  names = [written(x) for x in names]
  if names and name == names[0]:
    return '; the background is no label: leave the field empty for an image without a class'
  near = difflib.get_close_matches(name.lower(), [x.lower() for x in names[1:]], 1, 0.5)
  if not near:
    return f'; known: {" ".join(names[1:])}'
  return f'; did you mean {next(x for x in names[1:] if x.lower() == near[0])!r}?'
