"""What `launch/paper.py` does: plan, run, and write tables and figures after each run."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import checks, statistics
from pnoc_jax.errors import UserError, did_you_mean
from pnoc_jax.io import records
from pnoc_jax.paper import figures, plan, sheets
from pnoc_jax.paper import rows as row_lib
from pnoc_jax.paper import tables as table_lib
from pnoc_jax.parallel import hosts, targets
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.report import files
from pnoc_jax.runs import forecast, runner
from pnoc_jax.stages import report
from pnoc_jax.stages.common import stage


@dataclasses.dataclass(frozen=True)
class Order:
  """What is wanted.

  Attributes:
    config: that was given.
    make: words -> the config with them.
    workdir: of the runs and of what is written.
    tables: numbers of tables.
    figures: numbers of figures.
    rows: names of rows; all of the tables and figures by default.
    seeds: runs of each row.
  """

  config: PipelineConfig
  make: row_lib.Make
  workdir: Path
  tables: tuple[str, ...] = ()
  figures: tuple[str, ...] = ()
  rows: tuple[str, ...] = ()
  seeds: int = 1

  @property
  def wanted(self) -> list[tuple[str, 'table_lib.Table | figures.Figure']]:
    """(name of the files, table or figure) of each.

    Raises:
      UserError: nothing is wanted, or there is no such table or figure.
    """
    known = {f'table{n}': x for n, x in table_lib.TABLES.items()}
    known |= {f'figure{n}': x for n, x in figures.FIGURES.items()}
    names = [f'table{n}' for n in self.tables] + [f'figure{n}' for n in self.figures]
    if not names:
      raise UserError('say what is wanted: --table=1, or --figure=8')
    for name in names:
      if name not in known:
        hint = did_you_mean(name, list(known))
        raise UserError(f'there is no {name}; there are {", ".join(known)}{hint}')
    return [(name, known[name]) for name in names]

  def of(self, thing: 'table_lib.Table | figures.Figure') -> list[row_lib.Row]:
    """The rows of a table or figure: those that were named, or all that the config can have."""
    possible = row_lib.fitting(thing.rows, self.config)
    named = [name for name in self.rows if name in {row.name for row in possible}]
    return row_lib.chosen(possible, named) if named or not self.rows else []


def plan_of(order: Order, data: 'Data | None') -> list[plan.Run]:
  """The runs of all that is wanted.

  Raises:
    UserError: something is named that there is not.
  """
  wanted = [thing for _, thing in order.wanted]
  possible = {
    row.name: row for thing in wanted for row in row_lib.fitting(thing.rows, order.config)
  }
  row_lib.chosen(list(possible.values()), order.rows)
  for name, thing in order.wanted:
    if not order.of(thing):
      known = ', '.join(row.name for row in row_lib.fitting(thing.rows, order.config))
      raise UserError(f'{name} has none of the rows {", ".join(order.rows)}; it has {known}')
  rows = {row.name: row for thing in wanted for row in order.of(thing)}
  others = [x for x in row_lib.fitting(row_lib.ALL, order.config) if x.name not in rows]
  return plan.runs(
    list(rows.values()),
    range(order.seeds),
    order.make,
    order.workdir,
    others=others,
    open_source=data.open if data else None,
  )


def preview(order: Order, target: targets.Target | None) -> Iterator[str]:
  """The plan in words, line by line; where the data set is not here, its published size is taken.

  Args:
    order: what is wanted.
    target: devices that times are estimated for; None for none.

  Raises:
    UserError: something is named that there is not.
  """
  data = Data(order.config.dataset, order.workdir)
  try:
    runs = plan_of(order, data)
    warning = _unscored(order.config, data)
    if warning:
      yield warning
  except UserError:
    runs = plan_of(order, None)
    yield 'The data set is not here: products are taken for done that have these settings.'
  root = order.config.dataset.root
  if target and root and '://' not in root and not Path(root).expanduser().is_dir():
    yield (
      f'dataset.root is {root}, which is not here: without this flag times are estimated from the '
      'published numbers of images.'
    )
  rows = forecast.read(forecast.path(order.config, target)) if target else {}
  yield from plan.told(runs, target, rows)


def _unscored(config: PipelineConfig, data: 'Data') -> str:
  """Says that no split which is scored has masks; empty where one has, or cannot be opened."""
  splits = config.evaluation.splits or config.priors.splits
  try:
    if any(data.open(split).has_masks for split in splits):
      return ''
  except UserError:
    return ''
  return f'There are no masks of {" or ".join(splits)}: no number of a table can be known.'


class Data:
  """The data set's splits without the images that runs left out; each is looked at once."""

  def __init__(self, config: info.DatasetConfig, workdir: Path) -> None:
    """Opens nothing yet.

    Args:
      config: the data set.
      workdir: of the runs, which say there what they left out (`dataset.on_error=skip`).
    """
    self._config, self._workdir = config, workdir
    self._opened: dict[tuple[str, frozenset[str]], info.Source] = {}
    self._statistics: dict[int, statistics.ClassStatistics] = {}

  def open(self, split: str) -> info.Source:
    """A split.

    Raises:
      UserError: it is not there, or not whole.
    """
    found = self._workdir.glob(f'*/quarantine_{split}.csv')
    key = split, frozenset(x for path in found for x in checks.quarantined(path))
    if key not in self._opened:
      self._opened[key] = sources.open_source(self._config, split, exclude=key[1])
    return self._opened[key]

  def statistics(self, split: str) -> statistics.ClassStatistics:
    """Statistics of a split's classes, by its masks."""
    source = self.open(split)
    if id(source) not in self._statistics:
      self._statistics[id(source)] = table_lib.class_statistics(source)
    return self._statistics[id(source)]


def execute(order: Order) -> None:
  """Runs what is not there; writes what is wanted after each run.

  Raises:
    UserError: something is named that there is not, a run cannot begin, or what is wanted cannot be
      written.
    Interrupted: a signal asked to stop; the state is saved.
  """
  data = Data(order.config.dataset, order.workdir)
  runs = plan_of(order, data)
  faults = [] if order.config.rerun else [x for run in runs for x in run.differences()]
  if faults:
    raise UserError(
      f'{order.workdir} holds other runs than these:\n  '
      + '\n  '.join(faults)
      + '\nNothing was changed. Set the fields back, or take another --workdir.'
    )
  warning = _unscored(order.config, data)
  if warning and hosts.is_main():
    print(f'warning: {warning}', file=sys.stderr, flush=True)
  # Nobody knows by what code these were made.
  noted = {run.directory for run in runs if run.is_done()}
  failed: list[Exception] = []

  def after() -> None:
    made = report.made(list(meshes.make_mesh().devices.flat))
    for run in runs:
      if run.directory not in noted and run.is_done():
        noted.add(run.directory)
        records.write_json(run.directory / files.MADE, made)
    try:
      write(order, runs, data)
      failed.clear()
    except (UserError, OSError) as error:
      # A mask that cannot be read, say, is no reason to lose days of other runs.
      failed[:] = [error]
      print(f'warning: nothing is written yet: {error}', file=sys.stderr, flush=True)

  runner.execute_all([(run.config, run.directory) for run in runs], order.workdir, after=after)
  if failed:
    raise UserError(f'all is run, but not all is written: {failed[0]}') from failed[0]


def write(order: Order, runs: Sequence[plan.Run], data: Data) -> list[Path]:
  """Writes the tables of the runs that are done, and the figures whose runs all are.

  Args:
    order: what is wanted.
    runs: of `plan_of`.
    data: the splits.

  Returns:
    The files.
  """
  entries, written = stage.stages(order.config), []
  there = [run for run in runs if run.is_done()]
  found_of = {(x.row.name, x.seed): files.read_run(x.directory, entries) for x in there}
  read = {key: _with_log(run, entries) for key, run in found_of.items() if run.scores}
  configs = {run.row.name: run.config for run in runs}
  for name, thing in order.wanted:
    found = [
      (row, configs[row.name], [read.get((row.name, seed)) for seed in range(order.seeds)])
      for row in order.of(thing)
    ]
    look = table_lib.Look(order.config, found, data.open, data.statistics)
    if isinstance(thing, table_lib.Table):
      sheet = thing.fill(thing, look)
      written += sheets.write(sheet, order.workdir, name)
      print(f'\n{sheets.terminal(sheet)}', flush=True)
    elif all(None not in of for _, _, of in found):
      written += figures.write(thing, look, order.workdir, name)
  return written


def _with_log(run: files.RunFiles, entries: Sequence[stage.Stage]) -> files.RunFiles:
  """The files of a run with the log of its generator, which another run may have trained."""
  owner, seen = run, {run.workdir}
  while 'generator' not in owner.stages:
    taken = [files.lookup(owner.config, f'inputs.{x}', '') for x in ('generator', 'priors')]
    folder = next((Path(x).parent for x in taken if x), None)
    if folder is None or folder in seen or not folder.is_dir():
      return run
    seen.add(folder)
    owner = files.read_run(folder, entries)
  return dataclasses.replace(run, stages={'generator': owner.stages['generator'], **run.stages})
