"""A stage of its own, as somebody else would write one: a convolution learns what is in a picture.

It has all that a stage can have: a training, a product of every image, a score, pictures, checks.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import memory, networks, per_image, programs, settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.losses import forward, multilabel
from pnoc_jax.metrics import segmentation
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.report import examples
from pnoc_jax.stages.common import maps, scores, stage
from pnoc_jax.types import Array, Batch, Key, Metrics, PyTree


@dataclasses.dataclass(slots=True)
class ToyConfig(settings.TrainingConfig):
  """The toy's own settings.

  Attributes:
    threshold: a pixel has a class where its score is above this.
    shown: pictures in the report.
  """

  optim: settings.OptimConfig = dataclasses.field(
    default_factory=lambda: settings.OptimConfig(lr=0.1, momentum=0.9)
  )
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(
      min_size=16, max_size=16, crop=16, augment=transforms.Augment.NONE
    )
  )
  epochs: int = 2
  batch_size: int = 8
  threshold: float = 0.5
  shown: int = settings.field(3, product=False)


class Net(nn.Module):
  """Maps of the classes by one convolution."""

  num_classes: int

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    return nn.Conv(self.num_classes, (3, 3), name='classifier')(image)


def loss(
  params: PyTree, batch_stats: PyTree, batch: Batch, key: Key, *, model: nn.Module
) -> tuple[Array, tuple[PyTree, Metrics]]:
  """Multi-label classification by the means of the maps."""
  del key
  cam, batch_stats = forward.train(model, params, batch_stats, batch['image'])
  total = multilabel.multilabel_loss(cam_ops.logits(cam), batch['label'])
  return total, (batch_stats, {'loss/cls': total})


def run(context: Context) -> dict[str, Any]:
  """Trains, then writes `<out>/<split>/<id>.png` of every image."""
  ours, dataset = context.config.toy, context.train.info
  model, examples = Net(dataset.num_classes), pipeline.Examples(context.train)
  program = programs.make_program(
    functools.partial(loss, model=model),
    networks.first_variables(model, networks.origin(ours, {}), context),
    ours,
    examples,
    context,
    groups=programs.field_groups(ours),
  )
  variables = trainer.train(program, examples, ours, context)
  prepare = programs.make_prepare(dataset)

  def labels(source: info.Source, index: int) -> np.ndarray:
    image = source.example(index)['image']
    box = np.array([[0, 0, *image.shape[:2]]], np.int32)
    cam = model.apply(variables, prepare({'image': image[None], 'box': box})['image'])[0]
    score = np.asarray(jax.nn.sigmoid(cam)) * source.labels[index]
    return np.where(score.max(-1) > ours.threshold, score.argmax(-1) + 1, 0)

  def job(source: info.Source) -> per_image.Job:
    def results(indices: list[int]) -> Iterator[per_image.Result]:
      for index in indices:
        found = labels(source, index)
        yield index, functools.partial(maps.write_labels, labels=found, dataset=dataset)

    return per_image.Job(
      f'toys of {source.split}', source, range(len(source)), context.out, results, maps.exists_png
    )

  splits = context.config.priors.splits
  return per_image.make_all((job(context.source(split)) for split in splits), context.runtime)


def score(split: scores.Split, inputs: Mapping[str, Path]) -> dict[str, Any]:
  """IoU of the maps, with what it was taken of."""
  source, count = split.source, len(split.classes)
  confusion = segmentation.init_confusion(count)
  for index, path in scores.paths(split, inputs['toy'], 'toy', range(len(source))):
    labels = scores.read_labels(path, source.size(index), count)
    confusion += segmentation.confuse(labels, source.mask(index), num_classes=count)
  return {**scores.label_score(split, confusion), 'images': len(source)}


def figures(look: examples.Look, split: str) -> str:
  """The maps of a few images."""

  def panels(example: examples.Example) -> Iterator[examples.Picture]:
    if (labels := example.png('toy')) is not None:
      yield example.coloured(labels, 'toy', f'Toy map of {example.id}')

  return examples.gallery(look, split, 'Some of them', panels, stage='toy')


def sample(example: examples.Example) -> examples.View | None:
  """The map of one image, for the first part of the report."""
  labels = example.png('toy')
  return None if labels is None else examples.View('toy map', labels)


def faults(config: Any) -> list[str]:
  """The threshold must be a probability."""
  ours = config.toy
  wrong = (
    [] if 0 < ours.threshold < 1 else [f'toy.threshold is {ours.threshold}; it lies in (0, 1)']
  )
  return settings.training_faults('toy', ours) + wrong


STAGE = stage.Stage(
  name='toy',
  config=ToyConfig,
  title='Toy maps',
  training_title='the toy',
  run=run,
  describe=lambda config, source: f'{len(source)} toys above {config.toy.threshold:g}',
  reads=lambda config: ('toy', 'priors.splits'),
  check=lambda context: trainer.check(context.config.toy, context),
  faults=faults,
  splits=lambda config: config.priors.splits,
  scores=(stage.Score('toy', 'Toy maps', score, headline=True),),
  figures=figures,
  sample=sample,
  memory=lambda config, dataset, load: memory.training_memory(
    Net(dataset.num_classes), config.toy, dataset, load
  ),
  disk=lambda pixels, maps: pixels * stage.MASK_RATE,
)


def make_class(entry: stage.Stage = STAGE, before: str = 'evaluation') -> type:
  """The class of configs that have one more stage, at its place."""
  fields = []
  for field in dataclasses.fields(config_lib.PipelineConfig):
    if field.name == before:
      fields.append((entry.name, entry.config, stage.field(entry)))
    again = dataclasses.field(
      default=field.default, default_factory=field.default_factory, metadata=field.metadata
    )
    fields.append((field.name, field.type, again))
  namespace = {'__post_init__': config_lib.PipelineConfig.__post_init__}
  return dataclasses.make_dataclass('ToyPipelineConfig', fields, namespace=namespace, slots=True)
