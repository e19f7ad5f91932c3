"""The smallest run at all: the toy stage, which trains, makes a file an image and is scored."""

from pnoc_jax.config import PipelineConfig
from tests.stages import toy


def get_config(argument: str | None = None) -> PipelineConfig:
  """The config."""
  del argument
  config = toy.make_class()(name='toy')
  config.dataset.shapes.size = 16
  config.dataset.shapes.train, config.dataset.shapes.val = 16, 6
  config.runtime.log_every, config.runtime.save_every = 1, 2
  config.runtime.tensorboard = False
  config.evaluation.of = ('toy',)
  return config
