"""Stage `evaluation`: scores every stage's products against masks, which serve this alone.

The runner calls `score_stage` right after a stage, so that its table appears then; the stage at the
end of a run does what is left.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pnoc_jax.engine import crf as crf_stage
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import products, records
from pnoc_jax.parallel import hosts
from pnoc_jax.report import contract, tables
from pnoc_jax.stages import report
from pnoc_jax.stages.common import saliency_scores, scores, stage

Score = Callable[[scores.Split, scores.Inputs], dict[str, Any]]

SCORES: dict[str, tuple[str, Score]] = {
  'priors': ('priors', scores.score_priors),
  'priors_crf': ('priors', scores.score_priors_crf),
  'saliency_priors': ('saliency_priors', saliency_scores.score_saliency_masks),
  'saliency': ('saliency', saliency_scores.score_saliency),
  'affinity_labels': ('affinity_labels', scores.score_affinity_labels),
  'random_walk': ('random_walk', scores.score_walk),
  'pseudo_masks': ('pseudo_masks', scores.score_pseudo_masks),
  'predictions': ('predictions', scores.score_predictions),
}
"""Name of the score, and of its file -> the stage whose product it measures, and how."""

STAGES = tuple(dict.fromkeys(name for name, _ in SCORES.values()))
"""The stages whose products can be scored, in order."""


@dataclasses.dataclass(slots=True)
class EvaluationConfig:
  """What is scored; masks serve this alone.

  Attributes:
    of: stages whose products are scored; what none of them needs is not part of the run.
    splits: splits to score; empty for all that the products were made of. Those without masks are
      named and left out.
    crf_splits: of which splits the priors are also scored after a CRF, which takes its time.
    crf: that CRF.
  """

  of: tuple[str, ...] = settings.field(('priors',), product=False)
  splits: tuple[str, ...] = ()
  crf_splits: tuple[str, ...] = settings.field((), product=False)
  crf: crf_stage.CrfConfig = dataclasses.field(
    default_factory=crf_stage.CrfConfig, metadata={'product': False}
  )


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Writes `<out>/<score>_<split>.json` of all stages and prints their tables."""
  if hosts.is_main():
    wanted = [score for score, (name, _) in SCORES.items() if name in config.evaluation.of]
    for split in dict.fromkeys(x for score in wanted for x in _splits(config, score)):
      if not runtime.source(config.dataset, split).has_masks:
        print(f'  {split}: no masks, not scored')
    for name in config.evaluation.of:
      score_stage(config, name, inputs, out, runtime)
  hosts.barrier('evaluation')


def score_stage(
  config, name: str, directories: Mapping[str, Path], out: Path, runtime: Runtime
) -> None:
  """Scores one stage's products and prints the tables; scores that are up to date stay.

  Args:
    config: the run's config.
    name: of the stage; does nothing for one whose products are not to be scored.
    directories: where the stages' products are.
    out: directory of the scores.
    runtime: devices, and the sources without their quarantined images.

  Raises:
    UserError: a product is missing, damaged or of another image.
  """
  if name not in config.evaluation.of:
    return
  inputs = {other: directories[other] for other in config.evaluation.of if other in directories}
  for score, (of, measure) in SCORES.items():
    for split in _splits(config, score) if of == name else ():
      source = runtime.source(config.dataset, split)
      if not source.has_masks:
        continue
      path = out / f'{score}_{split}.json'
      made_from = _made_from(config, score, inputs)
      if not _is_current(path, made_from):
        look = scores.Split(source, config.seed, config.evaluation.crf, runtime)
        products.write_json(path, {**measure(look, inputs), **made_from})
        print(f'\n{contract.scores(report.REPORTED)[score].title} of {split}:', flush=True)
        print(tables.score(records.read_json(path)), flush=True)


def _splits(config, score: str) -> tuple[str, ...]:
  """The splits on which a score is taken."""
  if score == 'priors_crf':
    return config.evaluation.crf_splits
  if score == 'affinity_labels':
    return (config.dataset.train_split,)
  made = config.predictions.splits if score == 'predictions' else config.priors.splits
  return tuple(split for split in made if split in (config.evaluation.splits or made))


def _made_from(config, score: str, inputs: Mapping[str, Path]) -> dict[str, Any]:
  """What a score depends on beside the data: the record of its product, and what it reads more."""
  name, _ = SCORES[score]
  more = {'seed': config.seed}
  if score == 'priors_crf':
    more['crf'] = settings.as_dict(config.evaluation.crf)
  if name in ('saliency_priors', 'saliency') and 'priors' in inputs:
    more['priors'] = _fingerprint(inputs['priors'])
  return {'fingerprint': _fingerprint(inputs[name]), 'made_from': more}


def _fingerprint(directory: Path) -> str | None:
  done = records.read_done(directory)
  return done.fingerprint if done else None


def _is_current(path: Path, made_from: Mapping[str, Any]) -> bool:
  if made_from['fingerprint'] is None or not path.is_file():
    return False
  found = records.read_json(path)
  return all(found.get(key) == value for key, value in made_from.items())


def faults(config: EvaluationConfig) -> list[str]:
  """What is wrong with the config, in words."""
  unknown = [name for name in config.of if name not in STAGES]
  found = []
  if unknown:
    found.append(f'evaluation.of names {", ".join(unknown)}; known: {", ".join(STAGES)}')
  if config.crf_splits:
    found += crf_stage.faults('evaluation.crf', config.crf)
  return found


def _settings(config) -> dict[str, Any]:
  refined = {'evaluation.crf_splits': config.evaluation.crf_splits}
  refined['evaluation.crf'] = config.evaluation.crf
  return {'evaluation': config.evaluation, **(refined if config.evaluation.crf_splits else {})}


STAGE = stage.Stage(
  name='evaluation',
  needs=lambda config: config.evaluation.of,
  settings=_settings,
  run=run,
  describe=lambda config, source: 'of ' + ', '.join(config.evaluation.of),
)
