"""The converter's command line: what a person sees when it works and when it does not."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import seeded_tensors

from launch import import_weights
from pnoc_jax.io import weights

ROOT = pathlib.Path(__file__).parent.parent.parent
FIXTURE = ROOT / 'tests' / 'fixtures' / 'resnest14.npz'


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A file with timm's names of ResNeSt-14, its head and its counters."""
  with np.load(FIXTURE) as fixture:
    shapes = json.loads(str(fixture['meta']))['shapes']
  tensors = {name: seeded_tensors.tensor(name, tuple(s)) for name, s in shapes.items()}
  tensors['fc.weight'] = np.zeros((10, 2048), np.float32)
  tensors['bn1.num_batches_tracked'] = np.zeros((1,), np.int64)
  file = tmp_path_factory.mktemp('source') / 'resnest14.safetensors'
  safetensors.numpy.save_file(tensors, file)
  return file


def test_converts(source, tmp_path, capsys):
  arguments = ['--arch=resnest14', f'--input={source}', f'--output={tmp_path / "out"}']
  assert import_weights.main(arguments) == 0
  assert 'resnest14 up to layer4, 8,562,688 parameters' in capsys.readouterr().out
  variables, meta = weights.load(tmp_path / 'out')
  assert meta['arch'] == 'resnest14' and set(variables['params']) == {'backbone'}
  assert import_weights.main(arguments) == 2
  assert 'already holds weights' in capsys.readouterr().err


def test_converts_what_an_older_version_left(tmp_path, capsys):
  folder = tmp_path / 'generator' / 'weights'
  folder.mkdir(parents=True)
  kernel = np.ones((1, 1, 2, 3), np.float32)
  meta = np.asarray(json.dumps({'arch': 'resnest_tiny', 'stage': 'generator'}))
  np.savez(folder / 'variables.npz', **{'params/classifier/kernel': kernel, '__meta__': meta})
  run = str(tmp_path / 'generator')
  assert import_weights.main([f'--input={run}', f'--output={run}']) == 0
  assert 'weights.safetensors: resnest_tiny, 6 parameters' in capsys.readouterr().out
  variables, meta = weights.load(tmp_path / 'generator')
  assert meta['stage'] == 'generator'
  np.testing.assert_array_equal(variables['params']['classifier']['kernel'], kernel)


def test_mistakes_are_told_and_nothing_is_written(source, tmp_path, capsys):
  damaged = tmp_path / 'damaged.safetensors'
  damaged.write_bytes(source.read_bytes()[:5000])
  for arch, file, words in (
    ('resnest26', source, 'expected and not found'),
    ('resnst14', source, "Did you mean 'resnest14'"),
    ('', source, 'Name it with --arch=NAME'),
    ('resnest14', damaged, 'damaged'),
    ('resnest14', tmp_path / 'none.pth', 'no weights at'),
  ):
    arguments = [f'--arch={arch}', f'--input={file}', f'--output={tmp_path / "out"}']
    assert import_weights.main(arguments) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_from_the_shell(tmp_path):
  script = ROOT / 'launch' / 'import_weights.py'
  arguments = ['--arch=resnet18', f'--input={tmp_path / "none.pth"}', f'--output={tmp_path}']
  done = subprocess.run(
    [sys.executable, script, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: ') and 'Traceback' not in done.stderr


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_other_precisions_are_converted_with_a_word(source, tmp_path, dtype):
  tensors = {
    name: x.astype(jnp.dtype(dtype)) if x.dtype == np.float32 else x
    for name, x in safetensors.numpy.load_file(source).items()
  }
  file, out = tmp_path / 'other.safetensors', tmp_path / 'out'
  safetensors.numpy.save_file(tensors, file)
  with pytest.warns(UserWarning, match=rf'other\.safetensors: \d+ of \d+ arrays are {dtype}; they'):
    assert import_weights.main(['--arch=resnest14', f'--input={file}', f'--output={out}']) == 0
  variables, _ = weights.load(out)
  leaves = jax.tree.leaves(variables)
  assert {x.dtype for x in leaves} == {np.dtype(np.float32)}
  expected, _ = weights.import_weights(source, 'resnest14')
  for found, whole in zip(leaves, jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(found, whole.astype(jnp.dtype(dtype)).astype(np.float32))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(source, tmp_path, capsys, value):
  tensors = safetensors.numpy.load_file(source)
  tensors['layer1.0.conv1.weight'].flat[3] = value
  file, out = tmp_path / 'nan.safetensors', tmp_path / 'out'
  safetensors.numpy.save_file(tensors, file)
  assert import_weights.main(['--arch=resnest14', f'--input={file}', f'--output={out}']) == 2
  told = capsys.readouterr().err
  assert (
    'nan.safetensors: 1 arrays hold NaN or infinity, the first is params/backbone/layer1' in told
  )
  assert not out.exists()
