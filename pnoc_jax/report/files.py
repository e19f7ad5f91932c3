"""Reads what a run left on disk; what is missing or damaged becomes a note, never an error."""

import dataclasses
import enum
import functools
import pathlib
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data import names as names_of_files
from pnoc_jax.data.augment import transforms
from pnoc_jax.engine import health
from pnoc_jax.io import records
from pnoc_jax.report import contract, results

REMARKS = 'remarks.json'  # What a run's splits have that a reader should know: {split: sentences}.
MADE = 'report/made.json'  # How the run came about: {what: in words}.
HISTORY = 'maps'  # Of a training: <epoch>/<split>/<id>.png, grey maps of a few images.
JUDGED = 'judged'  # Beside it, likewise: what the judge of erased images sees of them.
Config = TypeVar('Config')
Result = Mapping[str, Any]
"""What `evaluation/<score>_<split>.json` holds."""


@dataclasses.dataclass(frozen=True)
class StageFiles:
  """One stage's directory.

  Attributes:
    rows: the lines of its `metrics.jsonl`, by step.
    done: whether it finished.
    products: the facts that the stage left in its record that it is done.
    directory: where it lies.
  """

  rows: tuple[Mapping[str, Any], ...]
  done: bool
  products: Mapping[str, Any]
  directory: pathlib.Path = pathlib.Path()

  def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the finite values of a metric; x in epochs where they are logged, else steps."""
    rows, axis = [row for row in self.rows if results.is_number(row.get(key))], self.axis
    x = [row[axis] for row in rows]
    return np.array(x, float), np.array([row[key] for row in rows], float)

  def keys(self, prefix: str) -> list[str]:
    """The logged metrics that begin with `prefix` and have a finite value, in order."""
    found = {k: None for row in self.rows for k, v in row.items() if results.is_number(v)}
    return [key for key in found if key.startswith(prefix)]

  @functools.cached_property
  def axis(self) -> str:
    """The column that curves run over."""
    return 'epoch' if all('epoch' in row for row in self.rows) else 'step'


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """A run's directory.

  Attributes:
    workdir: the directory.
    config: `config.json`, or empty.
    stages: those that left something, by name and in order.
    scored: all scores that a run can have, by name and in order.
    scores: the results that are there: score -> split -> result, in the order of `scored`.
    proxies: what was looked at in splits without masks: split -> result.
    notes: what is missing, damaged or odd about the data, for the reader.
    made: how the run came about, by what, in words.
  """

  workdir: pathlib.Path
  config: Mapping[str, Any]
  stages: Mapping[str, StageFiles]
  scored: Mapping[str, contract.Scored]
  scores: Mapping[str, Mapping[str, Result]]
  proxies: Mapping[str, Result]
  notes: tuple[str, ...]
  made: Mapping[str, str]

  @property
  def name(self) -> str:
    """The run's name, for headings."""
    return str(self.config.get('name') or self.workdir.name)

  def score(self, name: str, split: str) -> Result | None:
    """A score's result on a split; None where it was not taken."""
    return self.scores.get(name, {}).get(split)

  @property
  def score_splits(self) -> tuple[str, ...]:
    """The splits on which anything was scored."""
    return tuple(dict.fromkeys(split for found in self.scores.values() for split in found))

  def threshold(self, name: str, split: str) -> float:
    """A score's best threshold; without one that of the proxy of the priors, or 0.3."""
    proxy = self.proxies.get(split, {}) if name == 'priors' else {}
    return (self.score(name, split) or proxy).get('threshold', 0.3)

  def product(self, stage: str, split: str, file: str) -> pathlib.Path:
    """Where a product lies: in this run, or in another one that the config names in `inputs`."""
    grafted = lookup(self.config, f'inputs.{stage}', '')
    return (pathlib.Path(grafted) if grafted else self.workdir / stage) / split / file

  def has(self, stage: str, split: str) -> bool:
    """Whether a stage has products of a split, or a score that is named like the stage."""
    return bool(self.score(stage, split)) or self.has_files(stage, split)

  def has_files(self, stage: str, split: str) -> bool:
    """Whether a stage has products of a split."""
    folder = self.product(stage, split, '')
    return folder.is_dir() and any(folder.iterdir())


def lookup(config: Mapping[str, Any], path: str, default: Any) -> Any:
  """A dotted field of nested dicts.

  Args:
    config: what JSON held of a config; somebody else may have written it.
    path: the field.
    default: stands for a field that is not there, or that is of another kind than `default`.
  """
  value: Any = config
  for part in path.split('.'):
    if not isinstance(value, Mapping) or part not in value:
      return default
    value = value[part]
  if isinstance(default, tuple):
    fits = isinstance(value, list) and all(isinstance(x, str) for x in value)
  elif isinstance(default, str | dict):
    fits = isinstance(value, type(default))
  else:
    fits = results.is_number(value)
  return value if fits else default


def read_run(workdir: str | pathlib.Path, stages: Sequence[contract.Reported]) -> RunFiles:
  """Reads a run's records; its products are read when they are shown.

  Args:
    workdir: the run's directory.
    stages: all stages that a run can have, in order.

  Raises:
    UserError: there is no such directory.
  """
  workdir = pathlib.Path(workdir)
  if not workdir.is_dir():
    raise errors.UserError(f'{workdir}: no such directory; give the --workdir of a run')
  notes: list[str] = []
  config = _json(workdir / 'config.json', notes) or {}
  found = {
    stage.name: _stage(workdir / stage.name, notes)
    for stage in stages
    if any((workdir / stage.name / file).exists() for file in ('metrics.jsonl', records.DONE))
  }
  if (workdir / REMARKS).is_file():
    for split, remarks in (_json(workdir / REMARKS, notes) or {}).items():
      said = remarks if isinstance(remarks, list) else [remarks]
      notes += [f'Split {split}: {remark}' for remark in said]
  for stage in stages:
    if (file := workdir / stage.name / health.FILE).is_file():
      said = _read(records.read_json, file, notes)
      notes += [str(x) for x in (said if isinstance(said, list) else [])]
  if not found:
    notes.append('No stage has left metrics yet.')
  scored, proxies = contract.scores(stages), contract.scores(stages, masks=False)
  every = _scores(workdir, (*scored, *proxies), proxies, notes)
  scores = {name: result for name, result in every.items() if name in scored}
  sure = {split: x for name in proxies for split, x in every.get(name, {}).items()}
  if not every and lookup(config, 'evaluation.of', ('priors',)):
    notes.append('Nothing has been evaluated yet, or the images have no masks.')
  made = _json(workdir / MADE, notes) or {} if (workdir / MADE).is_file() else {}
  said = {name: text for name, text in made.items() if isinstance(text, str)}
  return RunFiles(workdir, config, found, scored, scores, sure, tuple(notes), said)


def _read(read: Callable[[pathlib.Path], Any], path: pathlib.Path, notes: list[str]) -> Any:
  """What is read from a path; None, with a note, where it cannot be read."""
  try:
    return read(path)
  except (errors.UserError, OSError) as error:
    notes.append(str(error))
    return None


def _json(path: pathlib.Path, notes: list[str]) -> dict[str, Any] | None:
  value = _read(records.read_json, path, notes)
  if value is not None and not isinstance(value, dict):
    notes.append(f'{path} does not hold a JSON object.')
  return value if isinstance(value, dict) else None


def _stage(folder: pathlib.Path, notes: list[str]) -> StageFiles:
  rows = _read(records.read_jsonl, folder / 'metrics.jsonl', notes) or []
  done = _read(records.read_done, folder, notes)
  # A training logs texts, too; numbers alone are shown.
  numbers = [{k: x for k, x in row.items() if results.is_number(x)} for row in rows]
  numbered = [row for row in numbers if 'step' in row]
  if len(numbered) < len(rows):
    notes.append(
      f'{folder / "metrics.jsonl"} has {len(rows) - len(numbered)} lines without a step.'
    )
  products = {k: x for k, x in (done.products if done else {}).items() if results.is_number(x)}
  return StageFiles(
    tuple(sorted(numbered, key=lambda row: row['step'])), done is not None, products, folder
  )


def _scores(
  workdir: pathlib.Path, names: Sequence[str], proxies: Collection[str], notes: list[str]
) -> dict[str, dict[str, Result]]:
  """Score -> split -> result; each is a file `<score>_<split>.json`."""
  scores: dict[str, dict[str, Result]] = {name: {} for name in names}
  for path in sorted((workdir / 'evaluation').glob('*.json')):
    # A name may begin another one, as `priors` does `priors_crf`: the longest is meant.
    name = max((name for name in names if path.stem.startswith(f'{name}_')), key=len, default='')
    result = _json(path, notes) if name else None
    if result is None:
      continue
    split = path.stem.removeprefix(f'{name}_')
    wrong = results.proxy_fault if name in proxies else results.fault
    if fault := names_of_files.path_fault(split) or wrong(result):
      notes.append(f'{path.relative_to(workdir)} is not the result of an evaluation: {fault}.')
    else:
      scores[name][split] = result
  return {name: found for name, found in scores.items() if found}


def open_source(config: Mapping[str, Any], split: str) -> info.Source:
  """Opens a split of the data set that a run's `config.json` names.

  Raises:
    UserError: the data set is not there, or the record does not describe one.
  """
  try:
    dataset = from_dict(info.DatasetConfig, config['dataset'])
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UserError(f'config.json does not describe a data set ({error!r})') from error
  return sources.open_source(dataset, split)


def squeezes(config: Mapping[str, Any], stage: str) -> bool:
  """Whether a training squeezes images of any form to squares, by a run's `config.json`."""
  values = lookup(config, f'{stage}.transform', {})
  try:
    return from_dict(transforms.TransformConfig, values).squeezes
  except (TypeError, ValueError):
    return False


def from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
  """Makes a config dataclass of what JSON held of one.

  Args:
    kind: the dataclass.
    values: its fields; unknown ones are passed over, missing ones take their defaults.

  Raises:
    TypeError: a field without a default is missing, or a value is of another type.
    ValueError: an enum has no such value.
  """
  hints = typing.get_type_hints(kind)

  def convert(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
      return from_dict(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
      return hint(value)
    return tuple(value) if isinstance(value, list) else value

  if not isinstance(values, Mapping):
    raise TypeError(f'{kind.__name__} is made of a JSON object, not of {values!r:.40}')
  known = {name: convert(hints[name], x) for name, x in values.items() if name in hints}
  for name, value in known.items():
    if not _is_of(hints[name], value):
      raise TypeError(f'{name} cannot be {value!r:.40}')
  return kind(**known)


def _is_of(hint: Any, value: Any) -> bool:
  """Whether a value is of an annotated type; a whole number may stand for a float."""
  if typing.get_origin(hint) is tuple:
    if not isinstance(value, tuple):
      return False
    first, *more = typing.get_args(hint)
    entries = [first] * len(value) if more == [...] else [first, *more]
    return len(entries) == len(value) and all(map(_is_of, entries, value))
  kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
  if isinstance(value, bool):
    return bool in kinds
  return isinstance(value, (*kinds, int) if float in kinds else kinds)
