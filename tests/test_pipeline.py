"""Whole runs: the launcher in processes of its own, killed and resumed; and damaged products."""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from faults import launches

from pnoc_jax import config as config_lib
from pnoc_jax.config import PipelineConfig
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products, records
from pnoc_jax.runs import graph, runner
from pnoc_jax.stages.common import stage as stages
from tests import machine, refusals

ROOT = pathlib.Path(__file__).parents[1]
# A signal, what it comes in the middle of, the stage, and which of its steps or files.
DEATHS = (
  'SIGKILL:step:generator:5',
  'SIGTERM:step:generator:8',
  'SIGKILL:file:priors:6',
  'SIGTERM:step:c2am:2',
  'SIGKILL:file:saliency_priors:30',
  'SIGKILL:step:saliency:5',
  'SIGTERM:file:affinity_labels:5',
  'SIGKILL:step:affinity:4',
  'SIGKILL:file:random_walk:8',
  'SIGKILL:file:pseudo_masks:6',
  'SIGTERM:step:segmentation:4',
  'SIGKILL:file:predictions:3',
)


def _start(*command: object) -> subprocess.CompletedProcess:
  """Runs a Python file on one device, with the tests' compilation cache."""
  cache = os.environ['JAX_COMPILATION_CACHE_DIR']
  return subprocess.run(
    [sys.executable, *map(str, command), f'--config.runtime.compilation_cache={cache}'],
    cwd=ROOT,
    env=machine.environment(),
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )


def _run(workdir, *flags):
  return _start('launch/run.py', f'--config={refusals.CONFIG}', f'--workdir={workdir}', *flags)


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
  for name in graph.names(PipelineConfig):
    assert records.read_done(workdir / name) is not None
    assert f'{name} done in' in printed
  found = records.read_json(workdir / 'evaluation' / 'priors_val.json')
  assert {'miou', 'miou_fg', 'iou', 'fp', 'fn', 'threshold', 'thresholds', 'mious'} <= set(found)
  scored = {path.stem for path in (workdir / 'evaluation').glob('*.json')}
  for name in set(config_lib.SCORED) - {'affinity_labels', 'predictions'}:
    assert {f'{name}_train', f'{name}_val'} <= scored
  assert {'priors_crf_val', 'affinity_labels_train', 'predictions_val'} <= scored
  for name, suffix in (('priors', 'npz'), ('random_walk', 'npz'), ('saliency_priors', 'png')):
    assert len(list((workdir / name / 'train').glob(f'*.{suffix}'))) == 24
    assert len(list((workdir / name / 'val').glob(f'*.{suffix}'))) == 8
  steps = [x['step'] for x in records.read_jsonl(workdir / 'generator' / 'metrics.jsonl')]
  # After steps 6 and 12, which are epochs 2 and 4, it is measured.
  assert steps == sorted([*range(1, 13), 6, 12])
  for name in ('maps', 'judged'):
    found = [path.relative_to(workdir) for path in workdir.glob(f'generator/{name}/*/train/*.png')]
    assert sorted(path.parts[2] for path in found) == ['0002'] * 6 + ['0004'] * 6
  assert (workdir / 'report' / 'index.html').stat().st_size > 10_000


def test_a_run_that_dies_anywhere_ends_as_one_that_does_not(whole, tmp_path):
  """In mid-training of every network, and in mid-writing of every image's product."""
  workdir = tmp_path / 'run'
  done = _start(
    'tests/dying_run.py', *DEATHS, '--', f'--config={refusals.CONFIG}', f'--workdir={workdir}'
  )
  assert done.returncode == 0, done.stdout + done.stderr
  for moment in DEATHS:
    name, _, stage, _ = moment.split(':')
    code = -9 if name == 'SIGKILL' else 143
    assert f'[{moment}] exit {code}, {stage} is not done' in done.stdout
  assert 'saved at step 8; the same command resumes' in done.stdout
  assert 'Traceback' not in done.stderr
  found, expected = launches.lasting(workdir), launches.lasting(whole[0])
  assert launches.differences(found, expected) == []


@pytest.fixture
def config(monkeypatch):
  """The tiny config."""
  return refusals.config(monkeypatch)


def test_a_finished_run_does_nothing(whole, config):
  before = _tree(whole[0])
  runner.execute(config, whole[0])
  changed = {path for path, x in _tree(whole[0]).items() if x != before.get(path)}
  # What gathers the others may be written anew.
  assert {path.partition('/')[0] for path in changed} <= {'report', 'config.json'}


def _copy(whole, tmp_path):
  """A finished run to change."""
  copied = tmp_path / 'run'
  shutil.copytree(whole[0], copied, ignore=shutil.ignore_patterns('checkpoints'))
  return copied


def test_a_stage_runs_again_with_all_that_follows(whole, config, tmp_path, monkeypatch):
  workdir, again, names = _copy(whole, tmp_path), [], graph.names(PipelineConfig)
  with monkeypatch.context() as patch:
    patch.setattr(
      runner, '_run_stage', lambda config, item, *_: again.append((item.stage.name, item.status))
    )
    patch.setattr(runner, '_score', lambda *_: None)
    config.rerun = 'c2am'
    runner.execute(config, workdir)
  assert again == [(name, graph.Status.RERUN) for name in names[names.index('c2am') :]]
  done = _run(workdir, '--config.rerun=c2am', '--config.until=saliency_priors')
  assert done.returncode == 0, done.stdout + done.stderr
  made, expected = launches.lasting(workdir), launches.lasting(whole[0])
  for name in ('c2am', 'saliency_priors'):
    assert f'{name} done in' in done.stdout
    assert (workdir / f'{name}.old1' / records.DONE).exists()
  made = {path: x for path, x in made.items() if '.old1' not in path and path != 'config.json'}
  assert made == {path: expected[path] for path in made}
  assert expected.keys() - made.keys() == {'config.json'}


def test_another_config_is_refused_and_nothing_is_lost(whole):
  before = _tree(whole[0])
  done = _run(whole[0], '--config.generator.optim.lr=0.5')
  assert done.returncode == 2
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


def _cut(path):
  path.write_bytes(path.read_bytes()[:-20])


def _make_foreign(path):
  np.savez(path, other=np.zeros(3))


def _make_small(path):
  images.write_png(path, np.zeros((9, 9), np.uint8))


def _make_of_nine_classes(path):
  prior = products.read_prior(path)
  products.write_prior(path, prior.keys, prior.low, prior.high, np.zeros(9, np.float32))


def _graft(whole, config, name, tmp_path, damaged=None):
  """Lets the config run a stage alone, on the whole run's products; one of them is copied."""
  config.only = name
  entry = next(entry for entry in stages.stages(config) if entry.name == name)
  for needed in entry.needs(config):
    setattr(config.inputs, needed, str(whole[0] / needed))
  if damaged is None:
    return None
  copied = tmp_path / 'grafts' / damaged
  shutil.copytree(whole[0] / damaged, copied, ignore=shutil.ignore_patterns('checkpoints'))
  setattr(config.inputs, damaged, str(copied))
  return copied


def _make_of_other_classes(path):
  walk = products.read_walk(path)
  products.write_walk(path, (walk.keys % 6 + 1)[:2] * np.int32([0, 1]), walk.walk[:1])


@pytest.mark.parametrize(
  ('stage', 'product', 'pattern', 'damage', 'message'),
  [
    ('random_walk', 'priors', 'val/*.npz', _cut, 'cut short or not a prior'),
    ('c2am', 'priors', 'train/*.npz', _make_foreign, 'cut short or not a prior'),
    ('affinity_labels', 'priors', 'train/*.npz', _make_of_nine_classes, 'a prior of 9 classes'),
    ('affinity_labels', 'saliency', 'train/*.png', _make_small, '9x9 px, but its image is 32x32'),
    ('saliency', 'saliency_priors', 'train/*.png', _cut, 'cut short'),
    ('affinity', 'affinity_labels', 'train/*.png', pathlib.Path.unlink, 'missing'),
    ('pseudo_masks', 'random_walk', 'train/*.npz', _cut, 'cut short or not a walk'),
    ('pseudo_masks', 'random_walk', 'val/*.npz', _make_of_other_classes, 'a walk of the labels'),
    ('segmentation', 'pseudo_masks', 'val/*.png', _make_small, '9x9 px, but its image is 32x32'),
    ('priors', 'generator', 'weights.safetensors', _cut, 'it is damaged'),
    ('saliency_priors', 'c2am', 'weights.safetensors', _cut, 'it is damaged'),
    ('predictions', 'segmentation', 'DONE', pathlib.Path.unlink, 'not a finished stage'),
  ],
)
def test_bad_products_are_refused_before_work(
  whole, config, tmp_path, stage, product, pattern, damage, message
):
  copied = _graft(whole, config, stage, tmp_path, product)
  path = sorted(copied.glob(pattern))[0]
  damage(path)
  refusals.refused(config, tmp_path / 'run', f'(?s){path.name}.*{message}|{message}.*{path.name}')


def test_a_split_that_does_not_exist_is_refused(whole, config, tmp_path):
  _graft(whole, config, 'predictions', tmp_path)
  config.predictions.splits = ('val', 'tset')
  refusals.refused(config, tmp_path / 'run', "no split 'tset'; its splits are train, val, test")


def test_images_that_are_all_tiny_are_refused(whole, config, tmp_path):
  _graft(whole, config, 'saliency', tmp_path)
  config.saliency.tiny = 32
  refusals.refused(config, tmp_path / 'run', '0 of the 24 .* larger than saliency.tiny = 32 px')
