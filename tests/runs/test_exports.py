"""Exported networks: in PyTorch (tools/record_export_fixture.py), in ONNX, and their cards."""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import re
import runpy
import shutil
import sys
import types

import exported_networks
import jax
import numpy as np
import pytest
import safetensors.numpy
import seeded_tensors
from PIL import Image

from launch import export as launcher
from pnoc_jax import platforms
from pnoc_jax.io import records, weights
from pnoc_jax.nn import backbones, torch_names
from pnoc_jax.ops import convolution
from pnoc_jax.runs.exports import card, export, networks
from tests.launch import finished_run

FIXTURES = pathlib.Path(__file__).parent.parent / 'fixtures'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run with a config and a score."""
  directory = finished_run.write(tmp_path_factory.mktemp('run'))
  config = {
    'name': 'of_test',
    'seed': 3,
    'segmentation': {
      'model': {'backbone': 'resnest_tiny'},
      'epochs': 7,
      'min_steps': 90,
      'labels': 'pseudo',
    },
  }
  records.write_json(directory / 'config.json', config)
  score = {'iou': {'background': 50.0, 'apex': 25.0}, 'miou': 37.5, 'images': 12}
  records.write_json(directory / 'evaluation' / 'predictions_val.json', score)
  return directory


@pytest.mark.parametrize('case', exported_networks.CASES)
def test_what_pytorch_computes_of_an_export_is_what_we_compute(case):
  found = exported_networks.network(case)
  with np.load(FIXTURES / 'exports.npz') as file:
    theirs = file[case]
  image = seeded_tensors.image((1, *exported_networks.SIZE, 3))
  ours = jax.jit(functools.partial(found.model.apply, train=False))(found.variables, image)
  scale = np.abs(theirs).max()
  np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, rtol=0, atol=3e-5)
  # PyTorch had these tensors.
  for name, value in export.state_dict(found).items():
    np.testing.assert_array_equal(value, seeded_tensors.tensor(name, value.shape))


@pytest.mark.parametrize(
  'arch',
  [
    'resnet18',
    'resnet50_caffe',
    'resnest14',
    'resnet38d',
    'tf_efficientnet_lite0',
    'vit_small_patch14_dinov2',
  ],
)
def test_the_backbones_names_go_there_and_back(arch):
  row = backbones.info(arch)
  backbone = backbones.make_backbone(arch, backbones.Options(output_stride=row.output_strides[0]))
  template = jax.eval_shape(
    backbone.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  )
  names, value = [], np.zeros((1, 1, 3, 1))
  for collection, tree in template.items():
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    names += [f'{collection}/backbone/' + '/'.join(key.key for key in path) for path, _ in paths]
  theirs = torch_names.to_torch({n: value + i for i, n in enumerate(names)}, row)
  ours, unknown = torch_names.from_torch(theirs, row)
  assert not unknown and set(ours) == set(names) and len(theirs) == len(names)
  assert all((ours[n] == i).all() for i, n in enumerate(names))


def test_an_array_without_a_name_in_pytorch_is_told():
  with pytest.raises(KeyError, match='params/decoder/new/kernel'):
    torch_names.to_torch({'params/decoder/new/kernel': np.zeros(3)}, backbones.info('resnet18'))


def test_the_files_of_an_export_for_pytorch(run, tmp_path):
  output = tmp_path / 'out'
  flags = [f'--run={run}', f'--output={output}', '--format=torch', '--height=40', '--width=56']
  assert launcher.main(flags) == 0
  assert {x.name for x in output.iterdir()} == {
    'README.md',
    'example.py',
    'model.json',
    'model.safetensors',
  }
  tensors = safetensors.numpy.load_file(output / 'model.safetensors')
  for name, value in export.state_dict(networks.load(run, 'segmentation')).items():
    np.testing.assert_array_equal(tensors.pop(name), value)
  assert not tensors
  contract = json.loads((output / 'model.json').read_text())
  assert contract['input']['height'] == 40 and contract['classes'][0] == 'background'
  assert contract['normalization']['applied'].startswith('by the caller')
  compile((output / 'example.py').read_text(), 'example.py', 'exec')
  card = (output / 'README.md').read_text()
  sha256 = weights.origin(run / 'segmentation')['sha256']
  for words in ('| `epochs` | 7 |', '| `min_steps` | 90 |', '| `seed` | 3 |'):
    assert words in card
  for words in ('| val | 37.50 | 12 |', sha256, 'of_test'):
    assert words in card


def test_the_card_of_a_network_that_another_run_trained_tells_its_recipe(run, tmp_path):
  taker = tmp_path / 'taker'
  config = {'name': 'taker', 'segmentation': {'epochs': 99, 'labels': 'true'}}
  config['inputs'] = {'segmentation': str(run / 'segmentation')}
  records.write_json(taker / 'config.json', config)
  found = networks.load(taker, 'segmentation')
  contract = export.describe(found, export.Format.TORCH, (32, 32))
  text = card.text(taker, found, contract)
  assert '| `epochs` | 7 |' in text and '- run: of_test' in text and 'pseudo masks' in text


def test_what_a_run_says_is_text_in_the_card(run, tmp_path):
  shutil.copytree(run, tmp_path / 'run')
  evil = '![x](https://x.y/z.png)\n# a | <script>\x1b[2J'
  config = {'name': evil, 'segmentation': {'model': {evil: evil}, 'labels': evil}, 'seed': [evil]}
  records.write_json(tmp_path / 'run' / 'config.json', config)
  score = {'iou': {'a': None}, 'miou': None, 'images': None}
  records.write_json(tmp_path / 'run' / 'evaluation' / 'predictions_<b>.json', score)
  for model in ({evil: evil}, [], 7):
    config['segmentation']['model'] = model
    records.write_json(tmp_path / 'run' / 'config.json', config)
    found = networks.load(tmp_path / 'run', 'segmentation')
    found = found._replace(dataset=dataclasses.replace(found.dataset, classes=(evil,) * 6))
    contract = export.describe(found, export.Format.TORCH, (32, 32))
    text = card.text(tmp_path / 'run', found, contract)
    assert '<script' not in text and '\x1b' not in text and '![' not in text and '<b>' not in text
    assert text.count('\n# ') == 0 and r'\x1b\[2J' in text
    table = text.partition('| setting | value |')[2].partition('##')[0].strip().splitlines()
    assert all(re.sub(r'\\.', '', row).count('|') == 3 for row in table)
  assert '| - |' in text


def test_an_export_replaces_nothing_and_is_whole_or_not_there(run, tmp_path, monkeypatch, capsys):
  mine = tmp_path / 'mine'
  mine.mkdir()
  (mine / 'README.md').write_text('mine')
  flags = [f'--run={run}', '--format=torch', '--output']
  assert launcher.main([*flags, str(mine)]) == 2
  assert 'is there already' in capsys.readouterr().err
  assert [x.name for x in mine.iterdir()] == ['README.md']
  assert (mine / 'README.md').read_text() == 'mine'

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(card, 'text', killed)
    with pytest.raises(KeyboardInterrupt):
      launcher.main([*flags, str(tmp_path / 'out')])
  assert [x.name for x in tmp_path.iterdir()] == ['mine']
  assert launcher.main([*flags, str(tmp_path / 'out')]) == 0  # The same command goes on.


@pytest.mark.parametrize('side', ['0', '-3', '7', '40000'])
def test_a_side_that_cannot_be_is_refused(run, tmp_path, capsys, side):
  flags = [f'--run={run}', f'--output={tmp_path / "o"}', '--format=torch', f'--height={side}']
  assert launcher.main(flags) == 2
  assert f'the size is {side} x {side}' in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_card_is_written_where_the_package_is_not_installed(run, monkeypatch):
  def version(name):
    raise card.importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(card.importlib.metadata, 'version', version)
  found = networks.load(run, 'segmentation')
  text = card.text(run, found, export.describe(found, export.Format.TORCH, (32, 32)))
  assert '- weights, sha256: ' in text and 'pnoc-jax:' not in text


def test_the_commit_of_a_repository_around_an_installed_package_is_not_ours(monkeypatch):
  # As deep in this repository as an installed package would be in that of its user.
  folder = pathlib.Path(card.__file__).parent / 'templates'
  monkeypatch.setattr(card, '__file__', str(folder / 'card.py'))
  assert card.commit() == ''


class _Left:
  """In the place of an exported network: class 1 in the left half of the image, else 0."""

  def call(self, pixels):
    left = (np.arange(pixels.shape[2]) < pixels.shape[2] // 2) * np.ones(pixels.shape[1:3])
    return np.stack([1 - left, left], axis=-1)[None]

  def get_inputs(self):
    return [types.SimpleNamespace(name='image')]

  def run(self, names, feeds):
    return [self.call(feeds['image'])]


@pytest.mark.parametrize('form', ['stablehlo', 'onnx'])
def test_examples_turn_photographs_and_colour_their_labels(tmp_path, monkeypatch, form):
  contract = {
    'input': {'height': 8, 'width': 8},
    'network': 'segmentation',
    'classes': ['background', 'cat'],
    'palette': [[0, 0, 0], [9, 8, 7]],
  }
  (tmp_path / 'model.json').write_text(json.dumps(contract))
  (tmp_path / 'model.stablehlo').write_bytes(b'')
  sideways = Image.Exif()
  sideways[0x0112] = 6  # The viewer turns it by 90 degrees clockwise.
  Image.new('RGB', (24, 16)).save(tmp_path / 'a.jpg', exif=sideways)
  monkeypatch.setattr(jax.export, 'deserialize', lambda data: _Left())
  fake = types.SimpleNamespace(InferenceSession=lambda path: _Left())
  monkeypatch.setitem(sys.modules, 'onnxruntime', fake)
  code = pathlib.Path(export.__file__).parent / 'templates' / f'{form}.py'
  example = tmp_path / 'example.py'
  example.write_text(code.read_text())
  monkeypatch.setattr(sys, 'argv', ['example.py', str(tmp_path / 'a.jpg'), str(tmp_path / 'l.png')])
  runpy.run_path(str(example))
  labels = Image.open(tmp_path / 'l.png')
  assert (labels.mode, labels.size) == ('P', (16, 24))
  np.testing.assert_array_equal(np.array(labels)[:, ::15], [[1, 0]] * 24)
  assert labels.getpalette()[:6] == [0, 0, 0, 9, 8, 7]
  monkeypatch.setattr(sys, 'argv', ['example.py'])
  with pytest.raises(SystemExit, match=r'python example\.py IMAGE'):
    runpy.run_path(str(example))


def test_a_network_that_a_run_lacks_is_refused(run, tmp_path, capsys):
  flags = [f'--run={run}', f'--output={tmp_path / "out"}', '--network=generator']
  assert launcher.main(flags) == 2
  said = capsys.readouterr().err
  assert 'holds no trained generator network' in said
  assert 'It has what --network=segmentation names' in said
  assert not (tmp_path / 'out').exists()


def test_a_generator_is_exported_with_its_maps(tmp_path):
  found = exported_networks.network('dilated')
  run = export.program(found, (32, 48), convolution.Radix.SPLIT)
  image = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
  probabilities, maps = jax.eval_shape(run, image)
  assert probabilities.shape == (2, 6) and maps.shape == (2, 4, 6, 6)
  contract = export.describe(found, export.Format.STABLEHLO, (32, 48))
  assert contract['output']['channels'] == 6 and contract['output']['maps']['channels'] == 6
  assert len(contract['classes']) == len(contract['palette']) == 6


def test_onnx_without_its_package_is_refused(run, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert launcher.main([f'--run={run}', f'--output={tmp_path / "o"}', '--format=onnx']) == 2
  assert "pip install 'pnoc-jax[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize('case', exported_networks.CASES)
def test_a_network_is_traced_for_any_number_of_images(case):
  found = exported_networks.network(case)
  (batch,) = jax.export.symbolic_shape('b')
  image = jax.ShapeDtypeStruct((batch, *exported_networks.SIZE, 3), np.uint8)
  run = export.program(found, exported_networks.SIZE, convolution.Radix.GROUPED)
  assert all(x.shape[0] == batch for x in jax.tree.leaves(jax.eval_shape(run, image)))


@pytest.mark.parametrize('case', exported_networks.CASES)
def test_an_export_is_the_same_whatever_device_writes_it(case):
  found = exported_networks.network(case)
  image = jax.ShapeDtypeStruct((2, *exported_networks.SIZE, 3), np.uint8)

  def text(kind):
    run = export.program(found, exported_networks.SIZE, convolution.Radix.GROUPED)
    with platforms.traced_for(kind):
      return str(jax.make_jaxpr(run)(image))

  assert text('cpu') == text('gpu') == text('tpu')


def test_the_form_of_depthwise_convolutions_reaches_the_stem():
  found = exported_networks.network('lite')
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
  run = export.program(found, (32, 32), convolution.Radix.GROUPED)
  names = [str(x.primitive) for x in jax.make_jaxpr(run)(image).eqns]
  # The other form is a function of its own, with a gradient of its own.
  assert not any('custom_vjp' in name for name in names)


@pytest.mark.parametrize('case', exported_networks.CASES)
def test_an_onnx_graph_computes_what_we_compute(case):
  pytest.importorskip('jax2onnx')
  onnxruntime = pytest.importorskip('onnxruntime')
  found = exported_networks.network(case)
  session = onnxruntime.InferenceSession(export._onnx(found, exported_networks.SIZE))
  names = ['probabilities'] if found.name == 'segmentation' else ['probabilities', 'maps']
  assert [x.name for x in session.get_outputs()] == names
  run = jax.jit(export.program(found, exported_networks.SIZE, convolution.Radix.SPLIT))
  for count in (1, 3):
    shape = (count, *exported_networks.SIZE, 3)
    image = np.random.default_rng(count).integers(0, 256, shape, np.uint8)
    theirs = session.run(None, {'image': image})
    for mine, other in zip(jax.tree.leaves(run(image)), theirs, strict=True):
      scale = np.abs(other).max()
      np.testing.assert_allclose(np.asarray(mine) / scale, other / scale, rtol=0, atol=3e-5)


def test_the_files_of_an_export_to_onnx(run, tmp_path):
  pytest.importorskip('jax2onnx')
  output = tmp_path / 'out'
  assert launcher.main([f'--run={run}', f'--output={output}', '--format=onnx']) == 0
  assert (output / 'model.onnx').stat().st_size > 0
  assert json.loads((output / 'model.json').read_text())['input']['batch'] == 'any'
