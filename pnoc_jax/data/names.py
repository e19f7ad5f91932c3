"""Which names a data set may have: its ids and splits become names of files, all of them text."""

import collections
import unicodedata
from collections.abc import Sequence
from typing import Any

from pnoc_jax import errors, types
from pnoc_jax.data import info

LONGEST_ID = 251
"""Bytes: a product is `<id>.png` or `<id>.npz`, and a file's name has 255 bytes at most."""
LONGEST = 150
"""Bytes of the name of a split or a class; `evaluation/<score>_<split>.json` is a file."""
_SHOWN = 5  # So many wrong names are listed in a message.
# What turns the direction of the text that follows, so that a name reads as another one.
_TURNING = frozenset('\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')


def text_fault(name: Any, longest: int = LONGEST) -> str:
  """Why a name cannot be shown on a line, in words, or nothing.

  Args:
    name: what stands in the data set's files in place of a name.
    longest: bytes.
  """
  if not isinstance(name, str):
    return 'is no text'
  if not name.strip():
    return 'is empty'
  try:
    size = len(name.encode())
  except UnicodeEncodeError:  # Bytes of a file's name that are no UTF-8, or half a character.
    return 'is no text in UTF-8'
  if size > longest:
    return f'has {size} bytes, more than {longest}'
  # Joiners of letters are not printable, either, and belong to names in many scripts.
  if not name.isprintable() and any(_controls(x) for x in name):
    return 'has a control character'
  return ''


def _controls(letter: str) -> bool:
  return unicodedata.category(letter) in ('Cc', 'Zl', 'Zp') or letter in _TURNING


def path_fault(name: Any, longest: int = LONGEST) -> str:
  """Why a name cannot be that of a file in a folder of the run, or nothing; as `text_fault`."""
  if fault := text_fault(name, longest):
    return fault
  if '/' in name or '\\' in name:
    return 'leads to another folder (a slash or a backslash)'
  return 'means a folder' if name in ('.', '..') else ''


def check_split(split: str) -> None:
  """Refuses the name of a split before a file is looked for under it.

  Raises:
    UserError: it is no name of a file.
  """
  if fault := path_fault(split):
    raise errors.UserError(f'the split {_short(split)} {fault}; name it otherwise')


def check(source: info.Source, where: str) -> None:
  """Refuses a split with names that would write elsewhere, or that are not told apart.

  Args:
    source: the split, as a reader opened it.
    where: the data set, for the message.

  Raises:
    UserError: an id or a class has no fit name, or there are two of one name.
  """
  dataset = source.info
  classes = (dataset.background, *dataset.classes)
  faults = [
    *_faults('the class', classes, [text_fault(x) for x in classes]),
    *_faults('the id', source.ids, [path_fault(x, LONGEST_ID) for x in source.ids]),
  ]
  if not 1 <= dataset.num_classes < types.VOID:
    faults.append(f'{dataset.num_classes} classes; there are 1 to {types.VOID - 1}')
  if fault := text_fault(dataset.name, LONGEST_ID):
    faults.append(f'the name of the data set, {_short(dataset.name)}, {fault}')
  if faults:
    lines = [*faults[:_SHOWN], *([f'... and {len(faults) - _SHOWN} more'] * (len(faults) > _SHOWN))]
    raise errors.UserError(
      f'The split {source.split!r} of {where} has names that cannot be used:\n  '
      + '\n  '.join(lines)
      + '\nRename these images or classes, here and in the lists.'
    )


def _faults(what: str, names: Sequence[Any], faults: Sequence[str]) -> list[str]:
  """Sentences on the names that have a fault, and on those that are given twice."""
  if any(faults):
    return [f'{what} {_short(x)} {fault}' for x, fault in zip(names, faults) if fault]
  counts = collections.Counter(names)
  return [f'{what} {_short(x)} is given {n} times' for x, n in counts.items() if n > 1]


def _short(name: Any) -> str:
  """A name with what cannot be shown as escapes, not too long for a line."""
  text = ascii(name) if text_fault(name, 1 << 20) else repr(name)
  return text if len(text) <= 60 else f'{text[:40]}...{text[-12:]}'
