"""The smallest run that has every stage: 24 images of 32 px, two stages of ResNeSt-tiny."""

from pnoc_jax import config as config_lib
from pnoc_jax.data.augment import transforms
from pnoc_jax.engine import settings
from pnoc_jax.optim import optimizer
from pnoc_jax.stages.common import maps


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The config."""
  del argument
  config = config_lib.PipelineConfig(name='tiny')
  config.dataset.shapes.size = 32
  config.dataset.shapes.train, config.dataset.shapes.val = 24, 8
  following = (config.c2am, config.saliency, config.affinity, config.segmentation)
  for training in (config.classifier, config.generator, *following):
    training.model.backbone = 'resnest_tiny'
    training.model.output_stride = 8
    training.model.last_stage = 'layer1'
    training.batch_size = 8
    training.eval_every = 0
    training.eval_size = 32
    training.optim.rule = optimizer.Rule.ADAM
    training.optim.lr = 1e-3
    training.optim.accumulate = 1
    training.transform = transforms.TransformConfig(
      min_size=32, max_size=32, crop=32, shift=2, augment=transforms.Augment.LIGHT
    )
  for training in following:
    training.epochs = 2
    training.start = settings.BackboneStart.GENERATOR
  config.classifier.epochs = 1
  config.classifier.eval_every = 1
  config.generator.epochs = 4
  config.generator.eval_every = 2
  for inference in (config.priors, config.saliency_priors, config.predictions):
    inference.scales = (1.0,)
  _refine(config)
  config.segmentation.start = settings.BackboneStart.CLASSIFIER
  config.segmentation.head.width = config.segmentation.head.low_width = 4
  config.segmentation.head.rates = (1,)
  config.predictions.voc_server = True
  config.evaluation.of = config_lib.SCORED
  config.evaluation.crf_splits = ('val',)
  config.report.images = 2
  config.runtime.log_every = 1
  config.runtime.save_every = 3
  config.runtime.tensorboard = False
  return config


def _refine(config: config_lib.PipelineConfig) -> None:
  config.c2am.features = ('layer1',)
  # A few steps teach nothing.
  config.c2am.min_hint_mean = 0.0
  # PoolNet reads all of a backbone, which the generator does not have.
  config.saliency.start = settings.BackboneStart.PRETRAINED
  config.saliency.model.last_stage = 'layer4'
  config.saliency.width, config.saliency.tiny = 2, 0
  config.saliency.transform.resize, config.saliency.transform.shift = transforms.Resize.NONE, 0
  config.affinity_labels.saliency = maps.Saliency.NETWORK
  config.affinity.radius, config.affinity.width = 3, 4
  config.affinity.transform.augment = transforms.Augment.NONE
  config.random_walk.radius, config.random_walk.exp_times = 3, 2
  # All the same: they share their programs.
  refined = (config.saliency_priors, config.affinity_labels, config.pseudo_masks, config.evaluation)
  for stage in refined:
    stage.crf.steps, stage.crf.confidence = 2, 0.7
