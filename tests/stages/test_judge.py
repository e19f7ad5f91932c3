"""The classifier that judges erased images hands the gradient through to the mask."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from pnoc_jax.engine import settings
from pnoc_jax.nn import layers
from pnoc_jax.stages.common import cam_program, stage
from tests.configs import tiny
from tests.stages import contexts


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


def _sums_over_maps(program: str, *, leak: bool, mesh) -> int:
  """How many sums [B, H, W, C] -> [C] a program of P-NOC with two micro-steps needs."""
  config = settings.override(
    tiny.get_config(), {'generator.optim.accumulate': 2, 'generator.leak_noc_grad': leak}
  )
  (entry,) = (x for x in stage.stages(config) if x.name == 'generator')
  (call,) = (x for x in entry.programs(contexts.nowhere(entry, config, mesh)) if x.name == program)
  jaxpr = call.compiled.trace(*call.arguments).jaxpr.jaxpr
  return _count(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _count(jaxpr) -> int:
  total = 0
  for operation in jaxpr.eqns:
    inner = [getattr(x, 'jaxpr', x) for x in jax.tree.leaves(operation.params, is_leaf=_is_jaxpr)]
    total += sum(_count(x) for x in inner if hasattr(x, 'eqns'))
    if operation.primitive.name == 'reduce_sum' and operation.params['axes'] == (0, 1, 2):
      total += math.prod(operation.invars[0].aval.shape[1:3]) > 1
  return total


def _is_jaxpr(x) -> bool:
  return hasattr(x, 'jaxpr') or hasattr(x, 'eqns')


def test_gradients_that_nobody_needs_are_not_computed(mesh):
  """Scale and bias of the noc's normalisation do not learn: an eighth of its update's traffic."""
  assert _sums_over_maps('noc', leak=False, mesh=mesh) == 0
  assert _sums_over_maps('noc', leak=True, mesh=mesh) == 0
  without = _sums_over_maps('generator', leak=False, mesh=mesh)
  assert without > 0
  assert _sums_over_maps('generator', leak=True, mesh=mesh) == without


def test_a_network_without_batch_normalisation_can_be_the_noc(mesh):
  """A ViT has none, so there is none to freeze."""
  config = tiny.get_config()
  for training in (config.classifier, config.generator):
    training.model.backbone, training.model.output_stride = 'vit_tiny_patch16_224', 16
  (entry,) = (x for x in stage.stages(config) if x.name == 'generator')
  found = entry.programs(contexts.nowhere(entry, config, mesh))
  assert [call.name for call in found] == ['generator', 'noc']
  for call in found:
    call.compiled.trace(*call.arguments)
