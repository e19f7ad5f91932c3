"""Stage `pseudo_masks`: the label map of every image, for a segmentation network to learn from."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import crf as crf_lib
from pnoc_jax.engine import infer, per_image
from pnoc_jax.engine.runtime import Context
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.report import label_maps
from pnoc_jax.stages.common import maps, scores, stage


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
  crf: crf_lib.CrfConfig = dataclasses.field(
    default_factory=lambda: crf_lib.CrfConfig(steps=1, confidence=0.9)
  )


def run(context: Context) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.png` of every image of the priors' splits; keeps what is there."""
  splits = _evidence(context)
  for evidence in splits:
    evidence.check(evidence.labelled)
  refine = _refinement(context)
  jobs = (_job(evidence, refine, context) for evidence in splits)
  return per_image.make_all(jobs, context.runtime)


def _refinement(context: Context) -> crf_lib.LabelCrf:
  sizes = [source.size(i) for source, indices in _images(context) for i in indices]
  labels = max(crf_lib.most_labels(source) for source, _ in _images(context))
  return crf_lib.LabelCrf(context.config.pseudo_masks.crf, context.runtime, sizes, labels=labels)


def _images(context: Context) -> infer.Images:
  sources = [context.source(split) for split in context.config.priors.splits]
  return [(source, pipeline.labelled(source)) for source in sources]


def _programs(context: Context) -> list[compiler.Call]:
  images = _images(context)
  return _refinement(context).calls(images, labels=1 + infer.present_width(images, 1))


def _evidence(context: Context) -> list[maps.Evidence]:
  """What the masks are made from, of each split."""
  ours = context.config.pseudo_masks
  return [
    maps.Evidence(context.source(split), context.inputs, scores=ours.source, saliency=ours.saliency)
    for split in context.config.priors.splits
  ]


def _job(evidence: maps.Evidence, refine: crf_lib.LabelCrf, context: Context) -> per_image.Job:
  source = evidence.source

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    for index, labels in _labels(context.config.pseudo_masks, evidence, refine, indices):
      yield index, functools.partial(maps.write_labels, labels=labels, dataset=source.info)

  return per_image.Job(
    what=f'pseudo masks of {source.split}',
    source=source,
    among=range(len(source)),
    directory=context.out,
    results=results,
    exists=maps.exists_png,
  )


def _labels(
  config: PseudoMasksConfig, evidence: maps.Evidence, refine: crf_lib.LabelCrf, indices: list[int]
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (index, labels i32[H, W]); without classes an image is background."""
  labelled = set(evidence.labelled)
  for index in indices:
    if index not in labelled:
      yield index, np.zeros(evidence.source.size(index), np.int32)

  def items() -> Iterator[tuple[Any, np.ndarray, np.ndarray, int]]:
    for index in indices:
      if index in labelled:
        keys, found = evidence.scores(index)
        background = config.threshold
        if config.saliency is not maps.Saliency.NONE:
          background = pseudo_labels.salient_background(evidence.saliency(index))
        labels = pseudo_labels.argmax_labels(found, background)
        yield (index, keys), evidence.image(index), labels, len(keys)

  for (index, keys), labels in refine(items()):
    yield index, pseudo_labels.to_classes(labels, keys)


def _check(context: Context) -> None:
  for evidence in _evidence(context):
    evidence.check(evidence.labelled)


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.pseudo_masks
  found = crf_lib.faults('pseudo_masks.crf', ours.crf)
  if not 0 < ours.threshold < 1:
    found.append(f'pseudo_masks.threshold is {ours.threshold}; it lies in (0, 1)')
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
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
  config=PseudoMasksConfig,
  title='Pseudo masks',
  run=run,
  describe=_describe,
  needs=lambda config: (config.pseudo_masks.source.value, *config.pseudo_masks.saliency.stages),
  reads=lambda config: ('pseudo_masks', 'priors.splits'),
  check=_check,
  faults=_faults,
  splits=lambda config: config.priors.splits,
  scores=(
    stage.Score(
      'pseudo_masks', 'Pseudo masks', scores.score_pseudo_masks, headline=True, everything=True
    ),
  ),
  figures=label_maps.pseudo_masks,
  sample=label_maps.pseudo_mask_view,
  programs=_programs,
  work=lambda context, images: crf_lib.works(context.config.pseudo_masks.crf, images),
  disk=lambda pixels, maps: pixels * stage.MASK_RATE,
)
