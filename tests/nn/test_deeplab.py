"""DeepLabV3+ against PyTorch (tools/record_deeplab_fixture.py), and padded against unpadded."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import seeded_tensors

from pnoc_jax import errors, trees
from pnoc_jax.nn import backbones, deeplab, torch_names

FIXTURES = pathlib.Path(__file__).parent.parent / 'fixtures'
# The names of the field's PyTorch implementations -> ours.
NAMES = {
  **{f'aspp.aspp{i + 2}.atrous_conv': f'aspp/atrous{i}/conv' for i in range(3)},
  **{f'aspp.aspp{i + 2}.bn': f'aspp/atrous{i}/norm' for i in range(3)},
  'aspp.aspp1.atrous_conv': 'aspp/point/conv',
  'aspp.aspp1.bn': 'aspp/point/norm',
  'aspp.global_avg_pool.1': 'aspp/pool/conv',
  'aspp.global_avg_pool.2': 'aspp/pool/norm',
  'aspp.conv1': 'aspp/join/conv',
  'aspp.bn1': 'aspp/join/norm',
  'decoder.conv1': 'decoder/low/conv',
  'decoder.bn1': 'decoder/low/norm',
  'decoder.classifier.0': 'decoder/mix0/conv',
  'decoder.classifier.1': 'decoder/mix0/norm',
  'decoder.classifier.4': 'decoder/mix1/conv',
  'decoder.classifier.5': 'decoder/mix1/norm',
  'decoder.classifier.8': 'decoder/classifier',
}
LEAVES = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}


@pytest.fixture(scope='module')
def fixture():
  with np.load(FIXTURES / 'deeplab.npz') as file:
    return {name: file[name] for name in file.files}, json.loads(str(file['meta']))


def head_from_torch(shapes):
  """Returns the head's variables under our names."""
  found = {}
  for name, shape in shapes.items():
    module, _, leaf = name.rpartition('.')
    value = seeded_tensors.tensor(name, tuple(shape))
    collection, leaf = LEAVES[leaf]
    if value.ndim == 4:
      value, leaf = value.transpose(2, 3, 1, 0), 'kernel'
    found[f'{collection}/{NAMES[module]}/{leaf}'] = value
  return found


@pytest.mark.parametrize('norm', list(deeplab.HeadNorm))
def test_logits_equal_torch(fixture, norm):
  arrays, meta = fixture
  small = {name: meta[name] for name in ('blocks', 'widths', 'stem_width', 'output_stride')}
  model = deeplab.DeepLab(
    networks.make_backbone(meta['arch'], **small), 5, norm=norm, width=16, low_width=8
  )
  tensors = {x: seeded_tensors.tensor(x, tuple(shape)) for x, shape in meta['shapes'].items()}
  found, _ = torch_names.from_torch(tensors, backbones.info('resnest50'))
  found |= head_from_torch(meta[f'{norm.value}_shapes'])
  image = seeded_tensors.image((2, 65, 97, 3))
  template = jax.eval_shape(model.init, jax.random.key(0), image)
  variables = trees.merge_strict(template, found)
  logits = np.asarray(jax.jit(model.apply)(variables, image))
  assert logits.shape == (2, 65, 97, 5)
  theirs = arrays[norm.value]
  scale = np.abs(theirs).max()
  np.testing.assert_allclose(logits[:, ::3, ::3] / scale, theirs / scale, rtol=0, atol=1e-4)


def test_the_paper_s_network_has_torch_s_number_of_parameters(fixture):
  backbone = networks.make_backbone('resnest269', output_stride=16, dtype=jnp.bfloat16)
  model = deeplab.DeepLab(backbone, 21)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  params = variables['params']
  assert sum(trees.count(params[part]) for part in deeplab.SCRATCH) == fixture[1]['head_parameters']
  assert trees.count(params['backbone']) == 108_880_480
  assert set(params) == {'backbone', *deeplab.SCRATCH}
  # bfloat16 inside; parameters and logits are float32.
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  assert (logits.shape, logits.dtype) == ((1, 64, 64, 21), jnp.float32)


def test_rates_are_doubled_at_stride_8():
  assert deeplab.atrous_rates(16) == (6, 12, 18)
  assert deeplab.atrous_rates(8) == (12, 24, 36)
  assert deeplab.atrous_rates(32, (1, 2, 3)) == (1, 1, 1)


@pytest.fixture(scope='module')
def small():
  """A narrow network, without max pool and cut after layer2, and variables."""
  backbone = networks.make_backbone(
    'resnest_tiny', output_stride=8, last_stage='layer2', widths=(4, 4, 4, 4), stem_width=4
  )
  model = deeplab.DeepLab(backbone, 3, rates=(1, 2, 3), width=8, low_width=4)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)
  draws = {
    'params': lambda x: rng.normal(0.1, 0.4, x.shape).astype(np.float32),
    'batch_stats': lambda x: rng.uniform(0.2, 1, x.shape).astype(np.float32),
  }
  return model, {name: jax.tree.map(draws[name], tree) for name, tree in shapes.items()}


def test_padded_equals_unpadded(small):
  model, variables = small
  forward = jax.jit(model.apply)
  sizes = ((27, 38), (33, 9))
  rng = np.random.default_rng(1)
  padded, valid = np.zeros((2, 40, 48, 3), np.float32), np.zeros((2, 40, 48), bool)
  for place, mask, (height, width) in zip(padded, valid, sizes, strict=True):
    place[:height, :width] = rng.normal(size=(height, width, 3))
    mask[:height, :width] = True
  logits = np.asarray(forward(variables, padded, valid))
  for i, (height, width) in enumerate(sizes):
    alone = forward(variables, padded[i : i + 1, :height, :width])[0]
    np.testing.assert_allclose(logits[i, :height, :width], alone, atol=1e-5)
  assert logits[valid].std() > 0.1
  assert not logits[~valid].any()


def test_dropout_is_of_the_key_and_of_training_alone():
  unit = functools.partial(deeplab.Unit, norm=deeplab.HeadNorm.GROUP)
  pyramid = deeplab.Pyramid(unit, 8, (1,), dropout=0.5)
  x = np.random.default_rng(1).normal(size=(2, 4, 4, 8)).astype(np.float32)
  variables = jax.jit(lambda: pyramid.init(jax.random.key(0), x, None, False))()

  @jax.jit
  def train(key):
    return pyramid.apply(variables, x, None, True, rngs={'dropout': key})

  first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  whole = np.asarray(jax.jit(pyramid.apply, static_argnums=3)(variables, x, None, False))
  for found in (first, other):
    kept = np.asarray(found) != 0
    np.testing.assert_allclose(found[kept], 2 * whole[kept], rtol=1e-5, atol=1e-5)
    assert 0.3 < kept[whole > 0].mean() < 0.7
  assert np.any((first == 0) != (other == 0))


def test_a_backbone_that_ends_with_the_stem_is_refused():
  class Stem:
    dtype = jnp.float32

    def __call__(self, image, valid, train):
      return {'stem': image}, None

  with pytest.raises(errors.UserError, match='layer1'):
    deeplab.DeepLab(Stem(), 3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
