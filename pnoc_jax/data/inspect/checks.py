"""Reads every file of a split before work starts, so that a broken one is found then, by name."""

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


def check_source(
  source: info.Source,
  *,
  on_progress: Callable[[int, int], None] | None = None,
  threads: int = 4,
  stamp: str | os.PathLike | None = None,
) -> list[Problem]:
  """Decodes all images and masks of a source.

  Args:
    source: the examples.
    on_progress: called with (examples done, examples); what it raises ends the check at once.
    threads: how many threads decode.
    stamp: a file that remembers a check without problems. As long as the data set's files keep
      their names, sizes and times of change, later checks read none of them.

  Returns:
    The problems, in the order of the ids.
  """
  if not len(source) or not source.files(0):
    return []
  digest = _digest(source) if stamp is not None else None
  if digest is not None and _read_stamp(stamp) == digest:
    return []
  problems = []
  with futures.ThreadPoolExecutor(threads) as pool:
    try:
      for done, what in enumerate(pool.map(lambda i: examine(source, i)[0], range(len(source)))):
        problems += [Problem(source.ids[done], x) for x in what]
        if on_progress is not None:
          on_progress(done + 1, len(source))
    finally:
      pool.shutdown(cancel_futures=True)  # Whoever stops listening waits for no other image.
  if digest is not None and not problems:
    _write(stamp, json.dumps({'format': _FORMAT, 'digest': digest}) + '\n')
  return problems


def screen(
  source: info.Source,
  *,
  on_error: info.OnError,
  quarantine_path: str | os.PathLike,
  stamp: str | os.PathLike | None = None,
  on_progress: Callable[[int, int], None] | None = None,
  threads: int = 4,
) -> frozenset[str]:
  """Checks a source; its problems stop the run, or their examples are left out.

  Args:
    source: the examples.
    on_error: STRICT stops; SKIP writes the problems to a file and goes on without these examples.
    quarantine_path: that file.
    stamp: as in `check_source`.
    on_progress: as in `check_source`.
    threads: as in `check_source`.

  Returns:
    The ids to leave out, for `exclude` of `open_source`.

  Raises:
    UserError: STRICT and there are problems.
  """
  problems = check_source(source, on_progress=on_progress, threads=threads, stamp=stamp)
  if not problems:
    return frozenset()
  if on_error is info.OnError.STRICT:
    lines = [f'{x.id}: {x.what}' for x in problems]
    raise errors.UserError(
      lists.describe(source.info.name, lines)
      + '\nMend or remove these, or leave them out with --config.dataset.on_error=skip.'
    )
  quarantine(problems, quarantine_path)
  return frozenset(x.id for x in problems)


def quarantine(problems: list[Problem], path: str | os.PathLike) -> None:
  """Writes the problems as a csv table `id,problem`, atomically."""
  _write(path, sheets.text(('id', 'problem'), [(x.id, x.what) for x in problems]))


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
  if mask is None:
    return [], image, None
  problems = []
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


def _digest(source):
  """Digest of the classes and of every file's state; None if a file is not there."""
  sha = hashlib.sha256(repr(source.info.classes).encode())
  try:
    for index in range(len(source)):
      for path in source.files(index):
        sha.update(cache.state(path))
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
  # All processes of a run check, and they write the same.
  atomic.write(path, lambda file: file.write(text.encode(errors='backslashreplace')))
