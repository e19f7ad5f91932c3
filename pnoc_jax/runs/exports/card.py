"""The card of an exported network: what it is, what it learnt from and how, how good it is."""

import importlib.metadata
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from pnoc_jax import trees
from pnoc_jax.config import PipelineConfig
from pnoc_jax.io import sheets, weights
from pnoc_jax.report import files, tables
from pnoc_jax.runs import trained
from pnoc_jax.runs.exports import networks
from pnoc_jax.stages.common import stage

FILE = 'README.md'
_TITLES = {
  'segmentation': 'Segmentation network (DeepLabV3+)',
  'generator': 'Generator of class activation maps',
  'classifier': 'Classifier',
}
# The scores that are a network's own.
_OF = {'segmentation': 'predictions', 'generator': 'priors', 'classifier': ''}
# What a reader wants of a stage's settings, in this order; those that there are not are left out.
_RECIPE = (
  'method',
  'init',
  'start',
  'labels',
  'epochs',
  'min_steps',
  'batch_size',
  'transform.crop',
  'transform.augment',
  'optim.rule',
  'optim.lr',
  'optim.weight_decay',
  'optim.accumulate',
  'optim.ema',
  'smoothing',
)


def text(run: str | pathlib.Path, found: networks.Network, contract: Mapping[str, Any]) -> str:
  """Writes the card, in Markdown.

  Args:
    run: the run's directory, or that of a stage.
    found: the network.
    contract: what `model.json` holds.

  Returns:
    The card; what files of the run say is shown in it as it is, and never obeyed as markup.
  """
  # The network may be another run's, which this one takes.
  config = trained.read_config(found.directory)
  parts = [
    f'# {_TITLES[found.name]} of {sheets.markdown(contract["dataset"])}',
    f'Backbone {found.config.backbone}, {trees.count(found.variables["params"]):,} parameters. '
    '`model.json` says what goes in and comes out, `example.py`, where there is one, runs it on an '
    'image.',
    '## Data',
    f'{sheets.markdown(found.dataset.name)}: {found.dataset.num_classes} classes'
    + (', and the background' if found.name == 'segmentation' else '')
    + f': {", ".join(map(sheets.markdown, found.dataset.classes))}. Learnt from '
    + _labels(found.name, config),
    '## Recipe',
    _recipe(found, config),
    '## Scores',
    _scores(pathlib.Path(run), found),
    '## Origin',
    _origin(found, config),
  ]
  return '\n\n'.join(parts) + '\n'


def _labels(name: str, config: Mapping[str, Any]) -> str:
  if name == 'segmentation' and files.lookup(config, 'segmentation.labels', '') == 'true':
    return 'the true masks.'
  if name == 'segmentation':
    return 'pseudo masks, made of the labels of whole images.'
  return 'the labels of whole images.'


def _recipe(found: networks.Network, config: Mapping[str, Any]) -> str:
  stated = config.get(found.name)
  if not isinstance(stated, Mapping):
    return 'The run has no config.'
  model = stated.get('model')
  rows = {f'model.{k}': x for k, x in (model if isinstance(model, Mapping) else {}).items()}
  for path in _RECIPE:
    value: Any = stated
    for part in path.split('.'):
      value = value.get(part) if isinstance(value, Mapping) else None
    if value not in (None, ''):
      rows[path] = value
  rows['seed'] = config.get('seed', '')
  known = dict.fromkeys((*_RECIPE, 'seed'))
  # A field that is not of ours is a text like its value.
  lines = [
    f'| {f"`{x}`" if x in known or x.isidentifier() else sheets.markdown(x)} | '
    f'{sheets.markdown(value)} |'
    for x, value in rows.items()
  ]
  return '\n'.join(['| setting | value |', '|---|---|', *lines])


def _scores(run: pathlib.Path, found: networks.Network) -> str:
  root = run.parent if (run / weights.FILE).is_file() else run
  read = files.read_run(root, stage.stages(PipelineConfig))
  name = _OF[found.name]
  lines = [
    f'| {title} | {sheets.markdown(split)} | {miou} | {sheets.markdown(images)} |'
    for title, split, miou, images in (
      # Records are in percent.
      (read.scored[key].title, split, tables.number(result['miou'], 2), result.get('images', ''))
      for key, by_split in read.scores.items()
      if name and key.startswith(name)
      for split, result in by_split.items()
    )
  ]
  if not lines:
    return 'This run has none of this network.'
  note = (
    'Measured by the run, with the scales, flips and other settings of its stage; the exported '
    'network sees an image once.'
  )
  return '\n'.join(['| of | split | mIoU, % | images |', '|---|---|---|---|', *lines, '', note])


def _origin(found: networks.Network, config: Mapping[str, Any]) -> str:
  rows = {
    'run': config.get('name', ''),
    'weights, sha256': weights.origin(found.directory)['sha256'],
    'pnoc-jax': _version(),
    'commit of the code that exported it': commit(),
  }
  return '\n'.join(f'- {k}: {sheets.markdown(x)}' for k, x in rows.items() if x)


def _version() -> str:
  """This package's version, or nothing where it runs from a checkout that is not installed."""
  try:
    return importlib.metadata.version('pnoc-jax')
  except importlib.metadata.PackageNotFoundError:
    return ''


def commit() -> str:
  """The commit of this package's code, or nothing where it is no checkout of git."""
  root = pathlib.Path(__file__).parents[3]
  if not (root / '.git').exists():
    return ''  # Above it may lie a repository of somebody else.
  try:
    done = subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      cwd=root,
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return ''
  return done.stdout.strip()
