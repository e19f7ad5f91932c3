"""Every option of a training is reached by its flag and does what it says."""

import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from ml_collections import config_flags

from pnoc_jax import config as config_lib
from pnoc_jax import states
from pnoc_jax.data import info
from pnoc_jax.data.augment import mixing, transforms
from pnoc_jax.data.readers import shapes
from pnoc_jax.data.streams import pipeline, sampling
from pnoc_jax.engine import measure, networks, programs, settings
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.errors import UserError
from pnoc_jax.io import checkpoints, weights
from pnoc_jax.losses import forward, puzzle
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.ops import erase
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages import classifier as classifier_stage
from pnoc_jax.stages import generator as generator_stage
from pnoc_jax.stages.common import cam_program, meters
from pnoc_jax.updates import pnoc
from tests.stages import contexts
from tests.updates import full_step

SOURCE = shapes.ShapesSource(info.ShapesConfig(size=16, train=12), 'train')
PARAMS = {
  'backbone': {'kernel': jnp.array([1.0, -2.0, 0.5]), 'bias': jnp.array([0.3])},
  'classifier': {'kernel': jnp.array([[0.1, 0.7]])},
}
GRADS = jax.tree.map(lambda x: 3 * jnp.cos(x), PARAMS)
RATES = {'backbone': {'kernel': 0.01, 'bias': 0.02}, 'classifier': {'kernel': 0.1}}
DECAYS = {'backbone': {'kernel': 0.1, 'bias': 0.0}, 'classifier': {'kernel': 0.1}}


def _parsed(*words: str) -> config_lib.PipelineConfig:
  """The config that a command line gives."""
  argv, known = ['run', *(f'--config.{word}' for word in words)], flags.FlagValues()
  with mock.patch.object(sys, 'argv', argv):
    holder = config_flags.DEFINE_config_dataclass(
      'config', config_lib.PipelineConfig(), flag_values=known
    )
    known(argv)
  config_lib.validate(holder.value)
  return holder.value


@pytest.mark.parametrize(
  ('rule', 'oracle'),
  [
    ('sgd', lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.sgd(lr))),
    ('adam', lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.adam(lr))),
    ('adamw', lambda lr, decay: optax.adamw(lr, weight_decay=decay)),
    ('lion', lambda lr, decay: optax.lion(lr, weight_decay=decay)),
    ('lamb', lambda lr, decay: optax.lamb(lr, weight_decay=decay)),
  ],
)
def test_each_rule_is_a_flag_and_takes_the_step_of_optax(rule, oracle):
  """The four groups, each as a parameter on its own; the clipped norm is that of all of them."""
  config = _parsed(
    f'generator.optim.rule={rule}',
    'generator.optim.weight_decay=0.1',
    'generator.optim.clip_norm=0.5',
  )
  groups = programs.field_groups(config.generator)
  tx, _ = programs.make_optimizer(config.generator.optim, PARAMS, 10, groups=groups)
  updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(GRADS)))
  assert norm > 0.5

  def expected(param, grad, rate, decay):
    tx = oracle(rate, decay)
    return tx.update(grad * 0.5 / norm, tx.init(param), param)[0]

  wanted = jax.tree.map(expected, PARAMS, GRADS, RATES, DECAYS)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), updates, wanted)


def test_the_moving_average_is_a_flag_and_moves_with_the_optimiser():
  config = _parsed('classifier.optim.ema=0.5', 'classifier.optim.accumulate=2')
  update = programs.make_update_ema(config.classifier.optim)
  average, params = {'w': jnp.zeros(2)}, {'w': jnp.ones(2)}
  path = []
  for step in range(4):
    average = update(average, params, jnp.int32(step))
    path.append(float(average['w'][0]))
  first = 1 - 1 / 10
  np.testing.assert_allclose(path, [0, first, first, 1 - (1 - first) * 2 / 11], rtol=1e-6)
  assert programs.make_update_ema(settings.OptimConfig()) is None


def _small(config: config_lib.PipelineConfig, mesh: jax.sharding.Mesh, workdir: pathlib.Path):
  """Gives both classification networks a small net; returns a runtime whose images are SOURCE."""
  for training in (config.classifier, config.generator):
    training.model = full_step.config().classifier.model
    training.batch_size = 4
  runtime = Runtime(workdir, mesh, mesh, RuntimeConfig(tensorboard=False))
  runtime.source = lambda *_: SOURCE
  return runtime


@pytest.fixture
def drawn(monkeypatch):
  """Nothing is drawn by compiled programs, nor read: networks begin with NumPy's draws."""
  monkeypatch.setattr(networks, 'first_variables', full_step.first_variables)
  monkeypatch.setattr(
    networks, 'load', lambda model, dataset, _: full_step.drawn(model, dataset, seed=0)
  )


def _interrupted(entry, config, runtime):
  """Runs a stage that a spy ends."""
  inputs = {'classifier': runtime.workdir}
  with pytest.raises(InterruptedError):
    contexts.run(entry, config, inputs, runtime.workdir, runtime)


def test_mixing_drawing_and_tones_are_flags_that_reach_the_stream(
  monkeypatch, drawn, one_device, tmp_path
):
  config = _parsed(
    'seed=5',
    'classifier.mix.kind=cut_or_mix',
    'classifier.mix.beta=0.4',
    'classifier.draw=balanced',
    'classifier.transform.tones=quantile_clahe',
  )
  seen = {}

  def spy(examples, transform, **options):
    seen.update(options, examples=examples, transform=transform)
    raise InterruptedError

  monkeypatch.setattr(pipeline, 'train_batches', spy)
  monkeypatch.setattr(compiler, 'jit', lambda *_, **__: lambda *_: None)
  restored = checkpoints.Restored(7, None, {})
  monkeypatch.setattr(checkpoints.Checkpoints, 'restore_latest', lambda *_: restored)
  _interrupted(classifier_stage.STAGE, config, _small(config, one_device, tmp_path))
  assert seen['transform'].tones is transforms.Tones.QUANTILE_CLAHE
  assert seen['examples'].mix == mixing.MixConfig(kind=mixing.Mix.CUT_OR_MIX, beta=0.4)
  assert seen['examples'].draw is sampling.Sampling.BALANCED
  assert (seen['seed'], seen['start_step']) == (5, 7)


def test_a_mixing_that_cannot_work_is_named():
  with pytest.raises(UserError, match=r'generator\.mix\.beta is 0\.0; it must be positive'):
    _parsed('generator.mix.beta=0')
  with pytest.raises(UserError, match=r'classifier\.mix\.cutmix_probability is 1\.5'):
    _parsed('classifier.mix.cutmix_probability=1.5')


def test_class_weights_are_a_flag_and_reach_all_losses(monkeypatch, drawn, one_device, tmp_path):
  config = _parsed('classifier.class_weight=balanced', 'generator.class_weight=balanced')
  factors = sampling.class_weights(SOURCE.labels)
  plain = config_lib.PipelineConfig().generator.terms(SOURCE)
  assert factors.min() < 0.9 and plain.class_weight is None
  seen = []

  def spy(*_, terms, **__):
    seen.append(terms.class_weight)
    raise InterruptedError

  runtime = _small(config, one_device, tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(pnoc, 'make_generator_update', spy)
    for entry in (classifier_stage.STAGE, generator_stage.STAGE):
      _interrupted(entry, config, runtime)
  monkeypatch.setattr(pnoc, 'make_noc_update', spy)
  _interrupted(generator_stage.STAGE, config, runtime)
  np.testing.assert_array_equal(seen, [factors, factors, factors])


def test_the_generators_losses_are_flags(monkeypatch, drawn, one_device, tmp_path):
  flags = ('soft_mask=image', 'level=cam', 'distance=l2', 'selection=none', 'lambda_conf=0.5')
  flags += ('lambda_area=0.25', 'noc_views=contrast')
  config = _parsed(*(f'generator.{flag}' for flag in flags))
  seen = []

  def spy(*_, terms, **__):
    seen.append(terms)
    raise InterruptedError

  monkeypatch.setattr(pnoc, 'make_generator_update', spy)
  _interrupted(generator_stage.STAGE, config, _small(config, one_device, tmp_path))
  (terms,) = seen
  assert terms.soft_mask is erase.Over.IMAGE
  assert terms.lambda_conf == 0.5
  assert terms.lambda_area == 0.25
  assert terms.noc_views is losses.Views.CONTRAST
  assert terms.reconstruct.keywords == {
    'level': puzzle.Level.CAM,
    'distance': puzzle.Distance.L2,
    'selection': puzzle.Selection.NONE,
  }


@pytest.mark.parametrize('largest', [64, 96])
def test_measurements_squeeze_images_where_the_training_does(
  monkeypatch, one_device, tmp_path, largest
):
  flags = ('min_size=64', f'max_size={largest}', 'tones=clahe')
  config = _parsed(*(f'generator.transform.{flag}' for flag in flags))
  seen = []

  def spy(*_, squeeze, tones, **__):
    seen.append((squeeze, tones.value))
    raise InterruptedError

  monkeypatch.setattr(pipeline, 'valid_batches', spy)
  runtime = _small(config, one_device, tmp_path)
  meter = meters.CamMeter(None, SOURCE.info)
  measured = measure.make_measure(meter, SOURCE, config.generator, runtime)
  with pytest.raises(InterruptedError):
    measured(1, {})
  assert seen == [(largest == 64, 'clahe')]


@pytest.mark.parametrize('method', ['vanilla', 'pnoc'])
@pytest.mark.parametrize('start', ['classifier', 'pretrained'])
def test_the_generator_starts_where_its_flag_says(monkeypatch, one_device, tmp_path, method, start):
  config = _parsed(f'generator.method={method}', f'generator.start={start}')
  seen = []

  def spy(_, __, variables, *___):
    seen.append(variables)
    raise InterruptedError

  monkeypatch.setattr(networks, 'first_variables', lambda *_: None)
  monkeypatch.setattr(networks, 'load', lambda _, __, directory: directory)
  monkeypatch.setattr(cam_program, 'make_program', spy)
  _interrupted(generator_stage.STAGE, config, _small(config, one_device, tmp_path))
  assert seen == [tmp_path if start == 'classifier' else None]
  needed = (method, start) != ('vanilla', 'pretrained')
  assert generator_stage.STAGE.needs(config) == (('classifier',) if needed else ())
  assert ('from the classifier' in generator_stage.STAGE.describe(config, SOURCE)) == (
    start == 'classifier'
  )


def test_a_start_from_a_stage_takes_its_head_too(monkeypatch, one_device, tmp_path):
  config, seen = config_lib.PipelineConfig(), []
  runtime = _small(config, one_device, tmp_path)
  model = networks.build(config.classifier.model, SOURCE.info.num_classes)
  variables = full_step.drawn(model, SOURCE.info, seed=9)
  weights.save(tmp_path / 'classifier', variables, meta={'arch': 'resnest_tiny'})

  def spy(_, __, variables, *___):
    seen.append(variables)
    raise InterruptedError

  monkeypatch.setattr(networks, 'first_variables', None)
  monkeypatch.setattr(cam_program, 'make_program', spy)
  inputs = {'classifier': tmp_path / 'classifier'}
  config.generator.start = generator_stage.NetworkStart.CLASSIFIER
  with pytest.raises(InterruptedError):
    contexts.run(generator_stage.STAGE, config, inputs, tmp_path, runtime)
  (found,) = seen
  jax.tree.map(np.testing.assert_array_equal, found, variables)
  assert np.abs(found['params']['classifier']['kernel']).max() > 0


def test_a_weighted_update_has_the_weighted_loss(monkeypatch):
  rng = np.random.default_rng(0)
  cam, weight = rng.normal(size=(2, 4, 4, 3)).astype(np.float32), jnp.array([0.5, 2.0, 0.5])
  label = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
  monkeypatch.setattr(forward, 'train', lambda _, params, stats, x: (x + params, stats))
  tx, terms = optax.sgd(0.1), losses.Terms(class_weight=weight)
  state = states.init_state({'params': jnp.zeros(3), 'batch_stats': {}}, tx)
  update = pnoc.make_generator_update(None, None, tx, lambda_re=None, lambda_cse=None, terms=terms)
  found = update(state, None, None, {'image': cam, 'label': label}, jax.random.key(0))
  each = np.logaddexp(0, cam.mean((1, 2)) * (1 - 2 * label))
  np.testing.assert_allclose(found.metrics['loss/cls'], (each * weight).mean(), rtol=1e-5)
