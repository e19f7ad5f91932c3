"""Configs as command-line flags, with errors for people."""

import dataclasses
import difflib
import importlib.util
import math
import sys
import typing
from collections.abc import Callable
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from pnoc_jax.errors import UserError

if typing.TYPE_CHECKING:
  from pnoc_jax.config import PipelineConfig


def define_config(name: str, default: str | None = None) -> flags.FlagHolder:
  """Defines `--name=FILE.py[:argument]`, whose fields are flags: `--name.field=value`."""
  return config_flags.DEFINE_config_file(
    name, default, 'The config file, e.g. configs/pnoc_shapes.py or configs/pnoc_shapes.py:smoke.'
  )


class Given(typing.NamedTuple):
  """A config on a command line.

  Attributes:
    path: its file.
    argument: what follows the colon.
    fields: {dotted field: value} of the flags that change it.
  """

  path: str
  argument: str
  fields: dict[str, typing.Any]


def given(name: str) -> Given:
  """The config that the flag `--name` was given, in its parts; the flags must be parsed."""
  flag = flags.FLAGS[name]
  path, _, argument = config_flags.get_config_filename(flag).partition(':')
  fields = {}
  for field in config_flags.get_override_values(flag):
    value = flag.value
    for part in field.split('.'):
      value = getattr(value, part)
    fields[field] = value
  return Given(path, argument, fields)


def make_parser(
  name: str, listing: 'Callable[[PipelineConfig, str], str] | None' = None
) -> Callable[[list[str]], list[str]]:
  """Makes the `flags_parser` of `absl.app.run` that explains what is wrong with `--name`.

  Args:
    name: of the flag that `define_config` defined.
    listing: makes the text of `--fields`, of the config and the field below which it looks; None
      where there is no such flag.

  Returns:
    argv -> the name of the program. Exits with status 2 on a wrong flag, file, field or value; with
    0 after `--help`, and after `--fields`, which lists the fields of the config.
  """

  def parse(argv: list[str]) -> list[str]:
    if any(x.lstrip('-') in _HELP for x in argv[1:] if x.startswith('-')):
      app.usage(shorthelp=True, writeto_stdout=True)
      sys.exit(0)
    try:
      _check_flags(argv)
      config = _check(name, _given(name, argv))
      asked = [x.partition('=')[2] for x in argv[1:] if x.lstrip('-').partition('=')[0] == 'fields']
      if asked and listing is not None:
        print(listing(config, asked[-1].removeprefix(f'{name}.')))
        sys.exit(0)
      rest = flags.FLAGS([argv[0], *_spell_tuples(config, name, argv[1:])])
      if len(rest) > 1:
        raise UserError(f'unknown arguments: {" ".join(rest[1:])}; a flag begins with --')
      return rest
    except (UserError, flags.Error) as error:
      print(f'error: {error}', file=sys.stderr)
      sys.exit(2)

  return parse


_HELP = ('help', 'helpfull', 'helpshort', 'h')


def _check_flags(argv: list[str]) -> None:
  """Raises UserError for a flag that there is not, as `--confg`, before `--config` is missed."""
  known = [*flags.FLAGS]
  known += [f'no{x}' for x in known]
  for word in argv[1:]:
    flag = word.lstrip('-').partition('=')[0].partition('.')[0]
    if word.startswith('--') and flag and flag not in known:
      near = difflib.get_close_matches(flag, [x for x in known if len(x) > 1], 1)
      hint = f'; did you mean --{near[0]}?' if near else '; see --help'
      raise UserError(f'there is no flag --{flag}{hint}')


def _given(name: str, argv: list[str]) -> dict[str, str | None]:
  """The flags `--name` and `--name.field` of a command line, with their values."""
  found, rest = {}, list(argv[1:])
  while rest:
    word = rest.pop(0)
    flag, equals, value = word.lstrip('-').partition('=')
    if word.startswith('-') and (flag == name or flag.startswith(f'{name}.')):
      if not equals and rest and not rest[0].startswith('-'):
        value, equals = rest.pop(0), '='
      found[flag] = value if equals else None
  return found


def _check(name: str, given: dict[str, str | None]) -> 'PipelineConfig':
  value = given.get(name)
  if not value:
    raise UserError(f'--{name}=FILE is missing, e.g. --{name}=configs/pnoc_shapes.py')
  path, _, argument = value.partition(':')
  config = load(path, argument or None)
  for flag in given:
    if flag != name:
      _check_field(config, name, flag.split('.')[1:])
  return config


def load(path: str, argument: str | None = None) -> 'PipelineConfig':
  """Builds the config of a file by its `get_config(argument)`.

  Raises:
    UserError: there is no such file, it is no Python file, or it holds no `get_config`.
  """
  file = Path(path)
  if not file.is_file():
    folder = file.parent if file.parent.is_dir() else Path('configs')
    known = sorted(p.name for p in folder.glob('[!_]*.py')) if folder.is_dir() else []
    near = difflib.get_close_matches(file.name, known, 1)
    hint = f' Did you mean {folder / near[0]}?' if near else ''
    listed = f' There are {", ".join(known)}.' if known else ''
    raise UserError(f'there is no config file {path}.{hint}{listed}')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise UserError(f'{path} is no Python file (.py), so it is no config file')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(f'{path} holds no function get_config, so it is no config file')
  return module.get_config(argument)


def _check_field(config: 'PipelineConfig', flag: str, fields: list[str]) -> None:
  holder, path = config, flag
  for field in fields:
    known = [f.name for f in dataclasses.fields(holder)] if dataclasses.is_dataclass(holder) else []
    if field not in known:
      near = difflib.get_close_matches(field, known, 1)
      meant = [f'{path}.{near[0]}'] if near else _elsewhere(holder, path, field)
      meant = meant or _elsewhere(config, flag, field)
      hint = f'; did you mean {" or ".join(meant[:3])}?' if meant else ''
      listed = f' It has {", ".join(known)}.' if known else ' It is a single value.'
      raise UserError(f'{path} has no field {field!r}{hint}{listed}')
    holder, path = getattr(holder, field), f'{path}.{field}'


def _elsewhere(holder: object, path: str, name: str) -> list[str]:
  """Paths of the fields of a name at any depth below."""
  if not dataclasses.is_dataclass(holder):
    return []
  found = []
  for field in dataclasses.fields(holder):
    below = f'{path}.{field.name}'
    found += [below] if field.name == name else []
    found += _elsewhere(getattr(holder, field.name), below, name)
  return found


def _spell_tuples(config: 'PipelineConfig', name: str, words: list[str]) -> list[str]:
  """Writes `--name.field=a,b` of a tuple as the literal that flags read: they take it for one text.

  It also gives numbers the field's type, as 1 and 1.0 are not the same in a run's record.
  """
  spelt, rest = [], list(words)
  while rest:
    word = rest.pop(0)
    flag, equals, value = word.lstrip('-').partition('=')
    ours = word.startswith('-') and flag.startswith(f'{name}.')
    kind = _element_type(config, flag.split('.')[1:]) if ours else None
    if kind is None or not (equals or rest):
      spelt.append(word)
      continue
    value = value if equals else rest.pop(0)
    spelt.append(f'--{flag}={_spell_tuple(flag, value, kind)}')
  return spelt


def _element_type(config: 'PipelineConfig', fields: list[str]) -> type | None:
  """The type of the elements of a tuple of texts or numbers; None for other fields."""
  holder = config
  for field in fields[:-1]:
    holder = getattr(holder, field)
  hint = typing.get_type_hints(type(holder))[fields[-1]]
  first = (typing.get_args(hint) or (None,))[0]
  return first if typing.get_origin(hint) is tuple and first in (str, int, float) else None


def _spell_tuple(flag: str, value: str, kind: type) -> str:
  if value.lstrip()[:1] in tuple('([\'"'):
    return value  # A literal already.
  try:
    found = tuple(kind(x.strip()) for x in value.split(',') if x.strip())
    if not all(isinstance(x, str) or math.isfinite(x) for x in found):
      raise ValueError('no literal of Python')
    return repr(found)
  except ValueError as error:
    what = {int: 'whole numbers', float: 'numbers'}[kind]
    raise UserError(f'--{flag}={value}: {what} are expected, separated by commas') from error
