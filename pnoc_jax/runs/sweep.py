"""A sweep: several runs of one config, and one table of their results."""

import copy
from collections.abc import Callable
from pathlib import Path

from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records
from pnoc_jax.parallel import hosts
from pnoc_jax.report import build, files, tables


def execute(config, workdir: Path, run: Callable) -> None:
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
      _write(config.name, workdir, runs)


def _write(title: str, workdir: Path, runs: list[tuple[str, Path]]) -> None:
  """Writes a table of the runs so far for each score: json, Markdown and the page."""
  scores = [(group, files.read_run(path).scores) for group, path in runs]
  summary = {}
  for name in tables.SCORES:
    found = [(group, every.get(name, {})) for group, every in scores]
    for split in dict.fromkeys(split for _, of in found for split in of):
      results = [(group, of[split]) for group, of in found if split in of]
      summary[f'{name}_{split}'] = {
        group: [result['miou'] for result in of] for group, of in tables.by_group(results).items()
      }
      print(f'\n{tables.title(name)} of {split}:\n{tables.ablation(results)}')
      text = tables.ablation_markdown(results) + '\n'
      atomic.write_text(workdir / f'{name}_{split}.md', text)
  records.write_json(workdir / 'evaluation' / 'sweep.json', summary)
  build.build_comparison(runs, workdir / 'report' / 'index.html', title=title)


def override(config, fields: dict, workdir: Path):
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
