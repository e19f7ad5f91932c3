"""The runs that rows need: which stages they share, what is there, and how long the rest takes.

Stages that several runs have alike are made once: a run reads them from the first that has them.
Nothing is written down about that; the plan is made anew from what the directories hold.
"""

import dataclasses
import enum
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import records
from pnoc_jax.paper import rows as row_lib
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.parallel import targets
from pnoc_jax.runs import doctor, forecast, graph, imagined, runner
from pnoc_jax.stages.common import stage

Open = Callable[[str], info.Source]
"""Opens a split of the data set."""


class State(enum.Enum):
  """What there is of a stage."""

  DONE = 'done'
  BEGUN = 'begun'
  MISSING = 'to do'
  SHARED = 'shared'


@dataclasses.dataclass(frozen=True)
class Run:
  """A row with a seed.

  Attributes:
    row: the row.
    seed: the seed.
    config: its config, in which `inputs` names the stages of other runs that it reads.
    directory: where it is or will be.
  """

  row: row_lib.Row
  seed: int
  config: PipelineConfig
  directory: Path

  def stages(self) -> list[stage.Stage]:
    """Those that it has or reads, in order."""
    present = graph.needed(self.config)
    return [entry for entry in stage.stages(self.config) if entry.name in present]

  def state(self, entry: stage.Stage) -> State:
    """What there is of one of its stages."""
    if getattr(self.config.inputs, entry.name, ''):
      return State.SHARED
    place = self.directory / entry.name
    if (place / records.DONE).is_file():
      return State.DONE
    return State.BEGUN if place.is_dir() else State.MISSING

  def is_done(self) -> bool:
    """Whether all its stages are done, and with its settings."""
    known = (State.DONE, State.SHARED)
    return all(self.state(entry) in known for entry in self.stages()) and not self.differences()

  def differences(self) -> list[str]:
    """What of its own finished stages was made with other settings, in words."""
    found = []
    for entry in self.stages():
      if self.state(entry) is not State.DONE:
        continue
      done = records.read_done(self.directory / entry.name)
      there, data = dict(done.config) if done else {}, _data(self.config)
      ours = {'seed': self.seed, 'dataset': data, **_settings(entry, self.config)}
      # Ids and labels are compared when it runs: some may have been left out there.
      known = there.get('dataset')
      if isinstance(known, Mapping):  # What is none, somebody else has written; it differs.
        there['dataset'] = {k: x for k, x in known.items() if k in data}
      found += [
        f'{self.directory / entry.name}: {field} is {old!r:.60} there and {here!r:.60} here'
        for field, old, here in records.diff(there, records.plain(ours))
        # What a version before did not know has its default, or is refused when it runs.
        if old != records.ABSENT and not field.endswith('.init_digest')
      ]
    return found


def runs(
  rows: Sequence[row_lib.Row],
  seeds: Sequence[int],
  make: row_lib.Make,
  workdir: Path,
  *,
  others: Sequence[row_lib.Row] = (),
  open_source: Open | None = None,
) -> list[Run]:
  """The runs of some rows, all rows of the first seed first.

  Args:
    rows: that are wanted.
    seeds: of each.
    make: makes the config of a row.
    workdir: each run has a directory below it.
    others: rows whose finished stages serve as well.
    open_source: opens a split; by it a product of other data is told from one of these. None where
      the data set is not here: then every product counts that has the settings.

  Raises:
    UserError: `inputs` of the config gives one product to runs that need different ones.
  """
  made = _made([*rows, *others], seeds, make, workdir, open_source)
  found, owners = [], {key: directory for key, (directory, _) in made.items()}
  given: dict[str, tuple[str, Path]] = {}
  for seed in seeds:
    for row in rows:
      config, directory = row.config(make, seed), workdir / f'{row.name}-{seed}'
      _check_given(config, directory, given)
      keys = _keys(config)
      # From the end: who reads the last product needs nothing of what it was made from.
      for name in reversed(keys):
        owner = owners.get(keys[name], directory / name)
        if name in graph.needed(config) and owner != directory / name:
          setattr(config.inputs, name, str(owner))
      for name in keys:
        if name in graph.needed(config) and not getattr(config.inputs, name):
          owners[keys[name]] = directory / name
      found.append(Run(row, seed, config, directory))
  return found


def _check_given(
  config: PipelineConfig, directory: Path, given: dict[str, tuple[str, Path]]
) -> None:
  """Raises UserError if `inputs` gives a run what an earlier one has that needs another.

  A classifier only judges, so that the runs of all seeds may have one.

  Args:
    config: of the run.
    directory: of the run.
    given: of the runs before: the settings and the directory of the first with a given stage.
  """
  for entry in stage.stages(config):
    if not getattr(config.inputs, entry.name, '') or entry.name not in graph.needed(config):
      continue
    seed = () if entry.name == 'classifier' else (config.seed,)
    wanted = json.dumps([*seed, _settings(entry, config)], sort_keys=True)
    first, other = given.setdefault(entry.name, (wanted, directory))
    if wanted != first:
      raise UserError(
        f'inputs.{entry.name} would be the same in {other.name} and {directory.name}, which differ '
        'in their seed or in how it is made; leave it out, or name one row (--rows) and one seed'
      )


def _keys(config: PipelineConfig) -> dict[str, str]:
  """What tells a run's stages from others, by name and in order, without data or weights at hand.

  A stage that gathers what is there, as the evaluation does, belongs to its run alone.
  """
  keys: dict[str, str] = {}
  present = graph.needed(config)
  for entry in stage.stages(config):
    given = getattr(config.inputs, entry.name, '')
    if entry.name not in present or entry.looks == stage.ALL:
      continue
    if given:
      keys[entry.name] = given
      continue
    of = {name: keys[name] for name in entry.needs(config)}
    own = {'seed': config.seed, 'data': _data(config), **_settings(entry, config)}
    keys[entry.name] = records.stage_fingerprint(own, of)
  return keys


def _data(config: PipelineConfig) -> dict[str, Any]:
  return graph.dataset_settings(config.dataset, {})


def _settings(entry: stage.Stage, config: PipelineConfig) -> dict[str, Any]:
  """What a stage's product depends on in the config; weights by their names."""
  found = {}
  for field in entry.declared(config):
    value = entry.lookup(config, field)
    found[field] = settings.as_dict(value, product_only=True)
  return records.plain(found)


def _made(
  rows: Sequence[row_lib.Row],
  seeds: Sequence[int],
  make: row_lib.Make,
  workdir: Path,
  open_source: Open | None,
) -> dict[str, tuple[Path, str]]:
  """The finished stages: key -> (directory, fingerprint)."""
  made: dict[str, tuple[Path, str]] = {}
  for seed in seeds:
    for row in rows:
      directory = workdir / f'{row.name}-{seed}'
      if not directory.is_dir():
        continue
      config = row.config(make, seed)
      keys, data = _keys(config), _data_with_ids(config, open_source)
      for entry in stage.stages(config):
        key = keys.get(entry.name)
        if key is None or key in made:
          continue
        needs = {name: keys[name] for name in entry.needs(config)}
        done = records.read_done(directory / entry.name)
        if done is None or not set(needs.values()) <= set(made):
          continue
        inputs = {name: made[of][1] for name, of in needs.items()}
        theirs = {k: x for k, x in done.config.items() if not k.endswith('.init_digest')}
        ours = {'seed': seed, 'dataset': data or theirs.get('dataset'), **_settings(entry, config)}
        if theirs == records.plain(ours) and done.inputs == inputs:
          made[key] = directory / entry.name, done.fingerprint
  return made


def _data_with_ids(config: PipelineConfig, open_source: Open | None) -> dict[str, Any] | None:
  """The data set as finished stages know it."""
  if open_source is None:
    return None
  known = dict.fromkeys((config.dataset.train_split, *config.priors.splits))
  return graph.dataset_settings(config.dataset, {split: open_source(split) for split in known})


@dataclasses.dataclass(frozen=True)
class Line:
  """A stage of a run in the plan.

  Attributes:
    run: the run.
    name: of the stage.
    state: what there is of it.
    place: where it lies or will.
    seconds: that it took, or will take; None where that is not known, or where nothing is to do.
    origin: where the seconds come from, in words.
  """

  run: Run
  name: str
  state: State
  place: Path
  seconds: float | None
  origin: str


def lines(
  found: Sequence[Run], target: targets.Target | None, rows: Mapping[str, Any]
) -> Iterator[Line]:
  """The stages of all runs with their times.

  What is to do takes as long as an equal stage took whose record is here; else as long as a
  `target` needs at best, by its data sheet.

  Args:
    found: the runs.
    target: devices that are asked about, or None.
    rows: of `forecast.read`, for them.
  """
  known = _measured(found)
  guessed: dict[str, float | None] = {}
  for run in found:
    for entry in run.stages():
      state, kind = run.state(entry), _kind(entry, run.config)
      place = run.directory / entry.name
      seconds, origin = None, ''
      if state is State.SHARED:
        place = Path(getattr(run.config.inputs, entry.name))
      elif kind in known:
        seconds, origin = float(np.median(known[kind])), 'measured'
      elif target is not None and state is not State.DONE:
        if kind not in guessed:
          guessed[kind] = _forecast(entry, run, target, rows)
        seconds, origin = guessed[kind], f'at best on {target.name}'
      yield Line(run, entry.name, state, place, seconds, origin if seconds is not None else '')


def _kind(entry: stage.Stage, config: PipelineConfig) -> str:
  """Stages of one kind take equally long: they differ in their seed, and in what they read."""
  own = {} if entry.looks == stage.ALL else _settings(entry, config)
  for ours in own.values():
    if isinstance(ours, dict):
      ours.pop('smoothing', None)  # It costs nothing, and half of the rows differ by it alone.
  return json.dumps([entry.name, _data(config), own, entry.needs(config)], sort_keys=True)


def _measured(found: Sequence[Run]) -> Mapping[str, list[float]]:
  """Seconds of the finished stages, by kind."""
  known: dict[str, list[float]] = {}
  for run in found:
    for entry in run.stages():
      if run.state(entry) is State.DONE:
        done = records.read_done(run.directory / entry.name)
        seconds = done.products.get('seconds') if done else None
        if isinstance(seconds, int | float):
          known.setdefault(_kind(entry, run.config), []).append(float(seconds))
  return known


def _forecast(
  entry: stage.Stage, run: Run, target: targets.Target, rows: Mapping[str, Any]
) -> float | None:
  """Seconds of a stage on other devices; None where it runs on none, or cannot be told."""
  mesh = meshes.make_mesh(jax.local_devices())
  runtime = imagined.of(Runtime(run.directory, mesh, mesh, run.config.runtime))
  config = forecast.with_loops(run.config)
  item = graph.Planned(entry, run.directory / entry.name, graph.Status.RUN, {}, {})
  inputs = {name: run.directory / name for name in graph.names(config)}
  try:
    calls = entry.programs(runner.context(item, config, inputs, runtime))
  except UserError:
    return None
  if not calls:
    return None
  return forecast.forecast(entry, run.config, calls, target, dict(rows)).seconds


def told(
  found: Sequence[Run], target: targets.Target | None, rows: Mapping[str, Any]
) -> Iterator[str]:
  """The plan for people, line by line: each run with its stages, and what is to do in all.

  Args:
    found: the runs.
    target: as of `lines`.
    rows: as of `lines`.
  """
  last, counts = None, dict.fromkeys(State, 0)
  totals: dict[str, float] = {}
  unknown: set[str] = set()
  for line in lines(found, target, rows):
    if line.run is not last:
      yield f'{line.run.directory}: {line.run.row.title}, seed {line.run.seed}'
      last = line.run
    counts[line.state] += 1
    about = ''
    if line.state is State.SHARED:
      about = str(line.place)
    elif line.seconds is not None:
      about = f'{doctor.duration(line.seconds)} {line.origin}'
    if line.state in (State.BEGUN, State.MISSING):
      if line.seconds is None:
        unknown.add(line.name)
      else:
        totals[line.origin] = totals.get(line.origin, 0.0) + line.seconds
    yield f'  {line.name:<15} {line.state.value:<8} {about}'.rstrip()
  yield ', '.join(f'{count} {state.value}' for state, count in counts.items() if count)
  if totals:
    times = ' and '.join(f'{doctor.duration(x)} {origin}' for origin, x in totals.items())
    yield f'to do: {times}'
  if unknown:
    hint = '' if target else '; --target=h100:8 estimates what runs on such devices'
    yield f'no time is known of {", ".join(sorted(unknown))}{hint}'
