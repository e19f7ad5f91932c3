"""The classifier that judges erased images hands the gradient through to the mask."""

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.engine import settings
from pnoc_jax.nn import layers
from pnoc_jax.stages.common import cam_program


def test_frozen_stages_of_the_classifier_do_not_stop_the_gradient_to_the_erased_image():
  config = settings.ModelConfig(
    backbone='resnest_tiny', output_stride=8, last_stage='layer1', frozen_stages=2
  )
  judge = cam_program.judge_model(config, 3)
  image = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  variables = judge.init(jax.random.key(1), image)

  grad = jax.grad(lambda x: judge.apply(variables, x, train=False).sum())(image)

  assert np.abs(np.asarray(grad)).max() > 1e-3
  assert config.frozen_stages == 2


def test_the_judge_never_moves_its_running_statistics():
  config = settings.ModelConfig(backbone='resnest_tiny', output_stride=8, last_stage='layer1')
  judge = cam_program.judge_model(config, 3)
  assert judge.backbone.options.norm is layers.Norm.FROZEN
  image = 3.0 + jnp.ones((2, 16, 16, 3))
  variables = judge.init(jax.random.key(1), image)
  _, mutated = judge.apply(variables, image, train=True, mutable=['batch_stats'])
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), variables['batch_stats'], mutated['batch_stats']
  )
  assert max(jax.tree.leaves(moved)) == 0.0
