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
from pnoc_jax.engine import cam_training, networks, settings, trainer
from pnoc_jax.engine.runtime import RuntimeConfig
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.losses import puzzle
from pnoc_jax.metrics import classification
from pnoc_jax.ops import erase
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages import classifier as classifier_stage
from pnoc_jax.stages import generator as generator_stage
from pnoc_jax.updates import classifier, pnoc
from tests.updates import full_step

SOURCE = shapes.ShapesSource(info.ShapesConfig(size=16, train=12), 'train')
PARAMS = {
  'backbone': {'kernel': jnp.array([1.0, -2.0, 0.5]), 'bias': jnp.array([0.3])},
  'classifier': {'kernel': jnp.array([[0.1, 0.7]])},
}
GRADS = jax.tree.map(lambda x: 3 * jnp.cos(x), PARAMS)
SCORES = ('map', 'precision', 'recall', 'f1', 'roc_auc')
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
  optim = config.generator.optim
  tx, _ = trainer.make_optimizer(optim, PARAMS, total=10)
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
  update = trainer.make_update_ema(config.classifier.optim)
  average, params = {'w': jnp.zeros(2)}, {'w': jnp.ones(2)}
  path = []
  for step in range(4):
    average = update(average, params, jnp.int32(step))
    path.append(float(average['w'][0]))
  first = 1 - 1 / 10
  np.testing.assert_allclose(path, [0, first, first, 1 - (1 - first) * 2 / 11], rtol=1e-6)
  assert trainer.make_update_ema(settings.OptimConfig()) is None


def test_mixing_drawing_and_tones_are_flags_that_reach_the_stream(monkeypatch):
  config = _parsed(
    'classifier.mix.kind=cut_or_mix',
    'classifier.mix.beta=0.4',
    'classifier.draw=balanced',
    'classifier.transform.tones=quantile_clahe',
  )
  config.classifier.eval_every, config.classifier.batch_size = 0, 4
  seen = {}
  monkeypatch.setattr(pipeline, 'train_batches', lambda *given, **options: (given, options))
  # The batches' maker is the third argument; its argument the first step.
  monkeypatch.setattr(trainer, 'run', lambda *given, **_: seen.update(stream=given[2](7)))
  cam_training.train(
    None,
    None,
    config.classifier,
    SOURCE,
    pathlib.Path(),
    mock.Mock(config=RuntimeConfig()),
    seed=5,
    name='classifier',
    model=None,
    rates={},
  )
  (_, transform), options = seen['stream']
  assert transform.tones is transforms.Tones.QUANTILE_CLAHE
  assert options['mix'] == mixing.MixConfig(kind=mixing.Mix.CUT_OR_MIX, beta=0.4)
  assert options['draw'] is sampling.Sampling.BALANCED
  assert (options['seed'], options['start_step']) == (5, 7)


def test_a_mixing_that_cannot_work_is_named():
  with pytest.raises(UserError, match=r'generator\.mix\.beta is 0\.0; it must be positive'):
    _parsed('generator.mix.beta=0')
  with pytest.raises(UserError, match=r'classifier\.mix\.cutmix_probability is 1\.5'):
    _parsed('classifier.mix.cutmix_probability=1.5')


def test_class_weights_are_a_flag_and_reach_both_losses(monkeypatch, one_device):
  config = _parsed('classifier.class_weight=balanced', 'generator.class_weight=balanced')
  factors = sampling.class_weights(SOURCE.labels)
  assert (
    factors.min() < 0.9 and cam_training.class_weight(settings.CamTrainingConfig(), SOURCE) is None
  )
  seen = []

  def spy(*_, class_weight, **__):
    seen.append(class_weight)
    raise InterruptedError

  monkeypatch.setattr(networks, 'first_variables', full_step.drawn)
  monkeypatch.setattr(networks, 'load', lambda *_: None)
  monkeypatch.setattr(compiler, 'jit', lambda *_, **__: lambda *_: None)
  monkeypatch.setattr(classifier, 'make_classifier_update', spy)
  monkeypatch.setattr(pnoc, 'make_generator_update', spy)
  runtime = mock.Mock(mesh=one_device, source=lambda *_: SOURCE)
  for training in (config.classifier, config.generator):
    training.model = full_step.config().classifier.model
    training.batch_size = 4
  for run in (classifier_stage.run, generator_stage.run):
    with pytest.raises(InterruptedError):
      run(config, {'classifier': pathlib.Path()}, pathlib.Path(), runtime)
  np.testing.assert_array_equal(seen, [factors, factors])


def test_the_generators_losses_are_flags(monkeypatch, one_device):
  flags = ('soft_mask=image', 'level=cam', 'distance=l2', 'selection=none', 'lambda_conf=0.5')
  config = _parsed(*(f'generator.{flag}' for flag in flags))
  seen = {}

  def spy(*_, **options):
    seen.update(options)
    raise InterruptedError

  monkeypatch.setattr(networks, 'first_variables', full_step.drawn)
  monkeypatch.setattr(networks, 'load', lambda *_: None)
  monkeypatch.setattr(pnoc, 'make_generator_update', spy)
  runtime = mock.Mock(mesh=one_device, source=lambda *_: SOURCE)
  config.generator.model = full_step.config().classifier.model
  config.generator.batch_size = 4
  with pytest.raises(InterruptedError):
    generator_stage.run(config, {'classifier': pathlib.Path()}, pathlib.Path(), runtime)
  assert seen['soft_mask'] is erase.Over.IMAGE
  assert seen['w_conf'] == 0.5
  assert seen['reconstruct'].keywords == {
    'level': puzzle.Level.CAM,
    'distance': puzzle.Distance.L2,
    'selection': puzzle.Selection.NONE,
  }


@pytest.mark.parametrize('largest', [64, 96])
def test_measurements_squeeze_images_where_the_training_does(monkeypatch, one_device, largest):
  config = _parsed('generator.transform.min_size=64', f'generator.transform.max_size={largest}')
  seen = []

  def spy(*_, squeeze, **__):
    seen.append(squeeze)
    return iter(())

  monkeypatch.setattr(pipeline, 'valid_batches', spy)
  monkeypatch.setattr(classification, 'score', lambda _: dict.fromkeys(SCORES))
  runtime = mock.Mock(local_mesh=one_device)
  cam_training.make_measure(None, SOURCE, config.generator, runtime)({})
  assert seen == [largest == 64]


@pytest.mark.parametrize('method', ['vanilla', 'pnoc'])
@pytest.mark.parametrize('start', ['classifier', 'pretrained'])
def test_the_generator_starts_where_its_flag_says(monkeypatch, one_device, method, start):
  config = _parsed(f'generator.method={method}', f'generator.start={start}')
  seen = []

  def spy(*_, start, **__):
    seen.append(start)
    raise InterruptedError

  monkeypatch.setattr(cam_training, 'first_variables', spy)
  monkeypatch.setattr(networks, 'load', lambda *_: None)
  runtime = mock.Mock(mesh=one_device, source=lambda *_: SOURCE)
  config.generator.model = full_step.config().classifier.model
  config.generator.batch_size = 4
  there = pathlib.Path('classifier')
  with pytest.raises(InterruptedError):
    generator_stage.run(config, {'classifier': there}, pathlib.Path(), runtime)
  assert seen == [there if start == 'classifier' else None]
  needed = (method, start) != ('vanilla', 'pretrained')
  assert generator_stage.STAGE.needs(config) == (('classifier',) if needed else ())
  assert ('from the classifier' in generator_stage.STAGE.describe(config, SOURCE)) == (
    start == 'classifier'
  )


def test_a_start_from_a_stage_takes_its_head_too(monkeypatch, one_device, tmp_path):
  ours = full_step.config().generator
  model = networks.build(ours.model, full_step.CLASSES)
  variables = full_step.drawn(model, full_step.DATASET, one_device, seed=9)
  weights.save(tmp_path, variables, meta={'arch': 'resnest_tiny'})
  monkeypatch.setattr(networks, 'first_variables', None)
  runtime = mock.Mock(mesh=one_device)
  found = cam_training.first_variables(
    model, full_step.DATASET, ours, runtime, seed=0, name='generator', start=tmp_path
  )
  jax.tree.map(np.testing.assert_array_equal, found, variables)
  assert np.abs(found['params']['classifier']['kernel']).max() > 0


def test_a_weighted_update_has_the_weighted_loss(monkeypatch):
  rng = np.random.default_rng(0)
  cam, weight = rng.normal(size=(2, 4, 4, 3)).astype(np.float32), jnp.array([0.5, 2.0, 0.5])
  label = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
  monkeypatch.setattr(classifier, 'train_forward', lambda _, params, stats, x: (x + params, stats))
  tx = optax.sgd(0.1)
  state = states.init_state({'params': jnp.zeros(3), 'batch_stats': {}}, tx)
  update = classifier.make_classifier_update(None, tx, class_weight=weight)
  _, metrics = update(state, {'image': cam, 'label': label})
  terms = np.logaddexp(0, cam.mean((1, 2)) * (1 - 2 * label))
  np.testing.assert_allclose(metrics['loss/cls'], (terms * weight).mean(), rtol=1e-5)
