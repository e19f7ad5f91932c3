import numpy as np
import pytest

from pnoc_jax.data.streams import pipeline, sampling
from pnoc_jax.optim import optimizer
from pnoc_jax.stages import generator
from pnoc_jax.stages.common import cam_program
from pnoc_jax.updates import pnoc
from tests.updates import full_step

T = full_step.TOTAL


@pytest.fixture
def make(one_device, monkeypatch):
  """Makes a program that compiles nothing, and the keywords of its noc's update."""
  keywords = {}
  original = pnoc.make_noc_update

  def spy(*arguments, **options):
    keywords.update(options)
    return original(*arguments, **options)

  monkeypatch.setattr(pnoc, 'make_noc_update', spy)

  def build(**fields):
    config = full_step.config()
    config.generator.lambda_noc.start = 0.0
    for name, value in fields.items():
      holder = config.generator if hasattr(config.generator, name) else config.generator.optim
      setattr(holder, name, value)
    return full_step.make_program(one_device, config).rates, keywords

  return build


def test_the_loss_without_an_image_is_of_the_images_as_they_are_drawn():
  class Source:
    labels = np.array([[1, 0]] * 9 + [[0, 1]], np.float32)

  config = generator.GeneratorConfig(smoothing=0.0)
  for draw, share in ((sampling.Sampling.UNIFORM, 0.1), (sampling.Sampling.BALANCED, 0.5)):
    config.draw = draw
    examples = pipeline.Examples(Source(), draw=draw)
    found = cam_program._chance(config, examples, None)['loss/cls'](0)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert found == pytest.approx(entropy, rel=1e-6)


def _values(function, steps=T):
  return np.array([float(function(step)) for step in range(steps)])


def test_with_sgd_lambda_noc_is_a_factor_of_the_loss(make):
  rates, keywords = make(rule=optimizer.Rule.SGD, lr=0.1, power=0.9)
  decay = 0.1 * (1 - np.arange(T) / T) ** 0.9
  np.testing.assert_allclose(_values(rates['lr']), decay, rtol=1e-5)
  np.testing.assert_allclose(_values(rates['lr_noc']), decay, rtol=1e-5)
  np.testing.assert_allclose(_values(keywords['lambda_noc']), np.arange(T) / T, rtol=1e-5)
  np.testing.assert_allclose(_values(rates['lambda_noc']), np.arange(T) / T, rtol=1e-5)


@pytest.mark.parametrize('rule', [rule for rule in optimizer.Rule if rule.value != 'sgd'])
def test_with_adaptive_rules_lambda_noc_is_a_factor_of_the_rate(make, rule):
  rates, keywords = make(rule=rule, lr=0.1, power=0.9, noc_lr=0.5)
  decay = 0.1 * (1 - np.arange(T) / T) ** 0.9
  np.testing.assert_allclose(_values(rates['lr']), decay, rtol=1e-5)
  np.testing.assert_allclose(_values(rates['lr_noc']), 0.5 * decay * np.arange(T) / T, rtol=1e-5)
  np.testing.assert_array_equal(_values(keywords['lambda_noc']), 1)
  np.testing.assert_allclose(_values(rates['lambda_noc']), np.arange(T) / T, rtol=1e-5)


def test_noc_every_stretches_the_nocs_schedules(make):
  """With an update of the noc every other step, both ramps still end with the run."""
  rates, keywords = make(noc_every=2, lr=0.1, power=1.0)
  updates = T // 2
  np.testing.assert_allclose(
    _values(keywords['lambda_noc'], updates), np.arange(updates) / updates, rtol=1e-5
  )
  expected = 0.1 * (1 - np.repeat(np.arange(updates) / updates, 2))
  np.testing.assert_allclose(_values(rates['lr_noc']), expected, rtol=1e-5)


def test_accumulation_counts_optimiser_steps_in_rates_and_micro_steps_in_ramps(make):
  rates, keywords = make(accumulate=2, lr=0.1, power=1.0)
  decay = 0.1 * (1 - np.repeat(np.arange(T // 2) / (T // 2), 2))
  np.testing.assert_allclose(_values(rates['lr']), decay, rtol=1e-5)
  np.testing.assert_allclose(_values(rates['lr_noc']), decay, rtol=1e-5)
  np.testing.assert_allclose(_values(keywords['lambda_noc']), np.arange(T) / T, rtol=1e-5)
