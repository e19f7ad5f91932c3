"""Makes the config of a data set and a method from the numbers of a recipe."""

import dataclasses
from collections.abc import Callable

from configs import _base, _recipes
from pnoc_jax import config as config_lib
from pnoc_jax.config import PipelineConfig
from pnoc_jax.engine import settings
from pnoc_jax.errors import UserError
from pnoc_jax.nn import backbones, layers
from pnoc_jax.stages.common import maps
from pnoc_jax.updates import pnoc

WORDS = {
  **_recipes.RECIPES,
  'backbone=': 'a name in nn/backbones.py, of all networks but PoolNet',
  'smoke': 'small networks and images, an epoch each: shows on a CPU that everything works',
}
METHOD = {'method=': 'how the generator is trained, such as poc; pnoc without the word'}
TO_PRIORS = ('priors',)
TO_PREDICTIONS = config_lib.SCORED
WITHOUT_WALK = ('priors', 'pseudo_masks', 'predictions')
WITH_MASKS_OF_C2AM = ('priors', 'saliency_priors', 'pseudo_masks', 'predictions')


def preset(
  name: str,
  data: _recipes.Data,
  *,
  method: str,
  scored: tuple[str, ...],
) -> Callable[[str | None], PipelineConfig]:
  """Makes the `get_config` of a data set and a method.

  Args:
    name: of the run; the words given are added.
    data: the data set.
    method: how the generator is trained.
    scored: stages whose products are scored, and so the last ones of the run.

  Returns:
    A function from the words after the config's colon, `WORDS`, to the config; a config of P-NOC
    knows `METHOD`, too. It raises UserError if a word is unknown, or if two recipes are named.
  """

  def get_config(argument: str | None = None) -> PipelineConfig:
    words = _base.parse(argument, {**WORDS, **METHOD} if method == 'pnoc' else WORDS)
    chosen = words.get('method', method)
    if chosen not in pnoc.METHODS:
      raise UserError(f'there is no method {chosen}; known: {", ".join(pnoc.METHODS)}')
    named = [word for word in _recipes.RECIPES if word in words]
    if len(named) > 1:
      raise UserError(f'the config takes one recipe, not {" and ".join(named)}')
    recipe = named[0] if named else 'text'
    numbers = data.numbers[recipe]
    if chosen in data.methods:
      numbers = data.methods[chosen](numbers, recipe)
    if 'backbone' in words:
      numbers = dataclasses.replace(numbers, backbone=words['backbone'])
    if numbers.whole_batch_if_smaller and numbers.backbone != 'resnest269':
      numbers = dataclasses.replace(numbers, batch=32, accumulate=1)
    config = _base.base_config('_'.join([name, *(words[x] or x for x in words)]))
    _set_dataset(config, data, scored)
    _set_cam_networks(config, numbers, chosen)
    _set_refinement(config, numbers)
    _set_segmentation(config, numbers)
    _set_backbones(config, numbers)
    if 'smoke' in words:
      _shrink(config, backbone=words.get('backbone', 'resnest_tiny'))
    return config

  return get_config


def _set_dataset(config: PipelineConfig, data: _recipes.Data, scored: tuple[str, ...]) -> None:
  config.dataset.name = data.name
  config.dataset.train_split, config.dataset.val_split = data.train, data.splits[-1]
  # Only pseudo masks are wanted of all training images.
  config.priors.splits = data.splits if 'pseudo_masks' in scored else data.scored or data.splits
  config.predictions.splits = data.predicted
  config.evaluation.of, config.evaluation.splits = scored, data.scored
  config.runtime.workers = None  # As many as the cores suggest.
  for training in (config.classifier, config.generator, config.c2am, config.saliency):
    training.eval_split = data.measured
  for stage in (config.priors, config.saliency_priors, config.predictions):
    stage.resize_to = data.resize_to
  if 'saliency' in scored:
    config.affinity_labels.saliency = maps.Saliency.NETWORK
  if 'pseudo_masks' in scored and 'random_walk' not in scored:
    config.pseudo_masks.source = maps.Scores.PRIORS


def _set_cam_networks(config: PipelineConfig, numbers: _recipes.Numbers, method: str) -> None:
  config.generator.method = method
  for training in (config.classifier, config.generator):
    training.optim.lr, training.optim.power = numbers.lr, numbers.power
    training.model.precision = numbers.cam_precision
    _set_images(training, numbers.images)
    training.eval_batches = numbers.eval_batches
    training.transform.augment = numbers.oc_augment
    training.smoothing = numbers.oc_smoothing
  ours = config.generator
  # A vanilla generator is an ordinary classifier.
  ours.batch_size, ours.optim.accumulate = config.classifier.batch_size, 1
  if method != 'vanilla':
    ours.batch_size, ours.optim.accumulate = numbers.batch, numbers.accumulate
    ours.transform.augment, ours.smoothing = numbers.augment, numbers.smoothing
  ours.leak_noc_grad = numbers.leak and ours.parts.noc
  if method == 'occse':
    # As the code's runner: batch normalisation and stem frozen, output stride 8; the judge's is 16.
    ours.model.norm, ours.model.frozen_stages = layers.Norm.FROZEN, 1
    ours.model.output_stride = 8


def _set_images(training: settings.TrainingConfig, images: _recipes.Images) -> None:
  transform = training.transform
  transform.min_size, transform.max_size = images.low, images.high
  transform.crop, transform.resize = images.crop, images.resize
  training.eval_size = images.crop


def _set_refinement(config: PipelineConfig, numbers: _recipes.Numbers) -> None:
  c2am = config.c2am
  c2am.batch_size, c2am.optim.accumulate = numbers.c2am_batch, numbers.c2am_accumulate
  c2am.optim.lr, c2am.optim.scratch_lr = numbers.c2am_lr, numbers.c2am_scratch_lr
  c2am.threshold, c2am.model.precision = numbers.c2am_threshold, numbers.c2am_precision
  c2am.smoothing = numbers.c2am_smoothing
  c2am.transform.min_size = c2am.transform.max_size = numbers.c2am_resize
  config.saliency_priors.crf.confidence = numbers.mask_confidence
  labels = config.affinity_labels
  labels.foreground, labels.background = numbers.foreground, numbers.background
  labels.crf.confidence = numbers.label_confidence
  _set_images(config.affinity, numbers.affinity_images)
  config.pseudo_masks.threshold = numbers.pseudo_threshold


def _set_segmentation(config: PipelineConfig, numbers: _recipes.Numbers) -> None:
  ours = config.segmentation
  ours.epochs, ours.optim.lr = numbers.deeplab_epochs, numbers.deeplab_lr
  ours.optim.momentum, ours.optim.nesterov = numbers.deeplab_momentum, numbers.deeplab_momentum > 0
  ours.batch_size, ours.optim.accumulate = numbers.deeplab_batch, numbers.deeplab_accumulate
  ours.transform.augment, ours.smoothing = numbers.deeplab_augment, numbers.deeplab_smoothing
  ours.model.norm, ours.model.precision = numbers.deeplab_norm, numbers.deeplab_precision
  _set_images(ours, numbers.deeplab_images)
  crf = config.predictions.crf
  crf.steps = numbers.deeplab_crf
  for field, value in dataclasses.asdict(numbers.deeplab_kernel).items():
    setattr(crf, field, value)


def _set_backbones(config: PipelineConfig, numbers: _recipes.Numbers) -> None:
  known = backbones.info(numbers.backbone)
  for training in _base.networks(config):
    training.model.backbone = numbers.backbone
    training.init = known.pretrained
    if training.model.output_stride not in known.output_strides:
      training.model.output_stride = known.output_strides[0]
  if not known.stem_on_layer1_grid:
    config.affinity.model = settings.ModelConfig()
    config.affinity.init = backbones.info(config.affinity.model.backbone).pretrained


def _shrink(config: PipelineConfig, *, backbone: str) -> None:
  """Makes everything as small as shows that it works."""
  config.runtime.workers = 0
  for training in (*_base.networks(config), config.saliency):
    training.model = settings.ModelConfig(
      backbone=backbone,
      output_stride=8,
      # PoolNet alone needs all stages; the programs of fewer are made in half the time.
      last_stage='layer4' if training is config.saliency else 'layer2',
      norm=training.model.norm,
      frozen_stages=training.model.frozen_stages,
    )
    training.init, training.epochs, training.batch_size = '', 1, 2
    training.optim.accumulate, training.eval_every, training.eval_split = 1, 0, ''
    _set_images(training, _recipes.square(32))
  config.priors.splits = config.dataset.train_split, config.dataset.val_split
  config.evaluation.splits = ()
  config.c2am.features, config.c2am.min_hint_mean = ('layer2',), 0.0
  config.affinity.radius, config.affinity.width = 2, 4
  config.saliency.tiny, config.saliency.width = 0, 8
  config.saliency.inference.batch_size = 2
  head = config.segmentation.head
  head.width, head.low_width, head.rates = 16, 8, (1, 2)
  for inference in (config.priors, config.saliency_priors, config.predictions):
    inference.scales, inference.batch_size, inference.max_buckets = (1.0,), 2, 1
    inference.resize_to = min(inference.resize_to, 32)
  config.random_walk.radius, config.random_walk.exp_times = 2, 2
  config.random_walk.batch_size = 2
  for refined in (config.saliency_priors, config.affinity_labels, config.predictions):
    refined.crf.steps = min(refined.crf.steps, 1)
  config.report.images = 2
