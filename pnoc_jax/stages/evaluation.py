"""Stage `evaluation`: scores the priors against masks, at every threshold in one pass."""

import dataclasses
from pathlib import Path

import numpy as np

from pnoc_jax.errors import UserError
from pnoc_jax.io import products
from pnoc_jax.metrics import classification, thresholds
from pnoc_jax.parallel import hosts
from pnoc_jax.report import tables
from pnoc_jax.stages import priors, stage
from pnoc_jax.training import log


@dataclasses.dataclass(slots=True)
class EvaluationConfig:
  """What is scored; masks serve this alone.

  Attributes:
    splits: splits to score; empty for all that priors were made of. Those without masks are named
      and left out.
  """

  splits: tuple[str, ...] = ()


def run(config, inputs: dict[str, Path], out: Path, runtime: stage.Runtime) -> None:
  """Writes `<out>/priors_<split>.json` and prints the per-class table of each split."""
  if not hosts.is_main():
    hosts.barrier('evaluation')
    return
  for split in config.evaluation.splits or config.priors.splits:
    source = runtime.source(config.dataset, split)
    if not source.has_masks:
      print(f'  {split}: no masks, not scored')
      continue
    result = score_priors(source, inputs['priors'])
    products.write_json(out / f'priors_{split}.json', result)
    print(f'\nPriors of {split}, background below {result["threshold"]:.2f}:')
    print(tables.per_class(result))
  hosts.barrier('evaluation')


def score_priors(source, directory: Path) -> dict:
  """Scores the priors of a split.

  Args:
    source: the split, with masks.
    directory: the stage `priors`' directory.

  Returns:
    `thresholds.best_score`'s result, with `classification`: its metrics from the logits.

  Raises:
    UserError: a product is missing, damaged or of another image.
  """
  labelled = np.flatnonzero(source.labels.any(axis=1))
  missing = [
    source.ids[i]
    for i in labelled
    if not priors.product_path(directory, source.split, source.ids[i]).exists()
  ]
  if missing:
    raise UserError(
      f'{len(missing)} priors of {source.split} are missing below {directory}, the first is '
      f'{missing[0]}: run the stage priors (--rerun if its images have changed)'
    )
  num_classes = source.info.num_classes + 1
  sums = thresholds.init_sums(num_classes)
  logits = []
  for index in log.track(labelled, f'scoring the priors of {source.split}'):
    mask = source.mask(index)
    prior = products.read_prior(
      priors.product_path(directory, source.split, source.ids[index]),
      size=mask.shape,
      num_classes=source.info.num_classes,
    )
    sums += thresholds.sweep(prior.keys, prior.high, mask, num_classes=num_classes)
    logits.append(prior.logits)
  result = thresholds.best_score(sums, (source.info.background, *source.info.classes))
  found = classification.Predictions(np.stack(logits), source.labels[labelled])
  return {**result, 'classification': classification.score(found)}


STAGE = stage.Stage(
  name='evaluation',
  needs=lambda config: ('priors',),
  settings=lambda config: {'evaluation': config.evaluation},
  run=run,
  describe=lambda config, source: 'thresholds 0.05 to 0.80 in one pass',
)
