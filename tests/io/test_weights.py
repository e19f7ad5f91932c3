"""Weights files: what was written is what is read, and anything else is an error that helps."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import safetensors.numpy

from pnoc_jax import errors, trees
from pnoc_jax.io import weights
from pnoc_jax.nn import classifier


def template(arch='resnest_tiny', num_classes=4, **options):
  model = classifier.Classifier(networks.make_backbone(arch, **options), num_classes)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(num_classes)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def without_layer4(tree):
  return {k: v for k, v in tree.items() if k != 'layer4'}


def test_round_trip(tmp_path):
  variables = template()
  # A view whose memory lies otherwise than its indices, as of a kernel that came from PyTorch.
  variables['params']['classifier']['kernel'] = (
    np.arange(1024.0, dtype=np.float32).reshape(4, 256, 1, 1).transpose(2, 3, 1, 0)
  )
  file = weights.save(tmp_path / 'out', variables, meta={'arch': 'resnest_tiny', 'n': [1]})
  assert [p.name for p in (tmp_path / 'out').iterdir()] == ['weights.safetensors']
  for path in (tmp_path / 'out', file):
    found, meta = weights.load(path)
    assert meta == weights.load_meta(path) == {'arch': 'resnest_tiny', 'n': [1]}
    assert_equal(found, variables)
  assert safetensors.numpy.load_file(file).keys() == trees.flatten_names(variables).keys()
  again = weights.save(tmp_path / 'again', found, meta=meta)
  assert again.read_bytes() == file.read_bytes()
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, variables))
  assert_equal(weights.load_into(tmp_path / 'out', shapes), variables)


def test_nested_arrays_of_any_kind_come_back(tmp_path):
  arrays = {'a': {'b': np.zeros((0, 3), np.float16)}, 'n': np.array(3), 'm': np.array([True])}
  found, meta = weights.load(weights.save(tmp_path / 'x.safetensors', arrays))
  assert meta == {}
  assert_equal(found, arrays)
  assert [x.dtype for x in jax.tree.leaves(found)] == [x.dtype for x in jax.tree.leaves(arrays)]


def test_another_model_is_refused_with_both_sides(tmp_path):
  weights.save(tmp_path, template(num_classes=4))
  with pytest.raises(errors.UserError, match=r'classifier/kernel.*256, 5.*256, 4'):
    weights.load_into(tmp_path, template(num_classes=5))
  with pytest.raises(errors.UserError, match='no weights at'):
    weights.load(tmp_path / 'missing.safetensors')
  with pytest.raises(errors.UserError, match='holds no'):
    (tmp_path / 'empty').mkdir()
    weights.load(tmp_path / 'empty')


def test_damaged_file_is_named(tmp_path):
  file = weights.save(tmp_path, template())
  content = file.read_bytes()
  flipped = bytearray(content)
  flipped[-5] ^= 1
  for damaged in (content[: len(content) // 2], flipped, b'nonsense', b''):
    file.write_bytes(damaged)
    with pytest.raises(errors.UserError, match='damaged'):
      weights.load(tmp_path)


def test_weights_of_an_older_version_are_refused_until_they_are_converted(tmp_path):
  variables, folder = template(), tmp_path / 'generator'
  (folder / 'weights').mkdir(parents=True)
  arrays = trees.flatten_names(variables)
  arrays['__meta__'] = np.asarray(json.dumps({'arch': 'resnest_tiny'}))
  np.savez(folder / 'weights' / 'variables.npz', **arrays)
  for path in (folder, folder / 'weights', folder / 'weights' / 'variables.npz'):
    with pytest.raises(errors.UserError, match=f'older version.*rerun.*--output={folder}$'):
      weights.load(path)
    with pytest.raises(errors.UserError, match='older version'):
      weights.load_pretrained(path, variables, arch='resnest_tiny')
    found, meta = weights.import_weights(path)
    assert meta == {'arch': 'resnest_tiny'}
    assert_equal(found, variables)
  with pytest.raises(errors.UserError, match='of resnest_tiny, not of resnet18'):
    weights.import_weights(folder, 'resnet18')
  weights.save(folder, found, meta=meta)
  assert_equal(weights.load_into(folder, variables), variables)


def test_pretrained_backbone_with_a_new_head(tmp_path):
  source, target = template(num_classes=4), template(num_classes=7)
  weights.save(tmp_path, source, meta={'arch': 'resnest_tiny'})
  found = weights.load_pretrained(tmp_path, target, arch='resnest_tiny')
  for collection in ('params', 'batch_stats'):
    assert_equal(found[collection]['backbone'], source[collection]['backbone'])
  assert_equal(found['params']['classifier'], target['params']['classifier'])
  whole = weights.load_pretrained(
    tmp_path, template(num_classes=4), arch='resnest_tiny', scratch=()
  )
  assert_equal(whole, source)
  with pytest.raises(errors.UserError, match='weights of resnest_tiny, but the model is resnest50'):
    weights.load_pretrained(tmp_path, target, arch='resnest50')


def test_a_truncated_model_leaves_out_later_stages(tmp_path):
  source = template(num_classes=4)
  weights.save(tmp_path, source, meta={'arch': 'resnest_tiny'})
  short = template(num_classes=4, last_stage='layer3')
  found = weights.load_pretrained(tmp_path, short, arch='resnest_tiny')
  assert_equal(found['params']['backbone'], without_layer4(source['params']['backbone']))
  # The other way round the file lacks a stage.
  weights.save(tmp_path / 'short', short)
  with pytest.raises(errors.UserError, match=r'not found: .*layer4'):
    weights.load_pretrained(tmp_path / 'short', source, arch='resnest_tiny')


def test_unknown_kinds_and_missing_torch(tmp_path, monkeypatch):
  (tmp_path / 'x.h5').write_bytes(b'x')
  with pytest.raises(errors.UserError, match='unknown kind'):
    weights.import_weights(tmp_path / 'x.h5', 'resnet18')
  (tmp_path / 'x.params').write_bytes(b'x')
  with pytest.raises(
    errors.UserError, match=r'x\.params is of MXNet.*convert_mxnet_to_torch.*\.pth'
  ):
    weights.import_weights(tmp_path / 'x.params', 'resnet38d')
  (tmp_path / 'x.pth').write_bytes(b'x')
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.UserError, match='needs PyTorch'):
    weights.import_weights(tmp_path / 'x.pth', 'resnet18')


@pytest.mark.parametrize('version', ['2.5.1+cu124', '1.13.0'])
def test_pth_is_not_read_by_a_torch_that_runs_code(tmp_path, monkeypatch, version):
  torch = types.SimpleNamespace(__version__=version, load=lambda *_, **__: pytest.fail('was read'))
  monkeypatch.setitem(sys.modules, 'torch', torch)
  with pytest.raises(errors.UserError, match=r"x\.pth is not read .* install .*'torch>=2\.6'"):
    weights.load_pretrained(_touched(tmp_path / 'x.pth'), {}, arch='resnet18')


def _touched(path):
  path.touch()
  return path


def test_pth_is_read_where_torch_is(tmp_path):
  torch = pytest.importorskip('torch')
  file = tmp_path / 'x.pth'
  torch.save({'state_dict': {'conv9.weight': torch.zeros(2, 3, 1, 1)}}, file)
  with pytest.raises(errors.UserError, match=r'not expected: conv9\.weight'):
    weights.import_weights(file, 'resnet18')
  file.write_bytes(file.read_bytes()[:100])
  with pytest.raises(errors.UserError, match='damaged'):
    weights.import_weights(file, 'resnet18')


def test_safetensors_into_a_truncated_model(tmp_path):
  short = template('resnet18', last_stage='layer3')
  named = trees.flatten_names({'params': short['params']['backbone']})
  named |= trees.flatten_names({'batch_stats': short['batch_stats']['backbone']})
  leaves = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  tensors = {}
  for name, value in named.items():
    *parts, leaf = name.split('/')[1:]
    module = '.'.join(p.removeprefix('block') for p in parts if p != 'stem')
    module = module.replace('shortcut_conv', 'downsample.0').replace('shortcut_bn', 'downsample.1')
    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    tensors[f'{module}.{leaves.get(leaf, leaf)}'] = np.ascontiguousarray(value)
  file = tmp_path / 'x.safetensors'
  safetensors.numpy.save_file(tensors, file)
  found = weights.load_pretrained(file, short, arch='resnet18')
  assert_equal(found, short)
  variables, meta = weights.import_weights(file, 'resnet18')
  assert meta == {'arch': 'resnet18', 'last_stage': 'layer3', 'source': 'x.safetensors'}
  assert_equal(variables['params']['backbone'], short['params']['backbone'])
  with pytest.raises(errors.UserError, match='no weights file of this package'):
    weights.load(file)
  del tensors['layer1.0.bn1.running_mean']
  tensors['layer1.7.conv1.weight'] = np.zeros((1, 1, 1, 1), np.float32)
  safetensors.numpy.save_file(tensors, file)
  with pytest.raises(errors.UserError, match=r'(?s)layer1/block0/bn1/mean.*layer1/block7'):
    weights.load_pretrained(file, short, arch='resnet18')


def test_own_weights_that_are_not_finite_are_refused(tmp_path):
  variables = template()
  variables['params']['classifier']['kernel'][0, 0, 0, 0] = np.nan
  weights.save(tmp_path, variables)
  with pytest.raises(errors.UserError, match=r'NaN or infinity, the first is params/classifier'):
    weights.load_into(tmp_path, variables)


def test_a_path_that_no_disk_can_have_is_told():
  with pytest.raises(errors.UserError, match=r'no weights at x+ \(File name too long\)'):
    weights.find('x' * 5000)
