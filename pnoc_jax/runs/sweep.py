"""A sweep: several runs of one config, and one table of their results."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pnoc_jax.config import PipelineConfig
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records
from pnoc_jax.parallel import hosts
from pnoc_jax.report import build, files, tables
from pnoc_jax.stages.common import stage


def execute(
  config: PipelineConfig, workdir: Path, run: Callable[[PipelineConfig, Path], None]
) -> None:
  """Runs the variants one after another; writes `<workdir>/evaluation/sweep.json`, tables, a page.

  Args:
    config: a config with a `sweep`.
    workdir: the sweep's directory; each variant has one below it.
    run: `(config, workdir) -> None`.
  """
  runs = []
  for number, variant in enumerate(config.sweep):
    if hosts.is_main():
      print(f'\n=== {variant.name} ({number + 1} of {len(config.sweep)}) ===')
    ours = override(config, {**variant.overrides, 'sweep': (), 'name': variant.name}, workdir)
    run(ours, workdir / variant.name)
    runs.append((variant.group, workdir / variant.name))
    if hosts.is_main():
      _write(config, workdir, runs)


def _write(config: PipelineConfig, workdir: Path, runs: list[tuple[str, Path]]) -> None:
  """Writes a table of the runs so far for each score: json, Markdown and the page."""
  stages, summary = stage.stages(config), {}
  read = [(group, files.read_run(path, stages)) for group, path in runs]
  for score, split, results in build.by_score(read, stages):
    name = f'{score.name}_{split}'
    summary[name] = {
      group: [result['miou'] for result in of] for group, of in tables.by_group(results).items()
    }
    print(f'\n{score.title} of {split}:\n{tables.ablation(results)}')
    atomic.write_text(workdir / f'{name}.md', tables.ablation_markdown(results) + '\n')
  records.write_json(workdir / 'evaluation' / 'sweep.json', summary)
  build.build_comparison(runs, workdir / 'report' / 'index.html', stages, title=config.name)


def override(config: PipelineConfig, fields: dict[str, Any], workdir: Path) -> PipelineConfig:
  """Returns a copy of `config` with dotted fields replaced.

  Args:
    config: the sweep's config.
    fields: {dotted field: value}; `{workdir}` in a text stands for the sweep's directory.
    workdir: the sweep's directory.

  Raises:
    UserError: there is no such field.
  """
  result = copy.deepcopy(config)
  for dotted, value in fields.items():
    *parents, name = dotted.split('.')
    holder = result
    for parent in parents:
      holder = getattr(holder, parent, None)
    if not hasattr(holder, name):
      raise UserError(f'the sweep sets {dotted}, which is no field of the config')
    if isinstance(value, str):
      value = value.replace('{workdir}', str(workdir))
    setattr(holder, name, value)
  return result
