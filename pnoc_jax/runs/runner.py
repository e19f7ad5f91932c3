"""Runs a config, or several one after another: checks, plan, stages."""

import contextlib
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax

from pnoc_jax.config import PipelineConfig, validate
from pnoc_jax.data import cache, info
from pnoc_jax.data.inspect import checks
from pnoc_jax.engine import clock, infer, log, loop, memory, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import records, user_cache
from pnoc_jax.parallel import company, hosts
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.report import build, files
from pnoc_jax.runs import changes, crews, disk, estimates, graph, lock, written
from pnoc_jax.stages import evaluation
from pnoc_jax.stages.common import stage


def execute(config: PipelineConfig, workdir: Path) -> None:
  """Runs what of `config` is not done in `workdir`, and prints a plan before work starts.

  Args:
    config: the run.
    workdir: its directory; made if absent.

  Raises:
    UserError: the config, the data or the directory is not fit to run; nothing was changed.
    Interrupted: a signal asked to stop; the state is saved.
  """
  execute_all([(config, workdir)], workdir)


def execute_all(
  runs: Sequence[tuple[PipelineConfig, Path]],
  workdir: Path,
  *,
  after: Callable[[], object] = lambda: None,
) -> None:
  """Runs several configs one after another, as `execute` does each.

  Args:
    runs: the config and the directory of each; a run may read what an earlier one makes.
    workdir: the directory in which no other such call works meanwhile.
    after: called by one process when a run is done.

  Raises:
    UserError: as of `execute`; runs that are done stay.
    Interrupted: as of `execute`.
  """
  # Outermost, so that whatever happens to one process is told to all.
  end = functools.partial(crews.end, workdir=workdir)
  with company.Company(end) as others, loop.stop_on_signals() as asked:
    crew = crews.Crew(others, others.should_stop(asked))
    for config, _ in runs:
      validate(config)
      others.compare({**crews.flat(config), **crews.versions()})
    made = _check_outputs(workdir)
    _setup_cache(runs[0][0])
    with _without_trace(made), crews.held(workdir, crew):
      for number, (config, path) in enumerate(runs, 1):
        if len(runs) > 1 and hosts.is_main():
          print(f'\n=== {config.name} ({number} of {len(runs)}) ===')
        if path == workdir:
          _run(config, path, crew)
        else:
          _run_below(config, path, crew)
        if hosts.is_main():
          after()
      if hosts.is_main():
        for _, path in runs:
          graph.close_rerun(path)


def _run_below(config: PipelineConfig, workdir: Path, crew: crews.Crew) -> None:
  """One of several runs, which somebody may have started alone as well."""
  workdir.mkdir(parents=True, exist_ok=True)
  with crews.held(workdir, crew):
    _run(config, workdir, crew)


@contextlib.contextmanager
def _without_trace(made: list[Path]) -> Iterator[None]:
  """Removes what directories a start made for itself if it failed before anything was written."""
  try:
    yield
  except BaseException:
    for path in made if hosts.is_main() else ():
      with contextlib.suppress(OSError):  # It is not empty.
        path.rmdir()
    raise


def _check_outputs(workdir: Path) -> list[Path]:
  """Makes the directory; returns it and those above it that were not there, the deepest first."""
  made = [path for path in (workdir, *workdir.parents) if not path.exists()]
  if workdir.exists() and not workdir.is_dir():
    raise UserError(f'--workdir is {workdir}, which is a file')
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--workdir is {workdir}, which cannot be made: {error.strerror}') from error
  return made


def _setup_cache(config: PipelineConfig) -> None:
  """Keeps compiled programs where that can be; a run can do without."""
  chosen = config.runtime.compilation_cache
  path = Path(chosen) if chosen else user_cache.directory('xla')
  said = user_cache.fault(path)
  if path is not None and said is None:
    try:
      compiler.setup_cache(path)
    except OSError as error:
      said = f'{path} cannot be made ({error.strerror}), so compiled programs are not kept'
  if not hosts.is_main():
    return
  if said is not None:
    user_cache.warn(said)
  for kind in user_cache.KEPT:
    user_cache.trim(kind)


def _run(config: PipelineConfig, workdir: Path, crew: crews.Crew) -> None:
  workdir.mkdir(parents=True, exist_ok=True)
  compiler.compile_quickly(config.runtime.quick_compiling)
  runtime = Runtime(
    workdir=workdir,
    mesh=meshes.make_mesh(),
    local_mesh=meshes.make_mesh(jax.local_devices()),
    config=config.runtime,
    should_stop=crew.should_stop,
  )
  sources = _open(config, runtime)
  for source in sources.values():
    files = (path for index in range(len(source)) for path in source.files(index))
    written.check_beside(files, workdir, '--workdir')
  seen: cache.Seen = {}
  if config.runtime.check_dataset:
    sources = _check(config, runtime, sources, seen, crew.others)
  crew.others.compare({f'ids and labels of {x}': crews.facts(y) for x, y in sources.items()})
  plan = make_plan(config, sources, runtime)
  crew.others.compare({x.stage.name: f'{x.status.value} {x.fingerprint[:12]}' for x in plan})
  _check_stages(config, plan, runtime)
  states: changes.States = {}
  if hosts.is_main():
    room, narrow = disk.ask(config, plan, sources, workdir)
    _print_plan(config, workdir, plan, sources, runtime)
    if room:
      print(f'  disk: {room}')
    if narrow:
      print(f'warning: {narrow}', file=sys.stderr, flush=True)
    states = changes.look(sources, seen)
    changed = changes.find(workdir, plan, states)
    _remark(workdir, sources, changed)
    for item in plan:
      for said in item.stage.warnings(config) if item.runs else ():
        print(f'warning: stage {item.stage.name}: {said}', file=sys.stderr, flush=True)
    _warn_of_memory(config, plan, sources, runtime)
    if not changed:
      changes.note(workdir, states)
    records.write_json(workdir / 'config.json', settings.as_dict(config))
    graph.open_rerun(config, workdir)
  hosts.barrier('plan')
  grafted = [x.directory for x in plan if x.status is graph.Status.GRAFTED and hosts.is_main()]
  with lock.read(grafted):
    _run_stages(config, plan, runtime, states)
  if hosts.is_main() and not any(item.runs for item in plan):
    print(build.terminal_tables(workdir, stage.stages(config)))


def _run_stages(
  config: PipelineConfig, plan: list[graph.Planned], runtime: Runtime, states: changes.States
) -> None:
  directories = {item.stage.name: item.directory for item in plan}
  for item in plan:
    if runtime.should_stop():
      raise loop.Interrupted(0, f'before the stage {item.stage.name}')
    # The report gathers what is there, which may have grown.
    if item.runs or item.stage.name == 'report':
      _run_stage(config, item, directories, runtime, states)
      if hosts.is_main():
        _score(config, item.stage, plan, runtime)
      hosts.barrier(f'{item.stage.name}/score')


def _check_stages(config: PipelineConfig, plan: list[graph.Planned], runtime: Runtime) -> None:
  """Raises UserError with what any stage that will run finds wrong, that of all stages at once."""
  there = {item.stage.name: item.directory for item in plan if not item.runs}
  faults = []
  for item in plan:
    if item.runs:
      try:
        item.stage.check(context(item, config, there, runtime))
      except UserError as error:
        faults.append(str(error))
  if faults:
    # Several stages may find the same.
    raise UserError('\n'.join(dict.fromkeys(faults)))


def make_plan(
  config: PipelineConfig, sources: dict[str, info.Source], runtime: Runtime
) -> list[graph.Planned]:
  """The plan; an evaluation whose masks or images have changed since is to do again what changed.

  Args:
    config: the run's.
    sources: the data set's splits, without the quarantined images.
    runtime: of the run.

  Raises:
    UserError: as of `graph.make_plan`.
  """
  plan = graph.make_plan(config, runtime.workdir, sources)
  directories = {item.stage.name: item.directory for item in plan}
  for item in plan:
    if item.stage.name == 'evaluation' and item.status is graph.Status.DONE:
      changed = evaluation.stale(config, directories, item.directory, runtime)
      if changed and hosts.is_main():
        said = ', '.join(changed)
        print(f'evaluation: masks or images have changed, or are new; scored again: {said}')
      item.status = graph.Status.RESUME if changed else item.status
  return plan


def _open(config: PipelineConfig, runtime: Runtime) -> dict[str, info.Source]:
  return {split: runtime.source(config.dataset, split) for split in graph.splits(config)}


def _check(
  config: PipelineConfig,
  runtime: Runtime,
  sources: dict[str, info.Source],
  seen: cache.Seen,
  others: company.Company,
) -> dict[str, info.Source]:
  """Decodes every image once; broken ones stop the run or are left out, as configured.

  Args:
    config: the run's.
    runtime: of the run.
    sources: the splits.
    seen: what is found out about files is kept there.
    others: the processes of the run, which share the images.
  """
  crew = checks.Crew(hosts.process_index(), hosts.process_count(), others.share)
  for split, source in sources.items():
    if not len(source) or not source.files(0):
      continue  # It is computed, not read.

    def advance(done: int, total: int, split: str = split) -> None:
      progress.advance()
      if runtime.should_stop():
        raise loop.Interrupted(done, f'the check of {split}, {done} of {total}, begins again')

    path = runtime.workdir / f'quarantine_{split}.csv'
    mine = len(range(crew.index, len(source), crew.count))
    with log.Progress(mine, f'checking {split}') as progress:
      broken = checks.screen(
        source,
        on_error=config.dataset.on_error,
        quarantine_path=path,
        stamp=runtime.workdir / f'.checked_{split}.json',
        on_progress=advance,
        seen=seen,
        crew=crew,
      )
    runtime.quarantined[split] = broken
    if broken and hosts.is_main():
      print(f'{split}: left out {len(broken)} broken images, listed in {path}')
  return _open(config, runtime)


def context(
  item: graph.Planned,
  config: PipelineConfig,
  directories: Mapping[str, Path],
  runtime: Runtime,
) -> Context:
  """What a stage works on: it sees of the config what it declared.

  Args:
    item: the stage in the plan.
    config: the run's.
    directories: of the stages that are there.
    runtime: of the run.
  """
  needs = item.stage.needs(config)
  inputs = {name: directories[name] for name in needs if name in directories}
  return Context(item.stage.name, item.stage.view(config), inputs, item.directory, runtime)


def describe(
  item: graph.Planned, config: PipelineConfig, train: info.Source, runtime: Runtime
) -> str:
  """Says what a stage will do and, where a training does not take all devices, on which ones.

  Args:
    item: the stage in the plan.
    config: the run's.
    train: the training split.
    runtime: of the run.
  """
  text, ours = item.stage.describe(config, train), getattr(config, item.stage.name)
  remark = ''
  if isinstance(ours, settings.TrainingConfig):
    remark = trainer.on_devices(ours, runtime.mesh)
  return f'{text}; {remark}' if remark else text


def _print_plan(
  config: PipelineConfig,
  workdir: Path,
  plan: list[graph.Planned],
  sources: dict[str, info.Source],
  runtime: Runtime,
) -> None:
  train = sources[config.dataset.train_split]
  sizes = ', '.join(f'{split} {len(source)}' for split, source in sources.items())
  kind = runtime.mesh.devices.flat[0].device_kind
  print(f'{config.name}: {train.info.name}, {train.info.num_classes} classes; images: {sizes}')
  print(f'{runtime.mesh.size} x {kind}, {hosts.process_count()} process(es); {workdir}')
  for item in plan:
    text = describe(item, config, train, runtime) if item.runs else str(item.directory)
    print(f'  {item.stage.name:<15} {item.status.value:<14} {text}')


def _remark(
  workdir: Path, sources: Mapping[str, info.Source], changed: Mapping[str, str] | None = None
) -> None:
  """Warns of what is odd about the splits, here and, by a file, in the report.

  Args:
    workdir: the run's directory.
    sources: the splits.
    changed: what to say of images that were changed, as of `changes.find`.
  """
  found = {split: list(info.remarks(source)) for split, source in sources.items()}
  for split, remark in (changed or {}).items():
    found[split].append(remark)
  for split, remarks in found.items():
    for remark in remarks:
      print(f'warning: split {split}: {remark}', file=sys.stderr, flush=True)
  path = workdir / files.REMARKS
  if not path.is_file() or records.read_json(path) != records.plain(found):
    records.write_json(path, found)


def _warn_of_memory(
  config: PipelineConfig,
  plan: list[graph.Planned],
  sources: Mapping[str, info.Source],
  runtime: Runtime,
) -> None:
  """Says before any work what will not fit the memory, perhaps days later."""
  train = sources[config.dataset.train_split]
  seen = infer.images_of(train) if any(x.runs and x.stage.memory for x in plan) else None
  load = memory.Load(runtime.mesh.size, max(seen.largest) if seen else 0)
  found = itertools.chain(
    estimates.trainings(config, plan, train.info, load, every=False),
    estimates.works(config, plan, sources, lambda x: context(x, config, {}, runtime)),
  )
  for estimate in found:
    if not estimate.fits:
      print(f'warning: memory of {estimate.stage}: {estimate.text}', file=sys.stderr, flush=True)


def _run_stage(
  config: PipelineConfig,
  item: graph.Planned,
  directories: Mapping[str, Path],
  runtime: Runtime,
  states: changes.States,
) -> None:
  name = item.stage.name
  if hosts.is_main():
    graph.begin(item, changes.digests(item.stage, config, states))
    print(f'\n{name}', flush=True)
  hosts.barrier(f'{name}/begin')
  origins = graph.origins(item.stage, config)
  start = time.monotonic()
  facts = item.stage.run(context(item, config, directories, runtime)) or {}
  seconds = time.monotonic() - start
  if hosts.is_main():
    try:
      graph.finish(item, {'seconds': round(seconds, 1), **origins, **facts})
    except (TypeError, ValueError) as error:
      raise TypeError(
        f'the stage {name} gave facts that its record cannot hold, {facts!r}: {error}'
      ) from error
    print(f'{name} done in {clock.duration(seconds)}', flush=True)
  hosts.barrier(f'{name}/end')


def _score(
  config: PipelineConfig, entry: stage.Stage, plan: list[graph.Planned], runtime: Runtime
) -> None:
  """Shows what a stage's product is worth; the evaluation at the end finds the score done."""
  if entry.name not in config.evaluation.of:
    return
  last = next((item for item in plan if item.stage.name == 'evaluation'), None)
  out = runtime.workdir / 'evaluation'
  if last is not None and last.runs:
    graph.set_aside(last)
  elif records.read_done(out) is not None:
    return  # It is of other products, and stays what it is.
  directories = {item.stage.name: item.directory for item in plan}
  evaluation.score_stage(config, entry, directories, out, runtime)
