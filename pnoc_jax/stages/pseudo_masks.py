"""Stage `pseudo_masks`: the label map of every image, for a segmentation network to learn from."""

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
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.stages.common import maps, stage


@dataclasses.dataclass(slots=True)
class PseudoMasksConfig:
  """Label maps from scores against a background.

  Source of the defaults: the released runner of VOC12. Puzzle-CAM has 0.35, and 0.7 of the CRF's
  confidence; IRNet 0.25 and no CRF.

  Attributes:
    source: whose scores: the random walk's, or the priors as they are.
    threshold: the background's score, where no saliency tells it.
    saliency: whose saliency; the background's score is then 1 - saliency.
    crf: refines the label map.
  """

  source: maps.Scores = maps.Scores.RANDOM_WALK
  threshold: float = 0.3
  saliency: maps.Saliency = maps.Saliency.NONE
  crf: crf_stage.CrfConfig = dataclasses.field(
    default_factory=lambda: crf_stage.CrfConfig(steps=1, confidence=0.9)
  )


def faults(config: PseudoMasksConfig) -> list[str]:
  """What is wrong with the config, in words."""
  found = crf_stage.faults('pseudo_masks.crf', config.crf)
  if not 0 < config.threshold < 1:
    found.append(f'pseudo_masks.threshold is {config.threshold}; it lies in (0, 1)')
  return found


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.png` of every image of the priors' splits; keeps what is there."""
  start, made, ours = time.monotonic(), 0, config.pseudo_masks
  splits = [_evidence(config, inputs, runtime, split) for split in config.priors.splits]
  for evidence in splits:
    evidence.check(evidence.labelled)
  sizes = [evidence.source.size(i) for evidence in splits for i in evidence.labelled]
  refine = crf_stage.LabelCrf(ours.crf, runtime, sizes)
  for evidence in splits:
    source = evidence.source

    def path(name: str, split=source.split) -> Path:
      return per_image.image_path(out, split, name)

    def results(indices: list[int], evidence=evidence, path=path) -> Iterator[per_image.Result]:
      dataset = evidence.source.info
      for index, labels in _labels(ours, evidence, refine, indices):
        target = path(evidence.source.ids[index])
        yield index, functools.partial(maps.write_labels, target, labels, dataset)

    made += per_image.make(
      runtime,
      source,
      what=f'pseudo masks of {source.split}',
      among=range(len(source)),
      exists=lambda name, path=path: maps.exists_png(path(name)),
      results=results,
    )
  # This process's share of this call.
  return {'images': made, 'images_per_second': made / (time.monotonic() - start)}


def _evidence(config, inputs: dict[str, Path], runtime: Runtime, split: str) -> maps.Evidence:
  return maps.Evidence(
    runtime.source(config.dataset, split),
    inputs,
    scores=config.pseudo_masks.source,
    saliency=config.pseudo_masks.saliency,
  )


def _labels(
  config: PseudoMasksConfig, evidence: maps.Evidence, refine: crf_stage.LabelCrf, indices: list[int]
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (index, labels i32[H, W]); without classes an image is background."""
  labelled = evidence.source.labels.any(axis=1)
  for index in indices:
    if not labelled[index]:
      yield index, np.zeros(evidence.source.size(index), np.int32)

  def items():
    for index in indices:
      if labelled[index]:
        keys, scores = evidence.scores(index)
        background = config.threshold
        if config.saliency is not maps.Saliency.NONE:
          background = pseudo_labels.salient_background(evidence.saliency(index))
        labels = pseudo_labels.argmax_labels(scores, background)
        yield (index, keys), evidence.image(index), labels, len(keys)

  for (index, keys), labels in refine(items()):
    yield index, pseudo_labels.to_classes(labels, keys)


def _check(config, inputs: dict[str, Path], source: info.Source, runtime: Runtime) -> None:
  del source
  for split in config.priors.splits:
    evidence = _evidence(config, inputs, runtime, split)
    evidence.check(evidence.labelled)


def _describe(config, source: info.Source) -> str:
  del source
  ours = config.pseudo_masks
  background = f'background {ours.threshold:g}'
  if ours.saliency is not maps.Saliency.NONE:
    background = f'background 1 - saliency ({ours.saliency.value})'
  return (
    f'{" and ".join(config.priors.splits)}, of {ours.source.value}, {background}, '
    f'CRF of {ours.crf.steps} steps'
  )


STAGE = stage.Stage(
  name='pseudo_masks',
  needs=lambda config: (config.pseudo_masks.source.value, *config.pseudo_masks.saliency.stages),
  settings=lambda config: {
    'pseudo_masks': config.pseudo_masks,
    'priors.splits': config.priors.splits,
  },
  run=run,
  describe=_describe,
  check=_check,
)
