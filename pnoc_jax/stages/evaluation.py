"""Stage `evaluation`: scores every stage's products against masks, which serve this alone.

Of splits without masks it says how sure the priors are, which is a proxy and no score.

The runner calls `score_stage` right after a stage, so that its table appears then; the stage at the
end of a run does what is left.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_lib
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import records
from pnoc_jax.parallel import hosts
from pnoc_jax.report import tables
from pnoc_jax.stages.common import proxy as proxy_lib
from pnoc_jax.stages.common import scores, stage


@dataclasses.dataclass(slots=True)
class EvaluationConfig:
  """What is scored; masks serve this alone.

  Attributes:
    of: stages whose products are scored; what none of them needs is not part of the run.
    splits: splits to score; empty for all that the products were made of. Those without masks are
      named and left out.
    crf_splits: of which splits the priors are also scored after a CRF, which takes its time.
    crf: that CRF.
    proxy: what is looked at where there are no masks.
  """

  of: tuple[str, ...] = settings.field(('priors',), product=False)
  splits: tuple[str, ...] = ()
  crf_splits: tuple[str, ...] = settings.field((), product=False)
  crf: crf_lib.CrfConfig = dataclasses.field(
    default_factory=crf_lib.CrfConfig, metadata={'product': False}
  )
  proxy: proxy_lib.ProxyConfig = dataclasses.field(
    default_factory=proxy_lib.ProxyConfig, metadata={'product': False}
  )


def scored(config: type[stage.PipelineConfig] | stage.PipelineConfig) -> tuple[str, ...]:
  """Names of the stages whose products can be scored, in order."""
  return tuple(entry.name for entry in stage.stages(config) if entry.scores)


def run(context: Context) -> None:
  """Writes `<out>/<score>_<split>.json` of all stages and prints their tables."""
  config = context.config
  wanted = [entry for entry in stage.stages(config) if entry.name in config.evaluation.of]
  if hosts.is_main():
    splits = (
      x for entry in wanted for score in entry.scores for x in _splits(config, entry, score)
    )
    for split in dict.fromkeys(splits):
      if not context.source(split).has_masks:
        print(f'  {split}: no masks, not scored; a proxy says how sure the priors are')
      elif not context.source(split).labels.any():
        print(f'  {split}: no image has a label; scored is only what is made of all images')
    for entry in wanted:
      score_stage(config, entry, context.inputs, context.out, context.runtime)
  hosts.barrier('evaluation')


def score_stage(
  config: stage.PipelineConfig,
  entry: stage.Stage,
  directories: Mapping[str, Path],
  out: Path,
  runtime: Runtime,
) -> None:
  """Scores one stage's products and prints the tables; scores that are up to date stay.

  Args:
    config: the run's config.
    entry: the stage; does nothing for one whose products are not to be scored.
    directories: where the stages' products are.
    out: directory of the scores.
    runtime: devices, and the sources without their quarantined images.

  Raises:
    UserError: a product is missing, damaged or of another image.
  """
  for score, split, path, made_from in _due(config, entry, directories, out, runtime):
    source = runtime.source(config.dataset, split)
    look = scores.Split(source, config.seed, config.evaluation.crf, runtime, config)
    inputs = _inputs(config, directories, score, runtime)
    records.write_json(path, {**score.measure(look, inputs), **made_from})
    print(f'\n{score.title} of {split}:', flush=True)
    table = tables.score if score.masks else tables.proxy
    print(table(records.read_json(path)), flush=True)


def stale(
  config: stage.PipelineConfig, directories: Mapping[str, Path], out: Path, runtime: Runtime
) -> list[str]:
  """Scores that are missing, or that were taken before a mask or an image changed.

  Args:
    config: the run's config.
    directories: of the stages' products.
    out: directory of the scores.
    runtime: the sources without their quarantined images.

  Returns:
    `<score> of <split>`, in order.
  """
  return [
    f'{score.name} of {split}'
    for entry in stage.stages(config)
    for score, split, *_ in _due(config, entry, directories, out, runtime)
  ]


def _due(
  config: stage.PipelineConfig,
  entry: stage.Stage,
  directories: Mapping[str, Path],
  out: Path,
  runtime: Runtime,
) -> Iterator[tuple[stage.Score, str, Path, dict[str, Any]]]:
  """The scores of a stage that are not up to date: score, split, file, and what it depends on."""
  if entry.name not in config.evaluation.of:
    return
  for score in entry.scores:
    for split in _splits(config, entry, score):
      source, path = runtime.source(config.dataset, split), out / f'{score.name}_{split}.json'
      if source.has_masks == score.masks and (score.everything or source.labels.any()):
        inputs = _inputs(config, directories, score, runtime)
        made_from = _made_from(config, entry, score, inputs)
        made_from['made_from']['files'] = files_digest(source)
        if not _is_current(path, made_from):
          yield score, split, path, made_from


def _inputs(
  config: stage.PipelineConfig,
  directories: Mapping[str, Path],
  score: stage.Score,
  runtime: Runtime,
) -> dict[str, Path]:
  """Directories of what is evaluated, and of what a proxy needs beside it."""
  found = {name: directories[name] for name in config.evaluation.of if name in directories}
  for name in () if score.masks else score.needs:
    # The stage at the end of a run knows the directories of what it needs alone.
    grafted = getattr(config.inputs, name, '')
    found[name] = directories.get(name) or Path(grafted or runtime.workdir / name)
  return found


def files_digest(source: info.Source) -> str:
  """Changes with the names, sizes and times of a split's images and masks, not with their folder.

  Raises:
    UserError: a file is not there.
  """
  sha = hashlib.sha256(repr(source.ids).encode())
  for index in range(len(source)):
    for path in source.files(index):
      try:
        stat = path.stat()
      except OSError as error:
        raise UserError(f'{path}: there is no such file ({error.strerror})') from error
      sha.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
  return sha.hexdigest()[:16]


def _splits(
  config: stage.PipelineConfig, entry: stage.Stage, score: stage.Score
) -> tuple[str, ...]:
  """The splits on which a score is taken."""
  if score.splits is not None:
    return score.splits(config)
  made = entry.splits(config)
  return tuple(split for split in made if split in (config.evaluation.splits or made))


def _made_from(
  config: stage.PipelineConfig, entry: stage.Stage, score: stage.Score, inputs: Mapping[str, Path]
) -> dict[str, Any]:
  """What a score depends on beside the data: the record of its product, and what it reads more."""
  more: dict[str, Any] = {'seed': config.seed}
  for field in score.reads(config):
    more[field.rpartition('.')[-1]] = settings.as_dict(settings.lookup(config, field))
  for name in score.needs:
    if name in inputs:
      more[name] = _fingerprint(inputs[name])
  return {'fingerprint': _fingerprint(inputs[entry.name]), 'made_from': more}


def _fingerprint(directory: Path) -> str | None:
  done = records.read_done(directory)
  return done.fingerprint if done else None


def _is_current(path: Path, made_from: Mapping[str, Any]) -> bool:
  if made_from['fingerprint'] is None or not path.is_file():
    return False
  found = records.read_object(path)
  return all(found.get(key) == value for key, value in made_from.items())


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours, known, found = config.evaluation, scored(config), []
  unknown = [name for name in ours.of if name not in known]
  if unknown:
    found.append(f'evaluation.of names {", ".join(unknown)}; known: {", ".join(known)}')
  if ours.proxy.images < 0:
    found.append('evaluation.proxy.images is a number of images, 0 or more')
  if not 0 < ours.proxy.threshold < 1:
    found.append(f'evaluation.proxy.threshold is {ours.proxy.threshold}; it lies in (0, 1)')
  if ours.crf_splits:
    found += crf_lib.faults('evaluation.crf', ours.crf)
  # Splits of which nothing is made: products would be missed after days of work.
  made = tuple(x for entry in stage.stages(config) if entry.scores for x in entry.splits(config))
  for field, splits in (('splits', made), ('crf_splits', config.priors.splits)):
    missing = [split for split in getattr(ours, field) if split not in splits]
    if missing:
      found.append(
        f'evaluation.{field} names {", ".join(missing)}; products are made of '
        f'{", ".join(dict.fromkeys(splits))}'
      )
  files: dict[str, str] = {}
  for entry in stage.stages(config):
    for score in entry.scores:
      for split in _splits(config, entry, score):
        other = files.setdefault(f'{score.name}_{split}', split)
        if other != split:
          found.append(
            f'scores of the splits {other} and {split} would stand in one file, '
            f'{score.name}_{split}.json; give one of the splits another name'
          )
  return found


def _reads(config: stage.PipelineConfig) -> tuple[str, ...]:
  refined = ('evaluation.crf_splits', 'evaluation.crf') if config.evaluation.crf_splits else ()
  return ('evaluation', *refined)


STAGE = stage.Stage(
  name='evaluation',
  config=EvaluationConfig,
  run=run,
  describe=lambda config, source: 'of ' + ', '.join(config.evaluation.of),
  needs=lambda config: config.evaluation.of,
  reads=_reads,
  looks=stage.ALL,
  faults=_faults,
)
