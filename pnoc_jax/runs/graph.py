"""The order of the stages, and what of a run is done, half done or yet to do."""

import dataclasses
import enum
import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info
from pnoc_jax.data import sources as data_sources
from pnoc_jax.engine import networks, settings
from pnoc_jax.errors import UserError, did_you_mean
from pnoc_jax.io import atomic, records, weights
from pnoc_jax.runs import lock
from pnoc_jax.stages.common import stage

_SETTINGS = 'config.json'
_RERUN = 'rerun.json'
"""In a run's directory while a rerun is not finished: what was asked for, and what has begun."""


class Status(enum.Enum):
  """What becomes of a stage in this call."""

  DONE = 'done'
  GRAFTED = "another run's"
  RESUME = 'resume'
  RUN = 'run'
  RERUN = 'run again'
  LEFT_OUT = 'left out'


@dataclasses.dataclass
class Planned:
  """A stage in the plan.

  Attributes:
    stage: the stage.
    directory: where its product is or will be.
    status: what becomes of it.
    settings: what its product depends on, as plain values.
    inputs: fingerprints of the stages that it reads.
    made: the fingerprint of the product that is there and stays.
  """

  stage: stage.Stage
  directory: Path
  status: Status
  settings: dict[str, Any]
  inputs: dict[str, str]
  made: str | None = None

  @property
  def fingerprint(self) -> str:
    """Equal fingerprints made equal products."""
    if self.made is not None:
      return self.made
    return records.stage_fingerprint(self.settings, self.inputs)

  def images_then(self) -> dict[str, str]:
    """Digests of the images that it read when it began, if it is there and stays; see `changes`."""
    file = self.directory / _SETTINGS
    if self.status not in (Status.DONE, Status.RESUME) or not file.is_file():
      return {}
    found = records.read_object(file).get('images')  # Not there in runs of versions before.
    return found if isinstance(found, dict) else {}

  @property
  def runs(self) -> bool:
    """Whether this call runs it."""
    return self.status in (Status.RESUME, Status.RUN, Status.RERUN)


def names(config: PipelineConfig | type[PipelineConfig]) -> list[str]:
  """The names of a config's stages, in order."""
  return [entry.name for entry in stage.stages(config)]


def make_plan(
  config: PipelineConfig, workdir: Path, sources: dict[str, info.Source]
) -> list[Planned]:
  """Compares the config with what is in `workdir`; changes nothing.

  Args:
    config: the run's config.
    workdir: the run's directory; may not exist yet.
    sources: the data set's splits.

  Returns:
    The stages that the run has, in order.

  Raises:
    UserError: an unknown stage is named; a stage was made, or begun, with other settings; a stage
      that is not to run is needed and not done.
  """
  rerun, wanted, present = _named(config, 'rerun'), _wanted(config), needed(config)
  begun = _begun(config, workdir)
  # A split that only predictions read must not change what the other stages are known by.
  known = {config.dataset.train_split, *config.priors.splits}
  data = dataset_settings(config.dataset, {k: x for k, x in sources.items() if k in known})
  planned, again, faults = {}, set(), []
  for entry in stage.stages(config):
    if entry.name not in present:
      continue
    graft = getattr(config.inputs, entry.name, '')
    # What a grafted stage was made from may be no part of this run.
    needs = () if graft else entry.needs(config)
    inputs = {name: planned[name].fingerprint for name in needs}
    chosen = {'seed': config.seed, 'dataset': data, **stage_settings(entry, config)}
    item = Planned(entry, workdir / entry.name, Status.RUN, chosen, inputs)
    planned[entry.name] = item
    if graft:
      item.directory, item.status = Path(graft), Status.GRAFTED
      item.made = _grafted(entry.name, item.directory)
      continue
    if entry.name in rerun or again & set(needs):
      again.add(entry.name)
      item.status = Status.RERUN
      if entry.name in begun:
        # A rerun that was stopped goes on, unless the config has changed meanwhile.
        status, other = _compare(item, config)
        item.status = status if not other else Status.RERUN
    else:
      item.status, found = _compare(item, config)
      faults += found
    if entry.name not in wanted and item.status is not Status.DONE:
      faults.append(
        f'{entry.name}: needed and not done; run it too (leave out only / until), or give its '
        f'directory with --config.inputs.{entry.name}=DIR'
      )
  if faults:
    raise UserError(_explain(workdir, faults))
  return list(planned.values())


def stage_settings(entry: stage.Stage, config: PipelineConfig) -> dict[str, Any]:
  """What a stage's product depends on in the config; of weights that it starts from, a digest."""
  found = {}
  for field in entry.declared(config):
    value = entry.lookup(config, field)
    found[field] = settings.as_dict(value, product_only=True)
    if isinstance(value, settings.TrainingConfig):
      found[f'{field}.init_digest'] = networks.init_digest(value.init)
  return found


def origins(entry: stage.Stage, config: PipelineConfig) -> dict[str, dict[str, str]]:
  """The pretrained weights that a stage starts from, by config field, as its record keeps them."""
  fields = {field: entry.lookup(config, field) for field in entry.declared(config)}
  return {
    f'{field}.init': weights.origin(value.init)
    for field, value in fields.items()
    if isinstance(value, settings.TrainingConfig) and value.init
  }


def splits(config: PipelineConfig) -> list[str]:
  """The splits that the run opens: those of which a stage makes or measures something.

  Raises:
    UserError: an unknown stage is named.
  """
  present = needed(config)
  made = [entry.splits(config) for entry in stage.stages(config) if entry.name in present]
  # The priors' splits are part of what every product is known by.
  known = (config.dataset.train_split,), config.priors.splits
  measured = [
    (training.eval_split,)
    for name in names(config)
    if name in present and isinstance(training := getattr(config, name), settings.TrainingConfig)
    if training.eval_every and training.eval_split
  ]
  return list(dict.fromkeys(itertools.chain(*known, *made, *measured)))


def needed(config: PipelineConfig) -> set[str]:
  """Names of the stages that the run has.

  Raises:
    UserError: an unknown stage is named.
  """
  return _closure(config, _wanted(config), explicit=bool(config.only))


def _wanted(config: PipelineConfig) -> list[str]:
  """The stages that are asked for: by name, or all up to one."""
  known, until = names(config), _named(config, 'until')
  end = known.index(until[0]) + 1 if until else None
  return _named(config, 'only') or known[:end]


def _named(config: PipelineConfig, field: str) -> list[str]:
  """The stages that a field of the config names."""
  known = names(config)
  found = [name.strip() for name in getattr(config, field).split(',') if name.strip()]
  for name in found:
    if name not in known:
      hint = did_you_mean(name, known)
      raise UserError(f'{field} names the stage {name!r}; there are {", ".join(known)}{hint}')
  return found


def _closure(config: PipelineConfig, wanted: list[str], *, explicit: bool) -> set[str]:
  """The stages wanted and all that they need.

  Where they were not named one by one, what nobody needs is left out: a classifier that no later
  stage reads is not trained just because it comes first.
  """
  needs: dict[str, tuple[str, ...]] = {}
  for entry in stage.stages(config):
    needs[entry.name] = entry.needs(config)
    unknown = [name for name in needs[entry.name] if name not in needs or name == entry.name]
    if unknown:
      raise ValueError(
        f'the stage {entry.name} needs {", ".join(unknown)}; the stages before it are '
        f'{", ".join(list(needs)[:-1])}'
      )
  result, todo = set(), list(wanted) if explicit else wanted[-1:]
  while todo:
    name = todo.pop()
    if name not in result:
      result.add(name)
      todo += needs[name] if not getattr(config.inputs, name, '') else ()
  return result


def _grafted(name: str, directory: Path) -> str:
  """The fingerprint of another run's product."""
  done = records.read_done(directory)
  if done is None:
    raise UserError(
      f'inputs.{name} is {directory}, which is not a finished stage: it holds no {records.DONE}'
    )
  if name not in done.config:
    raise UserError(
      f'inputs.{name} is {directory}, which is a finished stage, but not {name}: it was made with '
      f'the settings {", ".join(done.config)}'
    )
  return done.fingerprint


def _compare(item: Planned, config: PipelineConfig) -> tuple[Status, list[str]]:
  done = records.read_done(item.directory)
  if done is not None:
    found = {'settings': done.config, 'inputs': done.inputs}
    faults = [] if done.fingerprint == item.fingerprint else _differences(item, found, config)
    if not faults:
      item.made = done.fingerprint
    return Status.DONE, faults
  begun = item.directory / _SETTINGS
  if begun.is_file():
    found = records.read_object(begun, {'settings': dict, 'inputs': dict})
    return Status.RESUME, _differences(item, found, config)
  return Status.RUN, []


def _differences(item: Planned, found: dict[str, Any], config: PipelineConfig) -> list[str]:
  """What of a product that is there is not as it is wanted.

  A field that a version before did not have is no difference where it has its default: defaults
  compute what was computed before there was the field.
  """
  there = found['settings']
  usual = records.diff(there, records.plain(stage_settings(item.stage, type(config)())))
  new = {(field, _key(here)) for field, old, here in usual if old == records.ABSENT}
  faults = [
    f'{item.stage.name}: {field} is {_short(old)} there and {_short(here)} here'
    for field, old, here in records.diff(there, records.plain(item.settings))
    if old != records.ABSENT or (field, _key(here)) not in new
  ]
  if not faults and found['inputs'] != item.inputs:
    faults = [f'{item.stage.name}: it was made from other products of {", ".join(item.inputs)}']
  return faults


def _key(value: Any) -> str:
  return json.dumps(value, sort_keys=True)


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _explain(workdir: Path, faults: list[str]) -> str:
  lines = '\n'.join(f'  {fault}' for fault in faults)
  return (
    f'{workdir} does not fit this config:\n{lines}\n'
    'Nothing was changed. Set the fields back, or take another --workdir, or run the first of '
    'these stages and what follows again with --config.rerun=STAGE (what is there is kept under '
    'another name).'
  )


def dataset_settings(config: info.DatasetConfig, sources: dict[str, info.Source]) -> dict[str, Any]:
  """What products depend on in the data, not where it lies: ids, labels, classes and range."""
  known: dict[str, Any] = {
    'name': config.name,
    'train_split': config.train_split,
    'val_split': config.val_split,
  }
  for field in data_sources.row(config.name).settings:
    known[field] = settings.as_dict(getattr(config, field))
  for split, source in sorted(sources.items()):
    digest = hashlib.sha256('\n'.join([*source.info.classes, *source.ids]).encode())
    digest.update(source.labels.tobytes())
    known[f'{split}_ids_and_labels'] = digest.hexdigest()[:16]
    # Which value is white in images of more than 8 bits; a new image can change it for all.
    if (white := getattr(source, 'white', None)) is not None:
      known[f'{split}_range'] = list(white)
  return known


def open_rerun(config: PipelineConfig, workdir: Path) -> None:
  """Notes that a rerun was asked for, unless the same one is not finished yet."""
  if config.rerun and _asked(workdir).get('of') != _request(config):
    records.write_json(workdir / _RERUN, {'of': _request(config), 'begun': []})


def close_rerun(workdir: Path) -> None:
  """Forgets a rerun that is finished: the same command is then another one."""
  (workdir / _RERUN).unlink(missing_ok=True)


def _begun(config: PipelineConfig, workdir: Path) -> set[str]:
  """The stages that the same command has begun to run again."""
  asked = _asked(workdir)
  return set(map(str, asked['begun'])) if asked.get('of') == _request(config) else set()


def _asked(workdir: Path) -> dict[str, Any]:
  path = workdir / _RERUN
  return records.read_object(path, {'of': list, 'begun': list}) if path.is_file() else {}


def _request(config: PipelineConfig) -> list[str]:
  return [config.rerun, config.only, config.until]


def begin(item: Planned, images: Mapping[str, str] | None = None) -> None:
  """Makes the stage's directory and notes its settings, before any work; moves an old one aside.

  Args:
    item: the stage.
    images: digests of the images that it reads, as of `changes.digests`.
  """
  set_aside(item)
  item.directory.mkdir(parents=True, exist_ok=True)
  atomic.sweep(item.directory)
  if not (item.directory / _SETTINGS).is_file():
    begun = {'settings': item.settings, 'inputs': item.inputs, 'images': dict(images or {})}
    records.write_json(item.directory / _SETTINGS, begun)
    atomic.sync_folders([item.directory])


def set_aside(item: Planned) -> None:
  """Moves away the directory of a stage that runs again; it is then as one that never ran."""
  if item.status is not Status.RERUN:
    return
  if item.directory.exists():
    number = 1
    while (old := item.directory.with_name(f'{item.directory.name}.old{number}')).exists():
      number += 1
    with lock.alone(item.directory):
      item.directory.rename(old)
    atomic.sync_folders([old])
  workdir = item.directory.parent
  if asked := _asked(workdir):
    # After the old one was moved: who is killed before this begins anew, and loses nothing.
    records.write_json(workdir / _RERUN, {**asked, 'begun': [*asked['begun'], item.stage.name]})
  item.status = Status.RUN


def finish(item: Planned, products: dict[str, Any]) -> None:
  """Notes that the stage is done."""
  records.write_done(item.directory, item.settings, item.inputs, products)
