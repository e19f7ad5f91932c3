"""The rows of the tables: what a run is called, and how it differs from the config that is given.

A row keeps its name in every table, and so its directory: what one table has run, the others find.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from pnoc_jax import config_flags
from pnoc_jax.config import PipelineConfig
from pnoc_jax.engine import settings
from pnoc_jax.errors import UserError
from pnoc_jax.nn import backbones
from pnoc_jax.stages import affinity_labels, c2am, segmentation
from pnoc_jax.stages.common import maps
from pnoc_jax.updates import pnoc

SMOOTHING = 0.1
"""Label smoothing of the rows with "+ LS" (the paper, Section 4)."""
LARGEST = 'resnest269'
"""The network of the paper's tables; their other networks are rows of configs that have this."""

Make = Callable[[tuple[str, ...]], PipelineConfig]
"""Words -> the config with them: `method=poc`, and what is wanted of the network."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table.

  Attributes:
    name: of its directories, `<name>-<seed>`, and for `--rows`.
    title: in the table.
    of: the stages whose products are scored; what none of them needs is not part of the run.
    words: of the config, which knows what goes with them.
    fields: dotted config fields and their values.
    saliency: whether affinity labels are made with saliency; None where there are none.
    network: whether it is of another network than the config's: a row of `LARGEST` alone.
  """

  name: str
  title: str
  of: tuple[str, ...]
  words: tuple[str, ...] = ()
  fields: tuple[tuple[str, Any], ...] = ()
  saliency: bool | None = None
  network: bool = False

  def config(self, make: Make, seed: int) -> PipelineConfig:
    """The row's config; its run ends with the scores."""
    config = settings.override(make(self.words), dict(self.fields))
    config.name, config.seed = f'{self.name}-{seed}', seed
    config.only, config.until = '', 'evaluation'
    config.evaluation.of, config.evaluation.crf_splits = self.of, ()
    labels = config.affinity_labels
    if self.saliency is False:
      labels.saliency = maps.Saliency.NONE
      if labels.foreground <= labels.background:
        # The recipe's are thresholds of maps and of saliency, which cannot stand for one another.
        usual = affinity_labels.AffinityLabelsConfig()
        labels.foreground, labels.background = usual.foreground, usual.background
    elif self.saliency and labels.saliency is maps.Saliency.NONE:
      labels.saliency = maps.Saliency.NETWORK
    return config


def maker(given: config_flags.Given) -> Make:
  """Makes configs of a command line's config; its fields count for every row.

  A config that has no word for a method differs from one method to the other in its name alone.

  Args:
    given: the config that the command line names.
  """

  @functools.cache
  def make(words: tuple[str, ...]) -> PipelineConfig:
    wanted = dict(word.split('=', 1) for word in words)
    kept = [x for x in given.argument.split(',') if x and x.partition('=')[0] not in wanted]
    try:
      config = config_flags.load(given.path, ','.join([*kept, *words]) or None)
    except UserError:
      config = config_flags.load(given.path, given.argument or None)
    config = settings.override(config, given.fields)
    if 'method' in wanted:
      config.generator.method = wanted['method']
    if config.generator.model.backbone != wanted.get('backbone', config.generator.model.backbone):
      raise UserError(f'{given.path} has no word for the network {wanted["backbone"]}')
    return config

  return make


_SMOOTHING = 'generator.smoothing'
_PLAIN, _SMOOTH = ((_SMOOTHING, 0.0),), ((_SMOOTHING, SMOOTHING),)
# (name, title, method, fields) of the CAM methods; the first three are smoothed as in the recipe.
_METHODS = (
  *((name, pnoc.METHODS[name].title, name, ()) for name in ('vanilla', 'puzzle', 'occse')),
  ('poc', 'P-OC', 'poc', _PLAIN),
  ('poc_ls', 'P-OC + LS', 'poc', _SMOOTH),
  ('pnoc', 'P-NOC', 'pnoc', _PLAIN),
  ('pnoc_ls', 'P-NOC + LS', 'pnoc', _SMOOTH),
)
_BY_NAME = {name: (title, method, fields) for name, title, method, fields in _METHODS}


def _of(method: str, suffix: str, title: str, of: tuple[str, ...], **more: Any) -> Row:
  """A row that goes on from the maps of a method."""
  name, word, fields = _BY_NAME[method]
  fields = (*fields, *more.pop('fields', ()))
  words = (f'method={word}', *more.pop('words', ()))
  return Row(method + suffix, title.format(name), of, words, fields, **more)


MAPS = tuple(_of(name, '', '{}', ('priors',)) for name in _BY_NAME)
NETWORKS = tuple(
  _of(name, '_rs101', '{} (RS101)', ('priors',), words=('backbone=resnest101',), network=True)
  for name in ('vanilla', 'puzzle')
)

_WALK = ('random_walk', 'pseudo_masks')
WALKS = tuple(
  row
  for name in ('puzzle', 'poc', 'poc_ls', 'pnoc', 'pnoc_ls')
  for row in (
    _of(name, '_walk', '{}', _WALK, saliency=False),
    _of(name, '_h_walk', '{} + C2AM-H', _WALK, saliency=True),
  )
  if row.name != 'puzzle_h_walk'
)

_SALIENCY = ('priors', 'saliency_priors', 'saliency')


def _on(backbone: str) -> tuple[tuple[str, Any], ...]:
  """C2AM on another network, from its ImageNet weights."""
  weights = backbones.info(backbone).pretrained
  return ('c2am.model.backbone', backbone), ('c2am.init', weights)


_NO_HINTS = (('c2am.method', c2am.Hints.C2AM),)
SALIENCY = (
  _of('pnoc', '_c2am', 'C2AM', _SALIENCY, fields=_NO_HINTS),
  *(
    _of('pnoc', f'_c2am_{short}', f'C2AM ({short.upper()})', _SALIENCY, fields=fields, network=True)
    for short, fields in (('rn50', (*_NO_HINTS, *_on('resnet50'))),)
  ),
  *(
    _of(name, '_h', 'C2AM-H, hints of {}', _SALIENCY)
    for name in ('poc', 'poc_ls', 'pnoc', 'pnoc_ls')
  ),
  *(
    _of(
      'pnoc_ls',
      f'_h_{short}',
      f'C2AM-H ({short.upper()}), hints of {{}}',
      _SALIENCY,
      fields=_on(backbone),
      network=True,
    )
    for short, backbone in (('rn50', 'resnet50'), ('rs101', 'resnest101'))
  ),
)

_LABELS = ('pseudo_masks', 'predictions')
_TRUE = (('segmentation.labels', segmentation.Labels.TRUE),)
SEGMENTATIONS = (
  *(
    _of(name, '_segmentation', '{} + C2AM-H', _LABELS, saliency=True)
    for name in ('poc', 'poc_ls', 'pnoc', 'pnoc_ls')
  ),
  Row('supervised', 'true masks', ('predictions',), ('method=pnoc',), _TRUE),
)

ALL = (*MAPS, *NETWORKS, *WALKS, *SALIENCY, *SEGMENTATIONS)


def fitting(rows: Sequence[Row], config: PipelineConfig) -> list[Row]:
  """The rows that a config can have: other networks stand beside the largest alone."""
  largest = config.generator.model.backbone == LARGEST
  return [row for row in rows if largest or not row.network]


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
  """The rows of some names, in the order of the names; all rows where there is no name.

  Raises:
    UserError: there is no such row.
  """
  known = {row.name: row for row in rows}
  for name in names:
    if name not in known:
      near = difflib.get_close_matches(name, known, 1)
      hint = f'; did you mean {near[0]}?' if near else ''
      raise UserError(f'there is no row {name} here; there are {", ".join(known)}{hint}')
  return [known[name] for name in names] or list(rows)
