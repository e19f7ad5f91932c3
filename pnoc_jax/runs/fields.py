"""What the fields of a config are called, what they take, and what they mean."""

import dataclasses
import enum
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pnoc_jax.errors import UserError, did_you_mean
from pnoc_jax.stages.common import stage

_ENTRY = re.compile(r'  (\w+(?:, \w+)*): (.*(?:\n    +\S.*)*)')


class Field(NamedTuple):
  """One field of a config.

  Attributes:
    path: its dotted name, as in the flag `--config.<path>`.
    takes: its type, or the values that it takes.
    value: what the config sets it to.
    meaning: of its dataclass's docstring.
  """

  path: str
  takes: str
  value: str
  meaning: str


def walk(config: Any, prefix: str = '') -> Iterator[Field]:
  """Yields all fields that hold values, in the order of the config."""
  hints, meanings = typing.get_type_hints(type(config)), _meanings(type(config))
  titles = {x.name: x.title for x in stage.stages(config)} if not prefix else {}
  for field in dataclasses.fields(config):
    value, path = getattr(config, field.name), f'{prefix}{field.name}'
    if dataclasses.is_dataclass(value):
      yield from walk(value, f'{path}.')
    else:
      meaning = meanings.get(field.name) or titles.get(field.name) or _about(type(config))
      yield Field(path, _takes(hints[field.name]), _text(value), meaning)


def table(config: Any, prefix: str = '') -> str:
  """The fields at or below a dotted name, each with type, value and meaning, as text.

  Args:
    config: of the run.
    prefix: e.g. `generator` or `generator.optim`; empty for all.

  Raises:
    UserError: there is no such field.
  """
  fields = [x for x in walk(config) if not prefix or f'{x.path}.'.startswith(f'{prefix}.')]
  if not fields:
    parts = [x.path.split('.') for x in walk(config)]
    known = {'.'.join(x[: i + 1]) for x in parts for i in range(len(x))}
    raise UserError(f'the config has no field {prefix!r}{did_you_mean(prefix, sorted(known))}')
  lines = []
  for x in fields:
    lines.append(f'{x.path} = {x.value}   ({x.takes})')
    lines += textwrap.wrap(x.meaning, 96, initial_indent='    ', subsequent_indent='    ')
  return '\n'.join(lines)


def _meanings(kind: type) -> dict[str, str]:
  """{field: its entry under "Attributes:"} of a dataclass and those that it derives from."""
  found: dict[str, str] = {}
  for base in reversed(kind.__mro__):
    _, _, text = inspect.cleandoc(base.__dict__.get('__doc__') or '').partition('Attributes:\n')
    for names, meaning in _ENTRY.findall(text):
      found |= dict.fromkeys(names.split(', '), ' '.join(meaning.split()))
  return found


def _about(kind: type) -> str:
  """The first sentence of a dataclass's docstring."""
  return (inspect.getdoc(kind) or '').partition('\n')[0]


def _takes(hint: Any) -> str:
  arguments = typing.get_args(hint)
  if isinstance(hint, type) and issubclass(hint, enum.Enum):
    return ' | '.join(str(x.value) for x in hint)
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return ' | '.join(_takes(x) for x in arguments)
  if hint is types.NoneType:
    return 'none'
  if typing.get_origin(hint) is tuple:
    return f'list of {_takes(arguments[0])}' if arguments else 'list'
  return {str: 'text', int: 'whole number', float: 'number', bool: 'True | False'}.get(
    hint, getattr(hint, '__name__', str(hint))
  )


def _text(value: Any) -> str:
  if isinstance(value, enum.Enum):
    return str(value.value)
  if isinstance(value, tuple):
    return ','.join(map(str, value)) or "''"
  return repr(value) if isinstance(value, str) else str(value)
