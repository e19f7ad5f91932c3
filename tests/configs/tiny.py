"""The smallest run that has every stage: 24 images of 32 px, two stages of ResNeSt-tiny."""

from pnoc_jax import config as config_lib
from pnoc_jax.data import transforms
from pnoc_jax.optim import optimizer


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The config."""
  del argument
  config = config_lib.PipelineConfig(name='tiny')
  config.dataset.shapes.size = 32
  config.dataset.shapes.train, config.dataset.shapes.val = 24, 8
  for training in (config.classifier, config.generator):
    training.model.backbone = 'resnest_tiny'
    training.model.output_stride = 8
    training.model.last_stage = 'layer1'
    training.batch_size = 8
    training.eval_every = 0
    training.optim.rule = optimizer.Rule.ADAM
    training.optim.lr = 1e-3
    training.transform.min_size = training.transform.max_size = training.transform.crop = 32
    training.transform.shift = 2
    training.transform.augment = transforms.Augment.LIGHT
  config.classifier.epochs = 1
  config.classifier.eval_every = 1
  config.classifier.eval_size = 32
  config.generator.epochs = 4
  config.priors.scales = (1.0,)
  config.report.images = 2
  config.runtime.log_every = 1
  config.runtime.save_every = 3
  config.runtime.tensorboard = False
  return config
