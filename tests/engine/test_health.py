"""What looks dead is told once, with what to do, and nothing else is."""

import json

import numpy as np
import pytest

from pnoc_jax.engine import health

LABELS = np.array([[1, 0], [0, 0], [0, 1], [0, 0]], np.float32)


def test_chance_is_the_loss_of_the_best_constant_answer():
  share = np.log(0.25 / 0.75)
  loss = np.mean(np.log1p(np.exp(share)) - LABELS * share)
  assert health.chance(LABELS) == pytest.approx(loss, rel=1e-6)
  others = [np.mean(np.log1p(np.exp(z)) - LABELS * z) for z in (share - 0.3, share + 0.3)]
  assert min(others) > loss


def run(watch, values, key='loss/cls'):
  return [said for i, x in enumerate(values, 1) for said in watch.look(i, {key: x, 'loss/re': 9.0})]


def test_a_classifier_that_knows_the_shares_alone_is_told_of_once():
  value = health.chance(LABELS)
  flat, falling = np.full(30, value), np.linspace(0.69, 0.7 * value, 30)
  (said,) = run(health.Losses('generator', 30, {'loss/cls': lambda step: value}), flat)
  assert said.startswith('generator: loss/cls is 0.562 at step 9 of 30, no lower than')
  assert 'generator.optim.lr' in said and 'generator.init' in said
  assert not run(health.Losses('generator', 100, {'loss/cls': lambda step: value}), falling)
  assert not run(health.Losses('generator', 30, None), flat)


def test_a_noc_is_compared_with_its_ramp():
  watch = health.Losses('generator', 30, {'loss/noc': lambda step: 0.5 * step / 30})
  assert not run(watch, 0.3 * np.arange(30) / 30, 'loss/noc')
  (said,) = run(watch, 0.6 * np.arange(1, 31) / 30, 'loss/noc')
  assert 'it does not judge any more' in said and 'generator.noc_lr' in said


def test_other_losses_are_compared_with_their_start():
  assert run(health.Losses('affinity', 20, {}), np.full(20, 3.0), 'loss/total')
  assert not run(health.Losses('affinity', 20, {}), np.linspace(3, 2, 20), 'loss/total')


@pytest.mark.parametrize('cut', [3, 9, 18])
def test_a_resumed_training_is_told_of_what_an_undisturbed_one_is(cut):
  flat, falling = np.full(20, 3.0), np.r_[np.linspace(3, 1, 10), np.full(10, 1.0)]
  for values in (flat, falling):
    expected = run(health.Losses('affinity', 20, {}), values, 'loss/total')
    told = run(health.Losses('affinity', 20, {}), values[:cut], 'loss/total')
    logged = [{'step': i, 'loss/total': x} for i, x in enumerate(values[:cut], 1)]
    watch = health.Losses('affinity', 20, {}, logged)
    for step in range(cut + 1, 21):
      told += watch.look(step, {'loss/total': values[step - 1]})
    assert told == expected and len(told) == (values is flat)


def test_a_class_without_a_map(tmp_path):
  maps = health.Maps(('cat', 'dog', 'owl'))
  for i in range(12):
    maps.add(np.array([0, 1]), np.stack([np.zeros((4, 4)), np.full((4, 4), float(i == 3))]))
  maps.add(np.array([2]), np.zeros((1, 4, 4)))  # One image is no rule.
  (said,) = maps.told('priors')
  assert said.startswith('priors: the maps of cat are 0 everywhere in all 12 images')
  for _ in range(2):
    health.keep(tmp_path, [said])
  assert json.loads((tmp_path / health.FILE).read_text()) == [said]
