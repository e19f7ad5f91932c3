"""Stage `affinity_labels`: what AffinityNet learns from, with doubtful pixels left open."""

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_stage
from pnoc_jax.engine import per_image
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.stages.common import maps, stage


@dataclasses.dataclass(slots=True)
class AffinityLabelsConfig:
  """Labels from priors by two thresholds, or by one and a saliency map (Sec. 3.3.1).

  Source of the defaults: the released runner of VOC12. Without saliency, IRNet has 0.3 and 0.05,
  Puzzle-CAM 0.4 and 0.1; with it, COCO has 0.3 and 0.8.

  Attributes:
    foreground: a class is trusted where its score exceeds this.
    background: without saliency, background is trusted where no score exceeds this; with saliency,
      a pixel is salient where its saliency does.
    saliency: whose saliency.
    crf: refines both label maps.
  """

  foreground: float = 0.4
  background: float = 0.1
  saliency: maps.Saliency = maps.Saliency.NONE
  crf: crf_stage.CrfConfig = dataclasses.field(default_factory=crf_stage.CrfConfig)


def faults(config: AffinityLabelsConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = crf_stage.faults('affinity_labels.crf', config.crf)
  for name in ('foreground', 'background'):
    if not 0 < getattr(config, name) < 1:
      found.append(f'affinity_labels.{name} is {getattr(config, name)}; it lies in (0, 1)')
  if config.saliency is maps.Saliency.NONE and config.foreground < config.background:
    found.append(
      f'affinity_labels.foreground {config.foreground} is below background {config.background}: '
      'no pixel would be left open'
    )
  return found


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
  """Writes `<out>/<train>/<id>.png` of every labelled image; skips those that are there."""
  start, ours = time.monotonic(), config.affinity_labels
  source = runtime.source(config.dataset, config.dataset.train_split)
  evidence = _evidence(config, inputs, source)
  evidence.check(evidence.labelled)
  refine = crf_stage.LabelCrf(ours.crf, runtime, [source.size(i) for i in evidence.labelled])
  make = _from_thresholds if ours.saliency is maps.Saliency.NONE else _from_saliency

  def path(name: str) -> Path:
    return per_image.image_path(out, source.split, name)

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    for index, labels in make(ours, evidence, refine, indices):
      target = path(source.ids[index])
      yield index, functools.partial(maps.write_labels, target, labels, source.info)

  made = per_image.make(
    runtime,
    source,
    what=f'affinity labels of {source.split}',
    among=evidence.labelled,
    exists=lambda name: maps.exists_png(path(name)),
    results=results,
  )
  # This process's share of this call.
  return {'images': made, 'images_per_second': made / (time.monotonic() - start)}


def _evidence(config, inputs: dict[str, Path], source: info.Source) -> maps.Evidence:
  saliency = config.affinity_labels.saliency
  return maps.Evidence(source, inputs, scores=maps.Scores.PRIORS, saliency=saliency)


def _from_thresholds(
  config: AffinityLabelsConfig,
  evidence: maps.Evidence,
  refine: crf_stage.LabelCrf,
  indices: list[int],
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (index, labels i32[H, W]) from label maps at the two thresholds."""

  def items():
    for index in indices:
      image, (keys, scores) = evidence.image(index), evidence.scores(index)
      for threshold in (config.foreground, config.background):
        labels = pseudo_labels.argmax_labels(scores, threshold)
        yield (index, keys), image, labels, len(keys)

  refined = refine(items())
  for ((index, keys), foreground), (_, background) in zip(refined, refined, strict=True):
    labels = pseudo_labels.affinity_labels(foreground, background)
    yield index, pseudo_labels.to_classes(labels, keys)


def _from_saliency(
  config: AffinityLabelsConfig,
  evidence: maps.Evidence,
  refine: crf_stage.LabelCrf,
  indices: list[int],
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (index, labels i32[H, W]) from classes within what is salient."""

  def salient_items():
    for index in indices:
      image = evidence.image(index)
      salient = evidence.saliency(index) > np.float32(config.background)
      yield (index, image), image, salient.astype(np.int32), 2

  def items():
    for (index, image), salient in refine(salient_items()):
      keys, scores = evidence.scores(index)
      labels = pseudo_labels.argmax_labels(scores, config.foreground)
      salient = salient > 0
      masked = pseudo_labels.mask_labels(labels, salient)
      yield (index, keys, salient), image, masked, len(keys)

  for (index, keys, salient), labels in refine(items()):
    labels = pseudo_labels.salient_affinity_labels(labels, salient)
    yield index, pseudo_labels.to_classes(labels, keys)


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  del runtime
  if 'priors' not in inputs and source.split not in config.priors.splits:
    raise UserError(
      f'affinity labels are made of {source.split}, and priors.splits is '
      f'{config.priors.splits}: add it there'
    )
  evidence = _evidence(config, inputs, source)
  evidence.check(evidence.labelled)


def _describe(config, source: info.Source) -> str:
  ours = config.affinity_labels
  images = int(source.labels.any(axis=1).sum())
  return (
    f'{images} images, thresholds {ours.foreground:g} and {ours.background:g}, '
    f'saliency: {ours.saliency.value}, CRF of {ours.crf.steps} steps'
  )


STAGE = stage.Stage(
  name='affinity_labels',
  needs=lambda config: ('priors', *config.affinity_labels.saliency.stages),
  settings=lambda config: {'affinity_labels': config.affinity_labels},
  run=run,
  describe=_describe,
  check=_check,
)
