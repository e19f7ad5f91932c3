"""Small records in JSON: growing logs, fingerprints, and the note that a stage is done."""

import dataclasses
import enum
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
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
    UserError: the file is absent or is not JSON.
  """
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except FileNotFoundError as error:
    raise errors.UserError(f'{path} does not exist.') from error
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON ({error}); delete it to go on.') from error


class JsonLines:
  """A file of JSON objects, one a line, that is appended to."""

  def __init__(self, path: Path):
    """Opens the file; a last line that a killed run left unfinished is removed."""
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    if self._path.exists() and not _ends_a_line(self._path):
      keep_lines(self._path, lambda _: True)
    self._file = self._path.open('a', encoding='utf-8')

  def write(self, value: Mapping[str, Any]) -> None:
    """Appends an object and flushes the file."""
    self._file.write(json.dumps(plain(value)) + '\n')
    self._file.flush()

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

  Args:
    path: the file; an absent one reads as empty.

  Raises:
    UserError: a line before the last is not JSON.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  lines = path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(json.loads(line))
    except ValueError as error:
      if number == len(lines) and not line.endswith('\n'):
        break
      raise errors.UserError(f'{path}, line {number} is not JSON ({error}).') from error
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
  return hashlib.sha256(text.encode('utf-8')).hexdigest()


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
  record = read_json(path)
  try:
    done = Done(**record)
  except TypeError as error:
    raise errors.UserError(f'{path} is not the record of a stage ({error}).') from error
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
