"""C2AM-H from priors to masks, interrupted on the way; and which part is the foreground."""

import copy
import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax import trees
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import loop, networks
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products, records, weights
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.ops import crf as crf_ops
from pnoc_jax.stages import c2am, saliency_priors
from pnoc_jax.stages.common import polarity as polarities
from pnoc_jax.stages.common.polarity import polarity
from tests.stages import contexts
from tests.updates import full_step

SPLIT = 'train'


class Runtime(Runtime):
  """Its sources' first image has no label."""

  def source(self, config, split, *, without=frozenset()):
    source = super().source(config, split, without=without)
    source.labels = source.labels.copy()
    source.labels[0] = 0
    return source


def _config():
  config = config_lib.PipelineConfig()
  config.dataset.shapes.size, config.dataset.shapes.train = 32, 17
  config.priors.splits = (SPLIT,)
  config.runtime.log_every, config.runtime.save_every = 1, 2
  config.runtime.tensorboard = False
  ours = config.c2am
  ours.model.backbone, ours.model.output_stride = 'resnest_tiny', 8
  ours.model.last_stage, ours.features = 'layer1', ('layer1',)
  ours.batch_size, ours.epochs, ours.eval_size, ours.eval_every = 4, 2, 32, 2
  ours.optim.lr, ours.optim.accumulate = 0.1, 1
  ours.transform = transforms.TransformConfig(
    min_size=32, max_size=32, crop=32, shift=2, augment=transforms.Augment.LIGHT
  )
  ours.min_hint_mean = 0.0
  config.saliency_priors.scales, config.saliency_priors.batch_size = (1.0, 1.5), 4
  config.saliency_priors.crf.steps = 2
  config.saliency_priors.crf.filter = crf_ops.Filter.EXACT
  return config


def _stops(after: int):
  """`should_stop` that says yes from its n-th question on."""
  asked = []

  def stop():
    asked.append(0)
    return len(asked) > after

  return stop


def _runtime(workdir, mesh, config, *, stop=lambda: False):
  return Runtime(workdir, mesh, mesh, config.runtime, should_stop=stop)


def _products(directory: pathlib.Path):
  """{path: bytes} of what the next stage reads."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in sorted(directory.rglob('*'))
    if path.is_file() and path.suffix in ('.png', '.npz') and 'checkpoints' not in str(path)
  }


@pytest.fixture(scope='module')
def run(tmp_path_factory, one_device):
  """An uninterrupted run on priors that are the masks: (config, directory, what c2am found)."""
  root, config = tmp_path_factory.mktemp('run'), _config()
  runtime = _runtime(root, one_device, config)
  source = runtime.source(config.dataset, SPLIT)
  for index in np.flatnonzero(source.labels.any(axis=1)):
    found, mask = np.flatnonzero(source.labels[index]), source.mask(index)
    high = np.stack([mask == k + 1 for k in found]).astype(np.float16)
    products.write_prior(
      root / 'priors' / SPLIT / f'{source.ids[index]}.npz',
      keys=np.array([0, *(found + 1)], np.int32),
      low=high[:, ::4, ::4].astype(np.float32),
      high=high,
      logits=np.zeros(source.labels.shape[1], np.float32),
    )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(networks, 'first_variables', full_step.first_variables)
    where = config, {'priors': root / 'priors'}, root / 'c2am', runtime
    contexts.check(c2am.STAGE, *where)
    facts = contexts.run(c2am.STAGE, *where)
    where = config, {'c2am': root / 'c2am'}, root / 'saliency_priors', runtime
    contexts.check(saliency_priors.STAGE, *where)
    contexts.run(saliency_priors.STAGE, *where)
  return config, root, facts


def test_c2amh_learns_from_its_hints_and_says_so(run):
  _, root, facts = run
  rows = records.read_jsonl(root / 'c2am' / 'metrics.jsonl')
  losses = [row['loss/hint'] for row in rows if 'loss/hint' in row]
  assert len(losses) == 8
  assert losses[-1] < losses[0]
  assert 0.2 < rows[0]['share/hinted'] < 0.5
  assert [row['step'] for row in rows if 'eval/miou' in row] == [8]
  meta = weights.load_meta(root / 'c2am')
  assert meta['inverted'] is False
  assert meta['arch'] == 'resnest_tiny'
  assert {name: meta[name] for name in facts} == facts
  assert 0 < facts['border_mean'] < 1
  assert 0 < facts['hint_mean'] < 1


def test_four_of_eight_devices_learn_as_one(run, mesh, one_device, tmp_path, monkeypatch):
  config, root, _ = run
  # A large rate multiplies what sums in another order differ by.
  config = copy.deepcopy(config)
  config.c2am.optim.lr /= 10
  monkeypatch.setattr(networks, 'first_variables', full_step.first_variables)
  facts, trained = [], []
  for name, devices in (('four', mesh), ('one', one_device)):
    out = tmp_path / name
    where = config, {'priors': root / 'priors'}, out, _runtime(out, devices, config)
    contexts.check(c2am.STAGE, *where)
    facts.append(contexts.run(c2am.STAGE, *where))
    trained.append(trees.flatten_names(weights.load(out)[0]))
  assert facts[0] == pytest.approx(facts[1], rel=1e-5)
  found, expected = trained
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_masks_are_the_maps_above_the_threshold(run, one_device, tmp_path):
  config, root, _ = run
  runtime = _runtime(tmp_path, one_device, config)
  source = runtime.source(config.dataset, SPLIT)
  directory = root / 'saliency_priors'
  assert len(_products(directory / 'maps')) == 16
  for index, name in enumerate(source.ids):
    mask = images.read_mask(directory / SPLIT / f'{name}.png')
    assert mask.shape == (32, 32)
    assert set(np.unique(mask)) <= {0, 255}
    if not index:  # No label, no foreground.
      assert not mask.any()
      continue
    found = images.read_mask(saliency_priors.map_path(directory, SPLIT, name))
    assert found.max() >= 254  # Over its own maximum.
  # Without the CRF a mask is the map's comparison with theta.
  shutil.copytree(directory / 'maps', tmp_path / 'maps')
  plain = _config()
  plain.saliency_priors.crf.steps, plain.saliency_priors.threshold = 0, 0.6
  contexts.run(saliency_priors.STAGE, plain, {'c2am': root / 'c2am'}, tmp_path, runtime)
  for name in source.ids[1:]:
    found = images.read_mask(saliency_priors.map_path(tmp_path, SPLIT, name))
    expected = np.where(found > 0.6 * 255, 255, 0)
    np.testing.assert_array_equal(images.read_mask(tmp_path / SPLIT / f'{name}.png'), expected)


def test_a_run_that_is_stopped_twice_ends_as_one_that_is_not(
  run, one_device, tmp_path, monkeypatch
):
  config, root, facts = run
  monkeypatch.setattr(networks, 'first_variables', full_step.first_variables)
  inputs = {'priors': root / 'priors', 'c2am': tmp_path / 'c2am'}
  out = tmp_path / 'saliency_priors'
  with pytest.raises(loop.Interrupted, match='3'):
    runtime = _runtime(root, one_device, config, stop=_stops(3))
    contexts.run(c2am.STAGE, config, inputs, inputs['c2am'], runtime)
  assert not (inputs['c2am'] / weights.FILE).exists()
  runtime = _runtime(root, one_device, config)
  assert contexts.run(c2am.STAGE, config, inputs, inputs['c2am'], runtime) == facts
  found, expected = (weights.load(d / 'c2am')[0] for d in (tmp_path, root))
  assert str(found) == str(expected)
  assert _products(inputs['c2am']) == _products(root / 'c2am')
  # Among the maps, then among the masks.
  for count in (5, 14):
    stopped = _runtime(root, one_device, config, stop=_stops(count))
    with pytest.raises(loop.Interrupted, match='every image so far is kept'):
      contexts.run(saliency_priors.STAGE, config, inputs, out, stopped)
  assert 0 < len(list((out / SPLIT).glob('*.png'))) < 17
  contexts.run(saliency_priors.STAGE, config, inputs, out, runtime)
  assert _products(out) == _products(root / 'saliency_priors')


def test_missing_priors_and_foreign_weights_are_refused(run, one_device, tmp_path):
  config, root, _ = run
  runtime = _runtime(tmp_path, one_device, config)
  source = runtime.source(config.dataset, SPLIT)
  shutil.copytree(root / 'priors', tmp_path / 'priors')
  (tmp_path / 'priors' / SPLIT / f'{source.ids[3]}.npz').unlink()
  with pytest.raises(UserError, match=f'{source.ids[3]}.npz: missing'):
    contexts.check(c2am.STAGE, config, {'priors': tmp_path / 'priors'}, tmp_path, runtime)
  variables, meta = weights.load(root / 'c2am')
  del meta['inverted']
  weights.save(tmp_path / 'c2am', variables, meta=meta)
  with pytest.raises(UserError, match='does not say whether its map is inverted'):
    contexts.check(saliency_priors.STAGE, config, {'c2am': tmp_path / 'c2am'}, tmp_path, runtime)


class Radial(nn.Module):
  """A map that no image changes: positive at its middle, or at its border."""

  sign: float

  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    near = jnp.abs(jnp.arange(8) - 3.5)
    logits = self.sign * (2.5 - jnp.maximum(near[:, None], near[None]))
    logits = jnp.broadcast_to(logits[None, :, :, None], (len(image), 8, 8, 1))
    return c2am_nn.Disentangled(None, None, logits)


def _polarity(run, mesh, sign, *, hinted, **fields):
  config, root, _ = run
  ours = _config().c2am
  for name, value in fields.items():
    setattr(ours, name, value)
  context = contexts.make(c2am.STAGE, config, {}, root, _runtime(root, mesh, config))
  source = context.train
  hints = joins.prior_hints(source, root / 'priors' / SPLIT) if hinted else None
  examples, prepare = pipeline.Examples(source, target=hints), c2am.make_prepare(source.info)
  return polarity(Radial(sign), {}, ours, examples, prepare, context)


@pytest.mark.parametrize('sign', [1, -1], ids=['upright', 'inverted'])
def test_without_hints_the_borders_decide(run, one_device, sign):
  facts = _polarity(run, one_device, sign, hinted=False)
  # One cell of eight at each side, whose logit is -1.
  np.testing.assert_allclose(facts['border_mean'], 1 / (1 + np.exp(sign)), rtol=1e-5)
  assert facts['inverted'] == (sign < 0)
  json.dumps(facts)


def test_a_signal_ends_the_look(run, one_device, monkeypatch):
  monkeypatch.setattr(polarities.hosts, 'any_host', lambda asked: not asked)
  with pytest.raises(loop.Interrupted, match='the look at c2am begins again'):
    _polarity(run, one_device, 1, hinted=False)


def test_hinted_cells_must_be_foreground(run, one_device):
  facts = _polarity(run, one_device, 1, hinted=True, min_hint_mean=0.5)
  assert facts['inverted'] is False
  # Objects are rather in the middle.
  assert facts['hint_mean'] > 0.5
  with pytest.raises(UserError, match=r'not above c2am\.min_hint_mean'):
    _polarity(run, one_device, -1, hinted=True, min_hint_mean=0.5)
  # Bicubic hints overshoot 1, but not by as much.
  with pytest.raises(UserError, match='nothing hints at foreground'):
    _polarity(run, one_device, 1, hinted=True, threshold=2.0)
