"""Looks at a data set, an installation and a run's directory before the run; changes nothing."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pnoc_jax import config as config_lib
from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import statistics, survey
from pnoc_jax.data.inspect.findings import Report, Severity
from pnoc_jax.engine import memory, settings
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import records, user_cache
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.parallel import targets
from pnoc_jax.runs import disk, estimates, forecast, graph, lock, runner

FAULT, WARNING, FACT = Severity.FAULT, Severity.WARNING, Severity.FACT
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'pillow')
_SLOW_ON_CPU = 20_000_000
"""Parameters from which on a training on a CPU is remarked on."""
_HELD = 3
"""Batches of a worker that are in shared memory at once: two ready, and one that is read."""

# (split, images) -> called with (examples done, examples), in a with statement.
Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int, int], None]]]


@contextlib.contextmanager
def _silent(split: str, count: int) -> Iterator[Callable[[int, int], None]]:
  yield lambda done, total: None


def examine(
  config: PipelineConfig,
  workdir: Path,
  *,
  progress: Progress = _silent,
  target: targets.Target | None = None,
) -> Report:
  """Looks at everything that a run of `config` in `workdir` would need.

  Args:
    config: the run's.
    workdir: its directory; may not exist.
    progress: shows how far the look at a split is.
    target: devices to ask about; those that are here by default.

  Returns:
    The findings.

  Raises:
    UserError: there is no device at all.
  """
  report = Report()
  with report.catch('config'):
    config_lib.validate(config)
  runtime = _installation(config, workdir, report)
  looked = _data(config, workdir, runtime, report, progress)
  if config_lib.value_faults(config):  # All that follows takes them for granted.
    return report
  plan = _plan(config, workdir, runtime, looked, report)
  train = looked.get(config.dataset.train_split)
  needs = {}
  if train is not None:
    found = {} if target is None else _time(config, plan, target, runtime, report)
    # A network that cannot be built is a fault of its stage already; the rest is told all the same.
    with report.catch('memory'):
      needs = _memory(config, plan, train, _Room.of(target, runtime, found), report)
    if target is None and not any(x.about == 'config' for x in report.of(FAULT)):
      with report.catch('memory'):
        _works(config, plan, looked, runtime, report)
  _disk(config, workdir, plan, looked, needs, report)
  return report


def _installation(config: PipelineConfig, workdir: Path, report: Report) -> Runtime:
  versions = []
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions.append(f'{name} {importlib.metadata.version(name)}')
  report.add(FACT, 'installation', f'Python {platform.python_version()}, {", ".join(versions)}')
  try:
    devices = jax.local_devices()
  except RuntimeError as error:
    raise UserError(f'JAX finds no device to work on: {error}') from error
  kinds = f'{len(devices)} x {devices[0].device_kind} ({devices[0].platform})'
  room, host = (estimates.readable(f()) for f in (memory.device_bytes, memory.host_bytes))
  report.add(
    FACT,
    'installation',
    f'{kinds} of {room} each; {os.cpu_count()} CPU cores, {host} of memory',
  )
  chosen = config.runtime.compilation_cache
  for place in (
    Path(chosen) if chosen else user_cache.directory('xla'),
    user_cache.directory('data'),
  ):
    if (said := user_cache.fault(place)) and said not in {x.what for x in report.findings}:
      report.add(WARNING, 'installation', said)
  return Runtime(
    workdir=workdir,
    mesh=meshes.make_mesh(),
    local_mesh=meshes.make_mesh(devices),
    config=config.runtime,
  )


Looked = dict[str, tuple[info.Source, survey.Survey]]


def _data(
  config: PipelineConfig, workdir: Path, runtime: Runtime, report: Report, progress: Progress
) -> Looked:
  dataset = config.dataset
  train, val = dataset.train_split, dataset.val_split
  wanted = _splits(config)
  report.findings += survey.line_ends(dataset, wanted)
  looked = {}
  for split in wanted:
    about = f'split {split}'
    try:
      source = runtime.source(dataset, split)
    except UserError as error:
      report.add_error(about, error)
      report.add(FACT, about, 'its images were not looked at; mend the faults and call again')
      continue
    with progress(split, len(source)) as on_progress:
      seen = survey.look(source, on_progress=on_progress)
    skips = dataset.on_error is info.OnError.SKIP
    report.findings += survey.judge(
      source,
      seen,
      trains=split == train,
      known=sources.row(dataset.name).images.get(split),
      own_list=bool(dataset.lists),
      broken=WARNING if skips else FAULT,
    )
    iou = _iou(workdir, split, source.info)
    text = statistics.table(seen.statistics(source), source.info, iou)
    report.add(FACT, f'classes of {split}', f'images with it, Table 8\n{text}')
    if skips:
      runtime.quarantined[split] = frozenset(x.id for x in seen.problems)
    looked[split] = source, seen
  if train in looked and val in looked and train != val:
    report.findings += survey.compare(looked[train][0], looked[val][0])
  return looked


def _splits(config: PipelineConfig) -> list[str]:
  """The splits that the run opens."""
  with contextlib.suppress(UserError):  # A stage that there is not: the plan says so.
    return graph.splits(config)
  return list(dict.fromkeys((config.dataset.train_split, *config.priors.splits)))


def _iou(workdir: Path, split: str, dataset: info.DatasetInfo) -> np.ndarray | None:
  """IoU of the run's priors, where they were scored already."""
  path = workdir / 'evaluation' / f'priors_{split}.json'
  if not path.is_file():
    return None
  scored = records.read_object(path, {'iou': dict})['iou']
  found = [scored.get(name) for name in (dataset.background, *dataset.classes)]
  return np.array([x if isinstance(x, int | float) else np.nan for x in found], np.float64)


def _plan(
  config: PipelineConfig, workdir: Path, runtime: Runtime, looked: Looked, report: Report
) -> list[graph.Planned]:
  """What of the run is there, and what the stages say against the rest."""
  needed = list(dict.fromkeys((config.dataset.train_split, *config.priors.splits)))
  if not all(split in looked for split in needed):
    report.add(FACT, 'run', 'not planned, as a split of it cannot be opened')
    return []
  _check_workdir(workdir, report)
  plan = []
  with report.catch('run'):
    opened = {split: looked[split][0] for split in needed}
    if any(runtime.quarantined.values()):
      opened = {split: runtime.source(config.dataset, split) for split in needed}
    plan = runner.make_plan(config, opened, runtime)
  there = {item.stage.name: item.directory for item in plan if not item.runs}
  for item in plan:
    about, source = f'stage {item.stage.name}', looked[needed[0]][0]
    if item.runs:
      with report.catch(about):
        item.stage.check(runner.context(item, config, there, runtime))
        text = runner.describe(item, config, source, runtime)
        report.add(FACT, about, f'{item.status.value}: {text}')
      for said in item.stage.warnings(config):
        report.add(WARNING, about, said)
    else:
      report.add(FACT, about, f'{item.status.value}: {item.directory}')
  return plan


def _check_workdir(workdir: Path, report: Report) -> None:
  if workdir.exists() and not workdir.is_dir():
    report.add(FAULT, 'run', f'--workdir is {workdir}, which is a file')
    return
  parent = disk.existing(workdir)
  if not os.access(parent, os.W_OK):
    report.add(FAULT, 'run', f'{workdir} cannot be written: {parent} belongs to someone else')
  state = 'is there already' if workdir.exists() else 'is new'
  report.add(FACT, 'run', f'{workdir} {state}')
  if workdir.is_dir() and (said := lock.trouble(workdir)):
    report.add(WARNING, 'run', said)


def _time(
  config: PipelineConfig,
  plan: list[graph.Planned],
  target: targets.Target,
  runtime: Runtime,
  report: Report,
) -> dict[str, forecast.Forecast]:
  """How long each stage takes on the target at best."""
  rows, found = forecast.read(forecast.path(config, target)), {}
  inputs = {item.stage.name: item.directory for item in plan}
  # As many programs, traced in a moment.
  looped = forecast.with_loops(config)
  for item in (item for item in plan if item.runs):
    name = item.stage.name
    with report.catch(f'stage {name}'):
      calls = item.stage.programs(runner.context(item, looped, inputs, runtime))
      if not calls:
        continue
      found[name] = one = forecast.forecast(item.stage, config, calls, target, rows)
      origin = 'of its compiled programs' if one.compiled else 'estimated from shapes'
      about = f'{duration(one.seconds)} on {target.name} at best, {origin}'
      working = min(forecast.sharing(call, target) for call in calls)
      if working < target.count:
        about += f'; {working} of {target.count} devices share a batch'
      report.add(FACT, f'time of {name}', about)
  if found:
    total, compiled = (
      sum(x.seconds for x in found.values()),
      all(x.compiled for x in found.values()),
    )
    text = f'{duration(total)} on {target.name} at best: FLOPs and memory traffic by the data sheet'
    if not compiled:
      text += f'; python benchmarks/aot.py --target={target.name} compiles what is estimated'
    report.add(FACT, 'time', text)
  return found


class _Room(NamedTuple):
  """What a training must fit in.

  Attributes:
    devices: how many share a batch.
    bytes: of one of them.
    slow: whether they are a CPU.
    compiled: stage -> bytes that its programs need on one, where they were compiled.
  """

  devices: int
  bytes: float
  slow: bool
  compiled: dict[str, float]

  @classmethod
  def of(
    cls,
    target: targets.Target | None,
    runtime: Runtime,
    found: dict[str, forecast.Forecast],
  ) -> '_Room':
    if target is None:
      slow = jax.local_devices()[0].platform == 'cpu'
      return cls(runtime.mesh.size, memory.device_bytes(), slow, {})
    compiled = {name: one.bytes for name, one in found.items() if one.bytes is not None}
    return cls(target.count, target.device.memory, target.kind == 'cpu', compiled)


def _memory(
  config: PipelineConfig,
  plan: list[graph.Planned],
  train: tuple[info.Source, survey.Survey],
  room: _Room,
  report: Report,
) -> dict[str, memory.Memory]:
  found = {}
  source, seen = train
  load = memory.Load(room.devices, int(seen.sizes.max(initial=0)))
  fits = estimates.Room(room.bytes, room.compiled)
  for estimate in estimates.trainings(config, plan, source.info, load, room=fits):
    name, need = estimate.stage, estimate.training
    report.add(FACT if estimate.fits else WARNING, f'memory of {name}', estimate.text)
    if need is not None:
      found[name] = need
    if room.slow and need is not None and need.count > _SLOW_ON_CPU:
      what = f'{need.count:,} parameters, and there is no GPU or TPU: a step takes minutes'
      report.add(WARNING, f'stage {name}', what)
  return found


def _works(
  config: PipelineConfig,
  plan: list[graph.Planned],
  looked: Looked,
  runtime: Runtime,
  report: Report,
) -> None:
  """Inference, CRF and walk on the devices that are here."""
  sources = {split: source for split, (source, _) in looked.items()}

  def context(item: graph.Planned) -> Context:
    return runner.context(item, config, {}, runtime)

  for estimate in estimates.works(config, plan, sources, context):
    level = FACT if estimate.fits else WARNING
    report.add(level, f'memory of {estimate.stage}', estimate.text)


def _disk(
  config: PipelineConfig,
  workdir: Path,
  plan: list[graph.Planned],
  looked: Looked,
  needs: dict[str, memory.Memory],
  report: Report,
) -> None:
  images = {split: disk.Images(x.labels, seen.sizes) for split, (x, seen) in looked.items()}
  wanted: dict[str, float] = dict(disk.products(config, plan, images))
  for name in wanted.keys() & needs.keys():
    # One more than are kept while the newest is written, and the weights.
    wanted[name] += needs[name].state * (config.runtime.keep + 1) + needs[name].variables
  _shared_memory(config, plan, looked, report)
  if not plan:
    return  # What a run would write is not known.
  free, total = disk.free(workdir), sum(wanted.values())
  level = FAULT if total > free else WARNING if total > estimates.FULL * free else FACT
  report.add(level, 'disk', disk.describe(wanted, workdir, what='products and checkpoints'))


def _shared_memory(
  config: PipelineConfig, plan: list[graph.Planned], looked: Looked, report: Report
) -> None:
  """Batches that processes have loaded pass through shared memory, which containers keep small."""
  if not config.runtime.loaders or not disk.SHARED.is_dir():
    return
  largest = max((int(seen.sizes.prod(1).max(initial=0)) for _, seen in looked.values()), default=0)
  needs = [
    config.runtime.loaders * _HELD * _batch_bytes(getattr(config, item.stage.name), largest)
    for item in plan
    if item.runs
  ]
  need, there = max(needs, default=0), shutil.disk_usage(disk.SHARED).total
  if need > estimates.FULL * there:
    report.add(
      WARNING,
      'memory',
      f'{config.runtime.loaders} workers hand over batches of about {estimates.readable(need)} in '
      f'{disk.SHARED}, which has {estimates.readable(there)}: enlarge it (docker run '
      '--shm-size=8g), or lower config.runtime.workers',
    )


def _batch_bytes(ours: object, largest: int) -> int:
  """Bytes of a batch of a stage that is made of images.

  Args:
    ours: the stage's config.
    largest: pixels of the largest image.
  """
  if isinstance(ours, settings.TrainingConfig):
    pixels = ours.transform.crop**2 or largest
    return ours.batch_size * pixels * 4  # Three channels and a target.
  if isinstance(ours, settings.InferenceConfig):
    pixels = getattr(ours, 'resize_to', 0) ** 2 or largest
    return int(ours.batch_size * pixels * 3 * sum(s**2 for s in getattr(ours, 'scales', (1.0,))))
  return 0


def duration(seconds: float) -> str:
  """A time for people: 3.2 h."""
  for unit, length in (('days', 86400), ('h', 3600), ('min', 60)):
    if seconds >= 2 * length:
      return f'{seconds / length:.1f} {unit}'
  return f'{seconds:.2g} s'
