"""Affinity labels: the rules against a loop over pixels, and files that survive being killed."""

import functools
import itertools
import shutil

import jax
import numpy as np
import pytest

from pnoc_jax import types
from pnoc_jax.engine import loop
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products
from pnoc_jax.ops import crf as crf_ops
from pnoc_jax.stages import affinity_labels
from pnoc_jax.stages.common import maps
from tests.stages import contexts, label_maps

PRIORS, NETWORK = maps.Saliency.PRIORS, maps.Saliency.NETWORK


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  return label_maps.write_inputs(tmp_path_factory.mktemp('made'), ('train',))


def _config(saliency=maps.Saliency.NONE, steps=0):
  config = label_maps.make_config()
  ours = config.affinity_labels
  ours.saliency, ours.crf.steps, ours.crf.confidence = saliency, steps, 0.7
  ours.foreground, ours.background = 0.45, 0.3
  return config


def _run(config, inputs, out, **keywords):
  runtime = label_maps.make_runtime(out, **keywords)
  return contexts.run(affinity_labels.STAGE, config, inputs, out, runtime)['images']


def _check(config, inputs, out):
  contexts.check(affinity_labels.STAGE, config, inputs, out, label_maps.make_runtime(out))


def _labels(out):
  return {path.stem: images.read_mask(path) for path in (out / 'train').iterdir()}


def _one_pixel(scores, keys, salient):
  """The rules of one pixel, in words."""
  best = int(np.argmax(scores))
  if salient is None:
    if scores[best] > np.float32(0.45):
      return keys[best + 1]
    return 0 if scores[best] <= np.float32(0.3) else types.VOID
  if not salient:
    return 0
  return keys[best + 1] if scores[best] > np.float32(0.45) else types.VOID


@pytest.mark.parametrize('saliency', list(maps.Saliency), ids=lambda x: x.value)
def test_without_steps_the_labels_are_those_of_the_rules(inputs, tmp_path, saliency):
  assert _run(_config(saliency), inputs, tmp_path) == 3
  found = _labels(tmp_path)
  assert sorted(found) == ['train_0', 'train_1', 'train_3']  # The third has no class.
  met = set()
  for index, (height, width) in enumerate(label_maps.SIZES):
    if not label_maps.PRESENT[index]:
      continue
    keys, high = label_maps.maps_of(index)
    salient = None
    if saliency in (PRIORS, NETWORK):
      directory = inputs['saliency' if saliency is NETWORK else 'saliency_priors']
      grey = images.read_mask(directory / 'train' / f'train_{index}.png')
      salient = grey / np.float32(255) > np.float32(0.3)
    for y, x in itertools.product(range(height), range(width)):
      pixel = None if salient is None else salient[y, x]
      expected = _one_pixel(high[:, y, x].astype(np.float32), keys, pixel)
      assert found[f'train_{index}'][y, x] == expected
    met |= set(np.unique(found[f'train_{index}']).tolist())
  assert met == {0, 1, 2, 3, 4, types.VOID}


def test_both_maps_are_refined_before_the_rules(inputs, tmp_path):
  config = _config(NETWORK, steps=2)
  config.affinity_labels.crf.filter = crf_ops.Filter.EXACT
  _run(config, inputs, tmp_path)
  index = 1
  keys, high = label_maps.maps_of(index)
  image = label_maps.Memory().example(index)['image']

  @functools.partial(jax.jit, static_argnums=1)
  def refine(labels, n):
    unary = crf_ops.label_unary(labels, n, 0.7)
    return crf_ops.dense_crf(unary, image, steps=2, filter=crf_ops.Filter.EXACT).argmax(-1)

  grey = images.read_mask(inputs['saliency'] / 'train' / 'train_1.png')
  salient = (grey / np.float32(255) > np.float32(0.3)).astype(int)
  constant = np.full((1, *salient.shape), 0.45, np.float32)
  winner = np.concatenate([constant, high.astype(np.float32)]).argmax(0)
  refined = np.asarray(refine(salient, 2))
  labels = np.asarray(refine(winner * refined, len(keys)))
  expected = keys[labels]
  expected[(labels == 0) & (refined == 1)] = types.VOID
  np.testing.assert_array_equal(_labels(tmp_path)['train_1'], expected)
  # Both did something.
  assert (refined != salient).any()
  assert (labels != winner * refined).any()


def test_killed_and_resumed_gives_the_same_files(inputs, tmp_path):
  config = _config()
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  _run(config, inputs, whole)
  with pytest.raises(loop.Interrupted):
    _run(config, inputs, parts, stop_after=1)
  assert len(label_maps.read_all(parts)) == 1
  # A file cut short, as a power cut may leave it, is made again.
  (cut,) = (parts / 'train').iterdir()
  cut.write_bytes(cut.read_bytes()[:-5])
  assert _run(config, inputs, parts) == 3
  assert label_maps.read_all(parts) == label_maps.read_all(whole)
  assert _run(config, inputs, parts) == 0


def test_files_that_do_not_fit_are_named_before_anything_is_written(inputs, tmp_path):
  made = {name: tmp_path / name for name in inputs}
  for name, path in inputs.items():
    shutil.copytree(path, made[name])
  first = made['priors'] / 'train' / 'train_0.npz'
  first.write_bytes(first.read_bytes()[:-20])
  other = made['priors'] / 'train' / 'train_3.npz'
  prior = products.read_prior(other)
  products.write_prior(other, prior.keys, prior.low, prior.high, np.zeros(7, np.float32))
  out = tmp_path / 'out'
  with pytest.raises(UserError, match=r'(?s)train_0.*train_3.*7 classes'):
    _run(_config(), made, out)

  made['priors'] = inputs['priors']
  grey = made['saliency'] / 'train' / 'train_1.png'
  images.write_png(grey, np.zeros((32, 25), np.uint8))
  with pytest.raises(UserError, match=r'train_1.*25x32 px.*26x32'):
    _run(_config(NETWORK), made, out)
  # The check before the run says so, too, and passes over what is not there yet.
  with pytest.raises(UserError, match='train_1'):
    _check(_config(NETWORK), {'saliency': made['saliency']}, out)
  _check(_config(PRIORS), {'saliency': made['saliency']}, out)
  assert not out.exists()


def test_needs_and_faults_follow_the_saliency():
  assert affinity_labels.STAGE.needs(_config()) == ('priors',)
  assert affinity_labels.STAGE.needs(_config(PRIORS)) == ('priors', 'saliency_priors')
  assert affinity_labels.STAGE.needs(_config(NETWORK)) == ('priors', 'saliency')
  config = _config()
  ours = config.affinity_labels
  ours.background, ours.crf.confidence = 0.5, 0.0
  assert len(affinity_labels.STAGE.faults(config)) == 2
  ours.saliency = NETWORK
  assert len(affinity_labels.STAGE.faults(config)) == 1


def test_the_split_that_is_learnt_from_must_have_priors(tmp_path):
  config = _config()
  config.priors.splits = ('val',)
  with pytest.raises(UserError, match=r'priors\.splits'):
    _check(config, {}, tmp_path)
