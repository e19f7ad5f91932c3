"""Stage `affinity_labels`: what AffinityNet learns from, with doubtful pixels left open."""

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
from pnoc_jax.errors import UserError
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.report import refinement
from pnoc_jax.stages.common import maps, scores, stage


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
  crf: crf_lib.CrfConfig = dataclasses.field(default_factory=crf_lib.CrfConfig)


def run(context: Context) -> dict[str, float]:
  """Writes `<out>/<train>/<id>.png` of every labelled image; skips those that are there."""
  ours, source, evidence = context.config.affinity_labels, context.train, _evidence(context)
  evidence.check(evidence.labelled)
  refine = _refinement(context)
  make = _from_thresholds if ours.saliency is maps.Saliency.NONE else _from_saliency

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    for index, labels in make(ours, evidence, refine, indices):
      yield index, functools.partial(maps.write_labels, labels=labels, dataset=source.info)

  job = per_image.Job(
    what=f'affinity labels of {source.split}',
    source=source,
    among=evidence.labelled,
    directory=context.out,
    results=results,
    exists=maps.exists_png,
  )
  return per_image.make_all([job], context.runtime)


def _refinement(context: Context) -> crf_lib.LabelCrf:
  source = context.train
  sizes = [source.size(i) for i in pipeline.labelled(source)]
  return crf_lib.LabelCrf(
    context.config.affinity_labels.crf,
    context.runtime,
    sizes,
    labels=crf_lib.most_labels(source),
  )


def _programs(context: Context) -> list[compiler.Call]:
  images = [(context.train, pipeline.labelled(context.train))]
  # Two maps an image: at two thresholds, or of classes and saliency.
  return _refinement(context).calls(images, labels=1 + infer.present_width(images, 1), times=2)


def _evidence(context: Context) -> maps.Evidence:
  saliency = context.config.affinity_labels.saliency
  return maps.Evidence(context.train, context.inputs, scores=maps.Scores.PRIORS, saliency=saliency)


_Labels = Iterator[tuple[int, np.ndarray]]


def _from_thresholds(
  config: AffinityLabelsConfig,
  evidence: maps.Evidence,
  refine: crf_lib.LabelCrf,
  indices: list[int],
) -> _Labels:
  """Yields (index, labels i32[H, W]) from label maps at the two thresholds."""

  def items() -> Iterator[tuple[Any, np.ndarray, np.ndarray, int]]:
    for index in indices:
      image, (keys, found) = evidence.image(index), evidence.scores(index)
      for threshold in (config.foreground, config.background):
        labels = pseudo_labels.argmax_labels(found, threshold)
        yield (index, keys), image, labels, len(keys)

  refined = refine(items())
  for ((index, keys), foreground), (_, background) in zip(refined, refined, strict=True):
    labels = pseudo_labels.affinity_labels(foreground, background)
    yield index, pseudo_labels.to_classes(labels, keys)


def _from_saliency(
  config: AffinityLabelsConfig,
  evidence: maps.Evidence,
  refine: crf_lib.LabelCrf,
  indices: list[int],
) -> _Labels:
  """Yields (index, labels i32[H, W]) from classes within what is salient."""

  def salient_items() -> Iterator[tuple[Any, np.ndarray, np.ndarray, int]]:
    for index in indices:
      image = evidence.image(index)
      salient = evidence.saliency(index) > np.float32(config.background)
      yield (index, image), image, salient.astype(np.int32), 2

  def items() -> Iterator[tuple[Any, np.ndarray, np.ndarray, int]]:
    for (index, image), salient in refine(salient_items()):
      keys, found = evidence.scores(index)
      labels = pseudo_labels.argmax_labels(found, config.foreground)
      salient = salient > 0
      masked = pseudo_labels.mask_labels(labels, salient)
      yield (index, keys, salient), image, masked, len(keys)

  for (index, keys, salient), labels in refine(items()):
    labels = pseudo_labels.salient_affinity_labels(labels, salient)
    yield index, pseudo_labels.to_classes(labels, keys)


def _check(context: Context) -> None:
  split, made = context.train.split, context.config.priors.splits
  if 'priors' not in context.inputs and split not in made:
    raise UserError(
      f'affinity labels are made of {split}, and priors.splits is {made}: add it there'
    )
  evidence = _evidence(context)
  evidence.check(evidence.labelled)


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.affinity_labels
  found = crf_lib.faults('affinity_labels.crf', ours.crf)
  for name in ('foreground', 'background'):
    if not 0 < getattr(ours, name) < 1:
      found.append(f'affinity_labels.{name} is {getattr(ours, name)}; it lies in (0, 1)')
  if ours.saliency is maps.Saliency.NONE and ours.foreground < ours.background:
    found.append(
      f'affinity_labels.foreground {ours.foreground} is below background {ours.background}: '
      'no pixel would be left open'
    )
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  ours = config.affinity_labels
  return (
    f'{len(pipeline.labelled(source))} images, thresholds {ours.foreground:g} and '
    f'{ours.background:g}, saliency: {ours.saliency.value}, CRF of {ours.crf.steps} steps'
  )


STAGE = stage.Stage(
  name='affinity_labels',
  config=AffinityLabelsConfig,
  title='Affinity labels',
  run=run,
  describe=_describe,
  needs=lambda config: ('priors', *config.affinity_labels.saliency.stages),
  looks=('priors.splits',),
  check=_check,
  faults=_faults,
  splits=lambda config: (config.dataset.train_split,),
  scores=(stage.Score('affinity_labels', 'Affinity labels', scores.score_affinity_labels),),
  figures=refinement.affinity_labels,
  sample=refinement.affinity_view,
  programs=_programs,
  work=lambda context, images: crf_lib.works(context.config.affinity_labels.crf, images),
  disk=lambda pixels, maps: pixels * stage.MASK_RATE,
)
