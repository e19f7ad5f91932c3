"""Builds `report/index.html` of a run, and the page that compares several runs."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import atomic
from pnoc_jax.report import (
  examples,
  files,
  front,
  label_maps,
  page,
  refinement,
  sections,
  tables,
)

_TRAINED = {
  'c2am': 'C2AM',
  'saliency': 'the saliency network',
  'affinity': 'AffinityNet',
  'segmentation': 'the segmentation network',
}
_HEADINGS = {
  'priors': 'Priors',
  'saliency': 'Saliency',
  'affinity_labels': 'Affinity labels',
  'random_walk': 'Random walk',
  'pseudo_masks': 'Pseudo masks',
  'predictions': 'Predictions',
}
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
  splits = {split: _Split(run, split, open_source, images) for split in _splits(run)}
  parts = [('Stages', front.stages(run))] if run.stages else []
  if table := ''.join(label_maps.by_class(run, split) for split in splits):
    parts.append(('IoU by class', table))
  trained = {stage.name: stage for stage in run.stages if stage.rows}
  for name in (*files.ORDER, *(name for name in trained if name not in files.ORDER)):
    if name in trained:
      rule = files.lookup(run.config, f'{name}.optim.rule', 'sgd')
      heading = f'Training of {_TRAINED.get(name, f"the {name}")}'
      parts.append((heading, sections.training(trained[name], rule=rule)))
    for split, look in splits.items():
      if content := _product(run, name, split, look):
        parts.append((f'{_HEADINGS[name]} of {split}', content))
  top = front.summary(run) + ''.join(map(page.note, run.notes))
  lead = f'{front.method(run)} on {front.dataset_name(run)}'
  return _write(run.workdir / 'report' / 'index.html', page.page(run.name, lead, parts, top))


class _Split:
  """A split's source and the images that every section shows of it, found when first asked for."""

  def __init__(self, run, split, open_source, images):
    self._run, self._split, self._open, self._images = run, split, open_source, images

  @functools.cached_property
  def source(self) -> info.Source | None:
    """The split, or None where it does not open."""
    try:
      return self._open(self._run.config, self._split)
    except (errors.UserError, OSError):
      return None

  @functools.cached_property
  def chosen(self) -> list[tuple[str, str, float]]:
    """Half as many images as of the priors, by the same rule; at equal distances without priors."""
    count = -(-self._images // 2)
    if self.source is None or not len(self.source.ids):
      return []
    threshold = self._run.evaluations.get(self._split, {}).get('threshold', 0.3)
    ranked = examples.rank(self._run, self._split, self.source, threshold=threshold)
    return examples.choose(ranked or [(x, float('nan')) for x in self.source.ids], count)

  @functools.cached_property
  def priors(self) -> str:
    """The pictures of the priors."""
    return _pictures([('', self._run)], self._split, self._open, self._images)


def _splits(run: files.RunFiles) -> list[str]:
  """The splits that were scored, and those that the config names beside them."""
  found = [split for results in run.scores.values() for split in results]
  for stage in ('priors', 'predictions'):
    found += files.lookup(run.config, f'{stage}.splits', ())
  return list(dict.fromkeys(found))


def _product(run: files.RunFiles, name: str, split: str, look: _Split) -> str:
  """The section on a stage's products of a split; empty where there are none."""
  if name == 'priors':
    result = run.evaluations.get(split)
    # Without masks nothing is scored, and the maps are worth a look all the same.
    shown = look.priors if result or run.has_products('priors', split) else ''
    return (sections.evaluation(split, result) if result else '') + shown
  # The saliency network's maps stand in one section with what they were made from.
  stages = ('saliency_priors', 'saliency') if name == 'saliency' else (name,)
  if name not in _HEADINGS or not any(
    split in run.scores.get(stage, {}) or run.has_products(stage, split) for stage in stages
  ):
    return ''
  if name in ('pseudo_masks', 'predictions'):
    return label_maps.section(run, name, split, look.source, look.chosen)
  make = {
    'saliency': refinement.saliency,
    'affinity_labels': refinement.affinity_labels,
    'random_walk': refinement.random_walk,
  }[name]
  return make(run, split, look.source, look.chosen)


def _pictures(
  runs: Sequence[tuple[str, files.RunFiles]], split: str, open_source: OpenSource, images: int
) -> str:
  """The examples of a split; chosen by the mean IoU over the runs."""
  heading = '<h3>Activations beside image and mask</h3>\n'
  try:
    source = open_source(runs[0][1].config, split)
  except (errors.UserError, OSError) as error:
    return heading + page.note(f'No pictures, since the data set does not open: {error}')
  thresholds = [run.evaluations.get(split, {}).get('threshold', 0.3) for _, run in runs]
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
  panels = examples.prior_panels(shown, split, source)
  return heading + page.paragraph(rule) + examples.strips(source, chosen, panels)


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
  for name in tables.SCORES[1:]:
    for split in dict.fromkeys(split for _, run in read for split in run.scores.get(name, {})):
      results = [
        (group, run.scores[name][split]) for group, run in read if split in run.scores.get(name, {})
      ]
      heading = f'{tables.title(name)} of {split}'
      parts.append((heading, sections.score_comparison(results)))
  notes = [f'{run.workdir}: {text}' for _, run in read for text in run.notes]
  lead = f'{len(read)} runs of {len(firsts)}: ' + ', '.join(group for group, _ in firsts)
  top = ''.join(map(page.note, notes))
  return _write(pathlib.Path(output), page.page(title, lead, parts, top))


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
  atomic.write_text(path, text)
  return path


def terminal_tables(workdir: str | pathlib.Path) -> str:
  """The evaluation of a run for the terminal: all products, and the last one's classes."""
  scores = files.read_run(workdir).scores
  if not scores:
    return ''
  last = [name for name in scores if name not in ('saliency_priors', 'saliency')][-1:]
  blocks = [
    f'{tables.title(name).lower()} of {split}\n{tables.score(result)}'
    for name in last
    for split, result in scores[name].items()
  ]
  return '\n\n'.join([tables.whole_run(scores)] * (len(scores) > 1) + blocks)
