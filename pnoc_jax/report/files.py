"""Reads what a run left on disk; what is missing or damaged becomes a note, never an error."""

import dataclasses
import enum
import pathlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.io import images, products, records
from pnoc_jax.report import tables

ORDER = (
  'classifier',
  'generator',
  'priors',
  'c2am',
  'saliency_priors',
  'saliency',
  'affinity_labels',
  'affinity',
  'random_walk',
  'pseudo_masks',
  'segmentation',
  'predictions',
  'evaluation',
)
"""The stages as a reader follows them."""


@dataclasses.dataclass(frozen=True)
class StageFiles:
  """One stage's directory.

  Attributes:
    name: of the stage.
    rows: the lines of its `metrics.jsonl`, by step.
    done: whether it finished.
    products: what its record of being done says.
  """

  name: str
  rows: tuple[Mapping[str, Any], ...]
  done: bool
  products: Mapping[str, Any]

  def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the finite values of a metric; x in epochs where they are logged, else steps."""
    rows = [row for row in self.rows if _finite(row.get(key))]
    x = [row[self.axis] for row in rows]
    return np.array(x, float), np.array([row[key] for row in rows], float)

  def keys(self, prefix: str) -> list[str]:
    """The logged metrics that begin with `prefix` and have a finite value, in order."""
    found = {k: None for row in self.rows for k, v in row.items() if _finite(v)}
    return [key for key in found if key.startswith(prefix)]

  @property
  def axis(self) -> str:
    """The column that curves run over."""
    return 'epoch' if all('epoch' in row for row in self.rows) else 'step'


def _finite(value: Any) -> bool:
  return isinstance(value, int | float) and bool(np.isfinite(value))


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """A run's directory.

  Attributes:
    workdir: the directory.
    config: `config.json`, or empty.
    stages: those that left something, in the order of the pipeline.
    scores: score -> split -> result, in the order of the stages.
    notes: what is missing or damaged, for the reader.
  """

  workdir: pathlib.Path
  config: Mapping[str, Any]
  stages: tuple[StageFiles, ...]
  scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
  notes: tuple[str, ...]

  @property
  def name(self) -> str:
    """The run's name, for headings."""
    return str(self.config.get('name') or self.workdir.name)

  @property
  def method(self) -> str:
    """The CAM method, by its value in the config."""
    return str(lookup(self.config, 'generator.method', 'unknown'))

  @property
  def evaluations(self) -> Mapping[str, Mapping[str, Any]]:
    """Split -> result of its priors."""
    return self.scores.get('priors', {})

  def product(self, stage: str, split: str, image_id: str, suffix: str = '.png') -> pathlib.Path:
    """Where an image's product lies, in this run or in the one that its config grafts."""
    grafted = lookup(self.config, f'inputs.{stage}', '')
    folder = pathlib.Path(grafted) if grafted else self.workdir / stage
    return folder / split / f'{image_id}{suffix}'

  def has_products(self, stage: str, split: str) -> bool:
    """Whether a stage has left anything of a split."""
    folder = self.product(stage, split, '').parent
    return folder.is_dir() and any(folder.iterdir())


def lookup(config: Mapping[str, Any], path: str, default: Any = None) -> Any:
  """A dotted field of nested dicts."""
  for part in path.split('.'):
    if not isinstance(config, Mapping) or part not in config:
      return default
    config = config[part]
  return config


def read_run(workdir: str | pathlib.Path) -> RunFiles:
  """Reads a run's records; its priors are read when they are shown.

  Raises:
    UserError: there is no such directory.
  """
  workdir = pathlib.Path(workdir)
  if not workdir.is_dir():
    raise errors.UserError(f'{workdir}: no such directory; give the --workdir of a run')
  notes: list[str] = []
  config = _json(workdir / 'config.json', notes) or {}
  folders = sorted(
    (p for p in workdir.iterdir() if (p / 'metrics.jsonl').exists() or (p / records.DONE).exists()),
    key=lambda p: (ORDER.index(p.name) if p.name in ORDER else len(ORDER), p.name),
  )
  stages = tuple(_stage(folder, notes) for folder in folders)
  if not stages:
    notes.append('No stage has left metrics yet.')
  scores = _scores(workdir, notes)
  if 'priors' not in scores and 'priors' in lookup(config, 'evaluation.of', ('priors',)):
    notes.append('The priors have not been evaluated yet, or their images have no masks.')
  return RunFiles(workdir, config, stages, scores, tuple(notes))


def _scores(workdir: pathlib.Path, notes: list[str]) -> dict[str, dict[str, Mapping[str, Any]]]:
  """Score -> split -> result; each is a file `<score>_<split>.json`."""
  scores: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in tables.SCORES}
  # A name may begin another: `priors_crf` before `priors`.
  names = sorted(tables.SCORES, key=len, reverse=True)
  for path in sorted((workdir / 'evaluation').glob('*.json')):
    name = next((name for name in names if path.stem.startswith(f'{name}_')), None)
    result = _json(path, notes) if name else None
    if result is None:
      continue
    needed = {'thresholds', 'mious'} if name in ('priors', 'saliency', 'random_walk') else set()
    if {'miou', 'iou'} | needed <= set(result):
      scores[name][path.stem.removeprefix(f'{name}_')] = result
    else:
      notes.append(f'{path.relative_to(workdir)} is not the result of an evaluation.')
  return {name: found for name, found in scores.items() if found}


def _json(path: pathlib.Path, notes: list[str]) -> dict[str, Any] | None:
  try:
    value = records.read_json(path)
  except (errors.UserError, OSError) as error:
    notes.append(str(error))
    return None
  if isinstance(value, dict):
    return value
  notes.append(f'{path} does not hold a JSON object.')
  return None


def _stage(folder: pathlib.Path, notes: list[str]) -> StageFiles:
  rows, done = [], None
  try:
    rows = records.read_jsonl(folder / 'metrics.jsonl')
  except (errors.UserError, OSError) as error:
    notes.append(str(error))
  try:
    done = records.read_done(folder)
  except (errors.UserError, OSError) as error:
    notes.append(str(error))
  rows = [row for row in rows if isinstance(row, dict) and 'step' in row]
  rows = tuple(sorted(rows, key=lambda row: row['step']))
  return StageFiles(folder.name, rows, done is not None, done.products if done else {})


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


def from_dict(kind: type, values: Mapping[str, Any]) -> Any:
  """Makes a config dataclass of what JSON held of one.

  Args:
    kind: the dataclass.
    values: its fields; those it does not have are passed over, those that are missing take their
      defaults.

  Raises:
    TypeError: a field without a default is missing.
    ValueError: an enum has no such value.
  """
  hints = typing.get_type_hints(kind)

  def convert(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
      return from_dict(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
      return hint(value)
    return tuple(value) if isinstance(value, list) else value

  known = {field.name for field in dataclasses.fields(kind)}
  return kind(**{name: convert(hints[name], x) for name, x in values.items() if name in known})


def read_priors(
  run: RunFiles, split: str, source: info.Source, ids: Sequence[str]
) -> Iterator[tuple[str, int, products.Prior]]:
  """(id, index in the source, prior) of those ids whose prior is there and whole."""
  index = {name: i for i, name in enumerate(source.ids)}
  for image_id in ids:
    try:
      size = source.size(index[image_id])
      prior = products.read_prior(
        run.product('priors', split, image_id, '.npz'),
        size=size,
        num_classes=len(source.info.classes),
        arrays=('high',),
      )
    except (errors.UserError, KeyError, OSError):
      continue
    yield image_id, index[image_id], prior


def read_walk(
  run: RunFiles, split: str, image_id: str, size: tuple[int, int]
) -> products.Walk | None:
  """An image's random walk; None where it is not there, damaged or of another size."""
  try:
    return products.read_walk(run.product('random_walk', split, image_id, '.npz'), size=size)
  except (errors.UserError, OSError):
    return None


def read_png(
  run: RunFiles, stage: str, split: str, image_id: str, size: tuple[int, int]
) -> np.ndarray | None:
  """u8[H, W] of a stage's PNG; None where it is not there, damaged or of another size."""
  try:
    found = images.read_mask(run.product(stage, split, image_id))
  except (errors.UserError, OSError):
    return None
  return found if found.shape == tuple(size) else None
