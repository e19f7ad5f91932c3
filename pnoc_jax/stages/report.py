"""Stage `report`: one page that shows the run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.parallel import hosts
from pnoc_jax.report import build, examples, label_maps, refinement, sections
from pnoc_jax.stages.common import stage


@dataclasses.dataclass(slots=True)
class ReportConfig:
  """The report.

  Attributes:
    images: images shown with their maps.
  """

  images: int = 12


class Score(NamedTuple):
  """A score, until the stages say themselves what is scored."""

  name: str
  title: str
  headline: bool = False


class Entry(NamedTuple):
  """What the report knows of a stage, until the stages say so themselves."""

  name: str
  title: str = ''
  training_title: str = ''
  scores: tuple[Score, ...] = ()
  figures: Callable[[examples.Look, str], str] | None = None


REPORTED = (
  Entry('classifier', training_title='the classifier'),
  Entry('generator', training_title='the generator'),
  Entry(
    'priors',
    'Priors',
    scores=(Score('priors', 'Priors', True), Score('priors_crf', 'Priors after the CRF')),
    figures=sections.priors,
  ),
  Entry('c2am', training_title='C2AM'),
  Entry('saliency_priors', scores=(Score('saliency_priors', 'Saliency masks of C2AM'),)),
  Entry(
    'saliency',
    'Saliency',
    'the saliency network',
    (Score('saliency', 'Saliency maps'),),
    refinement.saliency,
  ),
  Entry(
    'affinity_labels',
    'Affinity labels',
    scores=(Score('affinity_labels', 'Affinity labels'),),
    figures=refinement.affinity_labels,
  ),
  Entry('affinity', training_title='AffinityNet'),
  Entry(
    'random_walk',
    'Random walk',
    scores=(Score('random_walk', 'Random walk'),),
    figures=refinement.random_walk,
  ),
  Entry(
    'pseudo_masks',
    'Pseudo masks',
    scores=(Score('pseudo_masks', 'Pseudo masks', True),),
    figures=label_maps.pseudo_masks,
  ),
  Entry('segmentation', training_title='the segmentation network'),
  Entry(
    'predictions',
    'Predictions',
    scores=(Score('predictions', 'Predictions', True),),
    figures=label_maps.predictions,
  ),
  Entry('evaluation'),
  Entry('report'),
)


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Writes `<out>/index.html` from the run's files."""
  del inputs, out
  if hosts.is_main():
    page = build.build(runtime.workdir, REPORTED, images=config.report.images)
    print(f'  {page}')
  hosts.barrier('report')


STAGE = stage.Stage(
  name='report',
  needs=lambda config: ('evaluation',),
  settings=lambda config: {'report': config.report},
  run=run,
  describe=lambda config, source: 'one HTML page',
)
