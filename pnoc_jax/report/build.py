"""Builds `report/index.html` of a run, and the page that compares several runs."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import products
from pnoc_jax.report import examples, files, page, sections, tables

OpenSource = Callable[[Mapping[str, Any], str], info.Source]


def build(
  workdir: str | pathlib.Path, *, open_source: OpenSource = files.open_source, images: int = 12
) -> pathlib.Path:
  """Writes the report of a run from its files alone; what is missing becomes a note in the page.

  Args:
    workdir: the run's directory.
    open_source: (config.json's content, split) -> the data set, for the pictures.
    images: pictures shown of each split.

  Returns:
    `<workdir>/report/index.html`.

  Raises:
    UserError: there is no such directory.
  """
  run = files.read_run(workdir)
  parts = [('Stages', sections.stages(run))] if run.stages else []
  for stage in run.stages:
    if stage.rows:
      rule = files.lookup(run.config, f'{stage.name}.optim.rule', 'sgd')
      parts.append((f'Training of the {stage.name}', sections.training(stage, rule=rule)))
  for split, result in run.evaluations.items():
    content = sections.evaluation(split, result) + _pictures(
      [('', run)], split, open_source, images
    )
    parts.append((f'Priors of {split}', content))
  top = sections.summary(run) + ''.join(map(page.note, run.notes))
  lead = f'{sections.method_name(run.method)} on {sections.dataset_name(run)}'
  return _write(run.workdir / 'report' / 'index.html', page.page(run.name, lead, parts, top))


def _pictures(
  runs: Sequence[tuple[str, files.RunFiles]], split: str, open_source: OpenSource, images: int
) -> str:
  """The examples of a split; chosen by the mean IoU over the runs."""
  heading = '<h3>Activations beside image and mask</h3>\n'
  try:
    source = open_source(runs[0][1].config, split)
  except (errors.UserError, OSError) as error:
    return heading + page.note(f'No pictures, since the data set does not open: {error}')
  thresholds = [run.evaluations[split].get('threshold', 0.3) for _, run in runs]
  scores: dict[str, list[float]] = {}
  for (_, run), threshold in zip(runs, thresholds):
    for image_id, iou in examples.rank(run, split, source, threshold=threshold):
      scores.setdefault(image_id, []).append(iou)
  means = [(i, sum(s) / len(s)) for i, s in scores.items() if len(s) == len(runs)]
  if source.has_masks:
    means.sort(key=lambda item: -item[1])
  chosen = examples.choose(means, images)
  if not chosen:
    return heading + page.note(f'No pictures, since no prior of {split} is there and whole.')
  rule = (
    'A third each of the best, of those around the median and of the worst by the mean IoU of the '
    'classes in the image; never picked by hand.'
    if source.has_masks
    else 'Images at equal distances in the split, which has no masks.'
  )
  shown = [(name, run, threshold) for (name, run), threshold in zip(runs, thresholds)]
  return heading + page.paragraph(rule) + examples.strips(shown, split, source, chosen)


def build_comparison(
  runs: Sequence[tuple[str, str | pathlib.Path]],
  output: str | pathlib.Path,
  *,
  title: str = 'Comparison',
  open_source: OpenSource = files.open_source,
  images: int = 12,
) -> pathlib.Path:
  """Writes one page that sets runs side by side; runs of one group differ in their seed alone.

  Curves and pictures are of each group's first run, the table is over all.

  Args:
    runs: (group, workdir) of each run.
    output: the HTML file.
    title: of the page.
    open_source: as in `build`.
    images: pictures shown of each split.

  Returns:
    `output`.

  Raises:
    UserError: one of the directories is not there.
  """
  read = [(group, files.read_run(workdir)) for group, workdir in runs]
  firsts = list({group: (group, run) for group, run in reversed(read)}.values())[::-1]
  splits = dict.fromkeys(split for _, run in read for split in run.evaluations)
  parts = [('During training', sections.training_comparison(firsts))]
  for split in splits:
    results = [(group, run.evaluations[split]) for group, run in read if split in run.evaluations]
    have = [(group, run) for group, run in firsts if split in run.evaluations]
    content = sections.evaluation_comparison(split, results)
    if have:
      content += _pictures(have, split, open_source, images)
    parts.append((f'Priors of {split}', content))
  notes = [f'{run.workdir}: {text}' for _, run in read for text in run.notes]
  lead = f'{len(read)} runs of {len(firsts)}: ' + ', '.join(group for group, _ in firsts)
  top = ''.join(map(page.note, notes))
  return _write(pathlib.Path(output), page.page(title, lead, parts, top))


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
  products.write_text(path, text)
  return path


def terminal_tables(workdir: str | pathlib.Path) -> str:
  """The evaluation's tables of a run, for the terminal."""
  run = files.read_run(workdir)
  blocks = [f'priors of {s}\n{tables.per_class(r)}' for s, r in run.evaluations.items()]
  return '\n\n'.join(blocks)
