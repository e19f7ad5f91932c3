"""Reads every file of a split before work starts, so that a broken one is found then, by name."""

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from concurrent import futures

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import cache, info
from pnoc_jax.data.readers import lists
from pnoc_jax.io import atomic, records, sheets

_FORMAT = 1  # The stamp's format; a check that looks at more things gets a new number.


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
  """What is wrong with one example.

  Attributes:
    id: the example's id.
    what: a sentence that names the file.
  """

  id: str
  what: str


@dataclasses.dataclass(frozen=True)
class Crew:
  """The processes that check a split together, each its share of the images.

  Attributes:
    index: which of them this is; 0 keeps the stamp and the list of problems.
    count: how many there are.
    exchange: tells a text to all of them and returns theirs, in order; all call it together.
  """

  index: int = 0
  count: int = 1
  exchange: Callable[[str], list[str]] = lambda text: [text]


ALONE = Crew()
"""A process that checks all images by itself."""


def check_source(
  source: info.Source,
  *,
  on_progress: Callable[[int, int], None] | None = None,
  threads: int = 4,
  stamp: str | os.PathLike | None = None,
  seen: cache.Seen | None = None,
  crew: Crew = ALONE,
) -> list[Problem]:
  """Decodes all images and masks of a source.

  Args:
    source: the examples.
    on_progress: called with (examples done, examples) of this process's share; what it raises ends
      the check at once.
    threads: how many threads decode.
    stamp: a file that remembers a check without problems. As long as the data set's files keep
      their names, sizes and times of change, later checks read none of them.
    seen: sizes and times of files that are known; those that are looked up are added.
    crew: the processes that share the work. All have the same examples.

  Returns:
    The problems, in the order of the ids; in all processes the same.
  """
  if not len(source) or not source.files(0):
    return []
  keeps = stamp is not None and crew.index == 0
  digest = _digest(source, {} if seen is None else seen) if keeps else None
  known = digest is not None and _read_stamp(stamp) == digest
  if json.loads(crew.exchange(json.dumps(known))[0]):
    return []
  mine, problems = range(crew.index, len(source), crew.count), []
  with futures.ThreadPoolExecutor(threads) as pool:
    try:
      for done, what in enumerate(pool.map(lambda i: examine(source, i)[0], mine)):
        problems += [(mine[done], x) for x in what]
        if on_progress is not None:
          on_progress(done + 1, len(mine))
    finally:
      pool.shutdown(cancel_futures=True)  # Whoever stops listening waits for no other image.
  found = sorted(tuple(x) for text in crew.exchange(json.dumps(problems)) for x in json.loads(text))
  if digest is not None and not found:
    _write(stamp, json.dumps({'format': _FORMAT, 'digest': digest}) + '\n')
  return [Problem(source.ids[index], what) for index, what in found]


def screen(
  source: info.Source,
  *,
  on_error: info.OnError,
  quarantine_path: str | os.PathLike,
  stamp: str | os.PathLike | None = None,
  on_progress: Callable[[int, int], None] | None = None,
  threads: int = 4,
  seen: cache.Seen | None = None,
  crew: Crew = ALONE,
) -> frozenset[str]:
  """Checks a source; its problems stop the run, or their examples are left out.

  Args:
    source: the examples.
    on_error: STRICT stops; SKIP writes the problems to a file and goes on without these examples.
    quarantine_path: that file.
    stamp: as in `check_source`.
    on_progress: as in `check_source`.
    threads: as in `check_source`.
    seen: as in `check_source`.
    crew: as in `check_source`.

  Returns:
    The ids to leave out, for `exclude` of `open_source`.

  Raises:
    UserError: STRICT and there are problems.
  """
  problems = check_source(
    source, on_progress=on_progress, threads=threads, stamp=stamp, seen=seen, crew=crew
  )
  if not problems:
    return frozenset()
  if on_error is info.OnError.STRICT:
    lines = [f'{x.id}: {x.what}' for x in problems]
    raise errors.UserError(
      lists.describe(source.info.name, lines)
      + '\nMend or remove these, or leave them out with --config.dataset.on_error=skip.'
    )
  if crew.index == 0:
    quarantine(problems, quarantine_path)
  return frozenset(x.id for x in problems)


def quarantine(problems: list[Problem], path: str | os.PathLike) -> None:
  """Writes the problems as a csv table `id,problem`, atomically."""
  _write(path, sheets.text(('id', 'problem'), [(x.id, x.what) for x in problems]))


def quarantined(path: str | os.PathLike) -> frozenset[str]:
  """The ids in a file that `quarantine` wrote.

  Raises:
    UserError: it is no such file.
  """
  try:
    with open(atomic.require_file(path), encoding='utf-8', newline='') as file:
      rows = csv.DictReader(file)
      if rows.fieldnames != ['id', 'problem']:
        raise ValueError('its columns are not id and problem')
      return frozenset(sheets.own(row['id']) for row in rows if row['id'])
  except (OSError, ValueError, csv.Error) as error:
    raise errors.UserError(f'{path} is no list of quarantined images ({error})') from error


def examine(
  source: info.Source, index: int
) -> tuple[list[str], np.ndarray | None, np.ndarray | None]:
  """Decodes one example.

  Args:
    source: the examples.
    index: which one.

  Returns:
    What is wrong with the example, in words; its image; its mask. An image or mask that is not
    there, or cannot be read, is None.
  """
  try:
    image = source.example(index)['image']
  except errors.UserError as error:
    return [str(error)], None, None
  try:
    mask = source.mask(index)
  except errors.UserError as error:
    return [str(error)], image, None
  problems, size = [], source.size(index)
  if image.shape[:2] != tuple(size):  # A table of sizes may say so; products are made by it.
    problems.append(
      f'{info.place(source, index)}: {source.ids[index]} is {image.shape[1]}x{image.shape[0]} px, '
      f'and said to be {size[1]}x{size[0]}'
    )
  if mask is None:
    return problems, image, None
  if mask.shape != image.shape[:2]:
    problems.append(
      f'{info.place(source, index)}: the mask is {mask.shape[1]}x{mask.shape[0]} px, '
      f'its image {image.shape[1]}x{image.shape[0]}'
    )
  try:
    info.check_mask(source, index, mask)
  except errors.UserError as error:
    problems.append(str(error))
  return problems, image, mask


def _digest(source, seen):
  """Digest of the classes and of every file's state; None if a file is not there.

  A file of all examples, e.g. of annotations, counts once.
  """
  sha = hashlib.sha256(repr(source.info.classes).encode())
  try:
    paths = (path for index in range(len(source)) for path in source.files(index))
    for path in dict.fromkeys(paths):
      sha.update(cache.state(path, seen))
  except errors.UserError:
    return None  # The check names it as a problem.
  return sha.hexdigest()


def _read_stamp(path):
  """The digest of the last good check, or None if there is no such file in this format."""
  try:
    stamp = records.parse_json(atomic.require_file(path).read_text(encoding='utf-8'))
    return stamp['digest'] if stamp['format'] == _FORMAT else None
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _write(path, text):
  atomic.write(path, lambda file: file.write(text.encode(errors='backslashreplace')))
