"""Builds `report/index.html` of a run, and the page that compares several runs."""

import itertools
import pathlib
from collections.abc import Sequence

from pnoc_jax.io import atomic
from pnoc_jax.report import contract, examples, files, front, label_maps, page, sections, tables


def build(
  workdir: str | pathlib.Path,
  stages: Sequence[contract.Reported],
  *,
  open_source: examples.OpenSource = files.open_source,
  images: int = 12,
) -> pathlib.Path:
  """Writes the report of a run from its files alone; what is missing becomes a note in the page.

  Args:
    workdir: the run's directory.
    stages: all stages that a run can have; each has its sections at its place.
    open_source: opens the data set, for the pictures.
    images: pictures shown of each split.

  Returns:
    `<workdir>/report/index.html`.

  Raises:
    UserError: there is no such directory.
  """
  run = files.read_run(workdir, stages)
  views = {stage.name: stage.sample for stage in stages if stage.sample}
  look = examples.Look([(run.name, run)], open_source, images, views)
  named = [files.lookup(run.config, f'{stage.name}.splits', ()) for stage in stages]
  splits = tuple(dict.fromkeys(itertools.chain(run.score_splits, run.proxies, *named)))
  numbers = front.summary(run) + (front.stages(run) if run.stages else '')
  numbers += front.proxies(run)
  numbers += page.beside([sections.swept(run, split) for split in splits])
  products = ''.join(
    page.folded(f'{stage.title} of {split}', content)
    for stage in stages
    for split in splits
    if stage.figures and (content := stage.figures(look, split))
  )
  trainings = ''.join(
    page.folded(
      f'Training of {stage.training_title}',
      sections.training(run, stage.name) + sections.map_history(look, stage.name),
    )
    for stage in stages
    if stage.training_title and stage.name in run.stages and run.stages[stage.name].rows
  )
  parts = [
    ('Images through all stages', front.wall(look, splits)),
    ('Numbers', numbers),
    ('IoU by image', front.histograms(look, splits)),
    ('IoU by class', ''.join(label_maps.by_class(run, split) for split in splits)),
    ('Stage by stage', products),
    ('Training', trainings),
  ]
  parts = [(heading, content) for heading, content in parts if content]
  top = ''.join(map(page.note, run.notes))
  lead = f'{front.method(run)} on {front.dataset_name(run)}'
  text = page.page(run.name, lead, parts, top=top, facts=front.facts(run))
  return _write(run.workdir / 'report' / 'index.html', text)


def build_comparison(
  runs: Sequence[tuple[str, str | pathlib.Path]],
  output: str | pathlib.Path,
  stages: Sequence[contract.Reported],
  *,
  title: str = 'Comparison',
  open_source: examples.OpenSource = files.open_source,
  images: int = 12,
) -> pathlib.Path:
  """Writes one page that sets runs side by side; runs of one group differ in their seed alone.

  Curves and pictures are of the first run of each group, the tables are over all runs.

  Args:
    runs: (group, workdir) of each run.
    output: the HTML file.
    stages: as in `build`.
    title: of the page.
    open_source: as in `build`.
    images: pictures shown of each split.

  Returns:
    `output`.

  Raises:
    UserError: one of the directories is not there.
  """
  read = [(group, files.read_run(workdir, stages)) for group, workdir in runs]
  firsts = _firsts(read)
  parts = [('During training', sections.training_comparison(firsts, stages))]
  for score, split, results in by_score(read, stages):
    content = sections.score_comparison(results)
    if score.name == 'priors':
      having = [(group, run) for group, run in read if run.score('priors', split)]
      look = _look_at_priors(having, open_source, images, stages)
      content += sections.prior_comparison(split, results, look)
    parts.append((f'{score.title} of {split}', content))
  for split in dict.fromkeys(split for _, run in read for split in run.proxies):
    having = [(group, run) for group, run in read if split in run.proxies]
    look = _look_at_priors(having, open_source, images, stages)
    results = [(group, run.proxies[split]) for group, run in having]
    parts.append((f'Priors of {split}', sections.proxy_comparison(split, results, look)))
  top = ''.join(page.note(f'{run.workdir}: {text}') for _, run in read for text in run.notes)
  lead = f'{len(read)} runs of {len(firsts)}: ' + ', '.join(group for group, _ in firsts)
  return _write(pathlib.Path(output), page.page(title, lead, parts, top=top))


def _look_at_priors(
  runs: Sequence[tuple[str, files.RunFiles]],
  open_source: examples.OpenSource,
  images: int,
  stages: Sequence[contract.Reported],
) -> examples.Look:
  """What the priors of several groups are drawn from."""
  views = {x.name: x.sample for x in stages if x.sample and x.name == 'priors'}
  return examples.Look(_firsts(runs), open_source, images, views)


def _firsts(runs: Sequence[tuple[str, files.RunFiles]]) -> list[tuple[str, files.RunFiles]]:
  return [(group, found[0]) for group, found in tables.by_group(runs).items()]


def by_score(
  runs: Sequence[tuple[str, files.RunFiles]], stages: Sequence[contract.Reported]
) -> list[tuple[contract.Scored, str, list[tuple[str, files.Result]]]]:
  """The results of all runs by score and split, in order.

  Args:
    runs: (group, files) of each run.
    stages: as in `build`.

  Returns:
    (score, split, (group, result) of each run that has it).
  """
  found = []
  for name, score in contract.scores(stages).items():
    for split in dict.fromkeys(split for _, run in runs for split in run.scores.get(name, ())):
      results = [(group, run.score(name, split)) for group, run in runs]
      found.append((score, split, [(group, result) for group, result in results if result]))
  return found


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
  # Names of files may have bytes that are no text.
  atomic.write_text(path, text.encode(errors='backslashreplace').decode())
  return path


def terminal_tables(workdir: str | pathlib.Path, stages: Sequence[contract.Reported]) -> str:
  """The evaluation of a run for the terminal: all products, and the last one's classes."""
  run = files.read_run(workdir, stages)
  blocks = [tables.whole_run(run)] if len(run.scores) > 1 else []
  last = {}
  for name, found in run.scores.items():
    if not any(map(tables.is_of_saliency, found.values())):
      last = {f'{run.scored[name].title.lower()} of {split}': x for split, x in found.items()}
  blocks += [f'{title}\n{tables.score(result)}' for title, result in last.items()]
  blocks += [f'priors of {split}\n{tables.proxy(result)}' for split, result in run.proxies.items()]
  return '\n\n'.join(blocks)
