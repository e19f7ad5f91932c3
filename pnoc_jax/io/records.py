"""Small records in JSON: growing logs, fingerprints, and the note that a stage is done."""

import dataclasses
import enum
import hashlib
import json
import os
import pathlib
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pnoc_jax import errors
from pnoc_jax.io import atomic

DONE = 'DONE'
ABSENT = '<absent>'

Path = str | os.PathLike[str]


def plain(value: Any) -> Any:
  """Returns a value as JSON knows it: enums by value, dataclasses as dicts, tuples as lists."""
  if isinstance(value, enum.Enum):
    return plain(value.value)
  if hasattr(value, 'tolist'):  # Arrays and scalars of numpy and of jax.
    return value.tolist()
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
  if isinstance(value, Mapping):
    return {str(plain(k)): plain(v) for k, v in value.items()}
  if isinstance(value, set | frozenset):
    return sorted(plain(v) for v in value)
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise TypeError(f'{type(value).__name__} has no plain JSON form: {value!r}')


def write_json(path: Path, value: Any) -> None:
  """Writes a JSON file whole or not at all.

  Raises:
    ValueError: `value` holds NaN or infinity, which JSON has no word for.
  """
  atomic.write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
  """Reads a JSON file.

  Raises:
    UserError: the file is absent, cannot be read, or is not JSON.
  """
  try:
    return parse_json(atomic.require_file(path).read_text(encoding='utf-8'))
  except FileNotFoundError as error:
    raise errors.UserError(f'{path} does not exist.') from error
  except OSError as error:
    raise errors.UserError(f'{path} cannot be read: {error.strerror}.') from error
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON ({error}); delete it to go on.') from error


def parse_json(text: str, *, deepest: int = 64) -> Any:
  """What JSON holds.

  Raises:
    ValueError: the text is not JSON, or nested more deeply than `deepest`.
  """
  try:
    value = json.loads(text)
  except RecursionError as error:
    raise ValueError('it is nested too deeply') from error
  level = [value]
  for _ in range(deepest + 1):
    level = [inner for outer in level for inner in _inner(outer)]
  if level:
    raise ValueError('it is nested too deeply')
  return value


def _inner(value: Any) -> Iterable[Any]:
  if isinstance(value, dict):
    return value.values()
  return value if isinstance(value, list) else ()


def read_object(path: Path, fields: Mapping[str, type] = types.MappingProxyType({})) -> Any:
  """Reads a JSON file that holds an object, as a dict.

  Args:
    path: the file.
    fields: {name: type} of what it must have.

  Raises:
    UserError: as of `read_json`; or the file holds something else, or a field is not as it should
      be.
  """
  value = read_json(path)
  if not isinstance(value, dict):
    raise errors.UserError(f'{path} does not hold a JSON object; delete it to go on.')
  for name, kind in fields.items():
    if not isinstance(value.get(name), kind):
      raise errors.UserError(
        f'{path} was not written by a run, or it was changed: it has no fit {name!r}.'
      )
  return value


class JsonLines:
  """A file of JSON objects, one a line, that is appended to."""

  def __init__(self, path: Path):
    """Opens the file; a last line that a killed run left unfinished is removed.

    Raises:
      UserError: the path is a link, a pipe or a device.
    """
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    # A pipe of this name is refused below; who reads it would wait for its end.
    if self._path.is_file() and not _ends_a_line(self._path):
      keep_lines(self._path, lambda _: True)
    number = atomic.open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    self._file = os.fdopen(number, 'a', encoding='utf-8')

  def write(self, value: Mapping[str, Any]) -> None:
    """Appends an object and flushes the file."""
    with atomic.named(self._path):
      self._file.write(json.dumps(plain(value)) + '\n')
      self._file.flush()

  def sync(self) -> None:
    """Waits until all lines are on the disk, so that what follows them can rely on them."""
    with atomic.named(self._path):
      os.fsync(self._file.fileno())
    atomic.sync_folders([self._path])

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def __enter__(self) -> 'JsonLines':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def _ends_a_line(path: pathlib.Path) -> bool:
  with path.open('rb') as file:
    if file.seek(0, os.SEEK_END) == 0:
      return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b'\n'


def read_jsonl(path: Path) -> list[dict[str, Any]]:
  """Reads a file of JSON lines; a last line that a killed run left unfinished is left out.

  So are torn lines, which a power cut leaves anywhere near the end of a file, with a warning.

  Args:
    path: the file; an absent one reads as empty.

  Raises:
    UserError: the file cannot be read, no line is JSON, or a line is JSON and no object.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  try:
    text = atomic.require_file(path).read_text(encoding='utf-8', errors='replace')
  except OSError as error:
    raise errors.UserError(f'{path} cannot be read: {error.strerror}.') from error
  lines = text.splitlines(keepends=True)
  records, torn = [], []
  for number, line in enumerate(lines, 1):
    try:
      record = parse_json(line)
    except ValueError:
      if number < len(lines) or line.endswith('\n'):
        torn.append(number)
      continue
    if not isinstance(record, dict):
      raise errors.UserError(f'{path}, line {number} is not a JSON object.')
    records.append(record)
  if torn and not records:
    raise errors.UserError(f'{path}: no line is JSON, so it is no record; delete it to go on.')
  if torn:
    warnings.warn(
      f'{path}: {len(torn)} lines are no JSON and left out, the first is line {torn[0]}',
      stacklevel=1,
    )
  return records


def keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> int:
  """Rewrites a file of JSON lines, whole or not at all, with the records for which `keep` is true.

  Args:
    path: the file; an absent one stays absent.
    keep: record -> bool.

  Returns:
    How many records were dropped.
  """
  if not pathlib.Path(path).exists():
    return 0
  records = read_jsonl(path)
  kept = [record for record in records if keep(record)]
  atomic.write_text(path, ''.join(json.dumps(record) + '\n' for record in kept))
  return len(records) - len(kept)


def fingerprint(value: Any) -> str:
  """Returns the sha256, in hex, of a value's canonical JSON: equal values, equal fingerprints."""
  text = json.dumps(plain(value), sort_keys=True, separators=(',', ':'), ensure_ascii=False)
  # The path of a data set may have bytes that are no text.
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
  """The note that a stage is finished.

  Attributes:
    config: the stage's configuration.
    inputs: the fingerprints of the stages that it read, by name.
    products: facts about what it wrote, for people and for later stages.
    fingerprint: of `config` and `inputs`; stages with equal fingerprints made the same products.
  """

  config: dict[str, Any]
  inputs: dict[str, str]
  products: dict[str, Any]
  fingerprint: str


def stage_fingerprint(config: Any, inputs: Mapping[str, str]) -> str:
  """Returns the fingerprint that a stage with this configuration and these inputs will have."""
  return fingerprint({'config': config, 'inputs': inputs})


def write_done(
  directory: Path, config: Any, inputs: Mapping[str, str], products: Mapping[str, Any]
) -> Done:
  """Writes `<directory>/DONE`, as the last act of a stage."""
  done = Done(
    config=plain(config),
    inputs=plain(inputs),
    products=plain(products),
    fingerprint=stage_fingerprint(config, inputs),
  )
  write_json(pathlib.Path(directory) / DONE, done)
  return done


def read_done(directory: Path) -> Done | None:
  """Reads `<directory>/DONE`; None where the stage is not done.

  Raises:
    UserError: the file is damaged, or its fingerprint is not that of its contents.
  """
  path = pathlib.Path(directory) / DONE
  if not path.exists():
    return None
  kinds = {'config': dict, 'inputs': dict, 'products': dict, 'fingerprint': str}
  record = read_object(path, kinds)
  if more := record.keys() - kinds.keys():
    raise errors.UserError(f'{path} is not the record of a stage: it has {sorted(more)}.')
  done = Done(**record)
  if done.fingerprint != stage_fingerprint(done.config, done.inputs):
    raise errors.UserError(f"{path} was changed by hand: its fingerprint is not its contents'.")
  return done


def diff(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
  """Compares two configurations.

  Returns:
    `(dotted field, value in a, value in b)` for each field that differs; `ABSENT` stands for a
    field that one of them does not have.
  """
  return list(_diff('', plain(a), plain(b)))


def _diff(name: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
  if isinstance(a, dict) and isinstance(b, dict):
    for key in [*a, *(key for key in b if key not in a)]:
      dotted = f'{name}.{key}' if name else key
      yield from _diff(dotted, a.get(key, ABSENT), b.get(key, ABSENT))
  elif a != b:
    yield name, a, b
