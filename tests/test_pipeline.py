"""Whole runs: the launcher in processes of its own, killed and resumed; and input that is wrong."""

import copy
import fcntl
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from pnoc_jax import config_flags
from pnoc_jax.data import info, sources
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, records, weights
from pnoc_jax.stages import networks, runner
from tests.data import folders

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / 'tests' / 'configs' / 'tiny.py'


def _start(*command: object) -> subprocess.CompletedProcess:
  """Runs a Python file on one device, with the tests' compilation cache."""
  cache = os.environ['JAX_COMPILATION_CACHE_DIR']
  return subprocess.run(
    [sys.executable, *map(str, command), f'--config.runtime.compilation_cache={cache}'],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=1'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def _run(workdir, *flags):
  return _start('launch/run.py', f'--config={CONFIG}', f'--workdir={workdir}', *flags)


def _die(signal, moment, count, workdir):
  flags = f'--config={CONFIG}', f'--workdir={workdir}'
  return _start('tests/dying_run.py', signal, moment, count, *flags)


def _tree(workdir):
  """{path: (time of change, content)} of all that a run leaves."""
  return {
    str(path.relative_to(workdir)): (path.stat().st_mtime_ns, path.read_bytes())
    for path in sorted(workdir.rglob('*'))
    if path.is_file() and path.name != '.lock'
  }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nothing interrupts."""
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  done = _run(workdir)
  assert done.returncode == 0, done.stdout + done.stderr
  return workdir, done.stdout


def test_a_run_leaves_all_products(whole):
  workdir, printed = whole
  for name in ('classifier', 'generator', 'priors', 'evaluation', 'report'):
    assert records.read_done(workdir / name) is not None
    assert f'{name} done in' in printed
  found = records.read_json(workdir / 'evaluation' / 'priors_val.json')
  assert {'miou', 'miou_fg', 'iou', 'fp', 'fn', 'threshold', 'thresholds', 'mious'} <= set(found)
  assert 0 < found['miou'] < 100
  assert len(list((workdir / 'priors' / 'train').glob('*.npz'))) == 24
  assert len(list((workdir / 'priors' / 'val').glob('*.npz'))) == 8
  steps = [x['step'] for x in records.read_jsonl(workdir / 'generator' / 'metrics.jsonl')]
  assert steps == list(range(1, 13))
  assert (workdir / 'report' / 'index.html').stat().st_size > 10_000


def test_a_run_that_dies_anywhere_ends_as_one_that_does_not(whole, tmp_path):
  """SIGKILL in the generator, SIGTERM later, SIGKILL in the middle of writing a prior."""
  workdir = tmp_path / 'run'
  killed = _die('SIGKILL', 'step', 5, workdir)
  assert killed.returncode == -9
  assert not (workdir / 'generator' / 'DONE').exists()
  stopped = _die('SIGTERM', 'step', 8, workdir)
  assert stopped.returncode == 0, stopped.stdout + stopped.stderr
  assert 'saved at step 8; the same command resumes' in stopped.stdout
  assert 'Traceback' not in stopped.stderr
  assert (workdir / 'generator' / 'checkpoints' / '8').is_dir()
  killed = _die('SIGKILL', 'prior', 6, workdir)
  assert killed.returncode == -9
  written = len(list((workdir / 'priors').rglob('[!.]*.npz')))
  assert 0 < written < 32
  done = _run(workdir)
  assert done.returncode == 0, done.stdout + done.stderr
  for name in ('classifier', 'generator'):
    expected, _ = weights.load(whole[0] / name / 'weights')
    found, _ = weights.load(workdir / name / 'weights')
    assert _same(found, expected), name
  priors = sorted(path.relative_to(whole[0]) for path in (whole[0] / 'priors').rglob('*.npz'))
  assert len(priors) == 32
  for path in priors:
    assert (workdir / path).read_bytes() == (whole[0] / path).read_bytes(), path
  lines = [
    [{k: v for k, v in x.items() if 'time/' not in k} for x in records.read_jsonl(path)]
    for path in (d / 'generator' / 'metrics.jsonl' for d in (workdir, whole[0]))
  ]
  assert lines[0] == lines[1]


def _same(found, expected):
  if isinstance(expected, dict):
    return found.keys() == expected.keys() and all(_same(found[k], expected[k]) for k in expected)
  return found.dtype == expected.dtype and np.array_equal(found, expected)


@pytest.fixture
def config(monkeypatch):
  """The tiny config; runs in this process leave the tests' compilation cache alone."""
  monkeypatch.setattr(runner.compiler, 'setup_cache', lambda *_, **__: None)
  return config_flags.load(str(CONFIG))


def test_a_finished_run_does_nothing(whole, config):
  before = _tree(whole[0])
  runner.execute(config, whole[0])
  changed = {path for path, x in _tree(whole[0]).items() if x != before.get(path)}
  # What gathers the others may be written anew.
  assert {path.partition('/')[0] for path in changed} <= {'report', 'config.json'}


def test_another_config_is_refused_and_nothing_is_lost(whole):
  before = _tree(whole[0])
  done = _run(whole[0], '--config.generator.optim.lr=0.5')
  assert done.returncode == 1
  assert 'generator.optim.lr is 0.001 there and 0.5 here' in done.stderr
  assert 'Traceback' not in done.stderr
  assert _tree(whole[0]) == before


def test_an_unknown_field_is_refused_with_the_nearest(tmp_path):
  done = _run(tmp_path / 'run', '--config.generator.optim.ler=0.5')
  assert done.returncode == 2
  assert 'did you mean config.generator.optim.lr?' in done.stderr
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'run').exists()


def test_a_second_run_at_once_is_refused(config, tmp_path):
  with open(tmp_path / '.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(UserError, match='another run is at work'):
      runner.execute(config, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['.lock']


def test_a_workdir_that_is_a_file_is_refused(config, tmp_path):
  (tmp_path / 'file').write_text('precious')
  with pytest.raises(UserError, match='which is a file'):
    runner.execute(config, tmp_path / 'file')
  assert (tmp_path / 'file').read_text() == 'precious'


def _refused(config, workdir, message):
  """The run ends before any stage begins."""
  with pytest.raises(UserError, match=message):
    runner.execute(config, workdir)
  stages = {'classifier', 'generator', 'priors', 'evaluation', 'report'}
  assert not stages & {path.name for path in workdir.iterdir()}


@pytest.fixture
def folder(config, tmp_path):
  """A sound folder of four images, and a config that reads it."""
  root = folders.write(tmp_path / 'data')
  config.dataset.name = info.DatasetName.FOLDER
  config.dataset.root = str(root)
  config.dataset.val_split = 'train'
  config.priors.splits = ('train',)
  return root


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda root: root.rename(root.with_name('moved')), 'no such folder'),
    (lambda root: (root / 'images' / 'b.png').unlink(), "no image for the id 'b'"),
    (
      lambda root: folders.replace(root / 'image_labels.csv', 'dog', 'dgo'),
      "unknown class 'dgo'; did you mean 'dog'",
    ),
    (
      lambda root: images.write_png(root / 'masks' / 'b.png', np.zeros((9, 9), np.uint8)),
      'the mask is 9x9 px, its image 30x24',
    ),
    (lambda root: (root / 'images' / 'c.png').write_bytes(b'\xff\xd8\xff\xe0 cut'), r'c\.png'),
  ],
  ids=['no_folder', 'no_image', 'unknown_class', 'mask_size', 'corrupt_image'],
)
def test_a_bad_folder_is_refused_before_work(folder, config, tmp_path, damage, message):
  damage(folder)
  _refused(config, tmp_path / 'run', message)


def test_a_corrupt_image_can_be_left_out(folder, config, tmp_path, monkeypatch):
  (folder / 'images' / 'b.png').write_bytes(b'\xff\xd8\xff\xe0 cut')
  config.dataset.on_error = info.OnError.SKIP
  started = []
  monkeypatch.setattr(runner, '_run_stage', lambda config, item, *rest: started.append(item))
  for training in (config.classifier, config.generator):
    training.batch_size = 1
  _plan_only(config, tmp_path / 'run', monkeypatch)
  assert started
  rows = (tmp_path / 'run' / 'quarantine_train.csv').read_text().splitlines()
  assert rows[0] == 'id,problem'
  assert len(rows) == 2
  assert rows[1].startswith('b,')


def _plan_only(config, workdir, monkeypatch):
  """Runs all that comes before the stages, on one of the devices: the batch is a single image."""
  one = runner.meshes.make_mesh(jax.devices()[:1])
  monkeypatch.setattr(runner.meshes, 'make_mesh', lambda *_: one)
  runner.execute(config, workdir)


def test_weights_of_another_network_are_refused(config, tmp_path):
  other = copy.deepcopy(config.generator.model)
  other.last_stage = 'layer2'
  dataset = sources.open_source(config.dataset, 'train').info
  model = networks.build(other, dataset.num_classes)
  zeros = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), networks.abstract_variables(model, dataset)
  )
  weights.save(tmp_path / 'resnet18', zeros, meta={'arch': 'resnet18'})
  config.generator.init = str(tmp_path / 'resnet18')
  _refused(config, tmp_path / 'run', 'holds weights of resnet18, but the model is resnest_tiny')
  # The right name with other shapes does not pass either.
  del zeros['params']['backbone']['layer1']
  weights.save(tmp_path / 'cut', zeros, meta={'arch': 'resnest_tiny'})
  config.generator.init = str(tmp_path / 'cut')
  _refused(config, tmp_path / 'run', 'does not fit the model')
  config.generator.init = str(tmp_path / 'nowhere')
  _refused(config, tmp_path / 'run', 'no weights at')
