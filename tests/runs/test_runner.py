"""What a run tells about its data before work starts."""

import os
import pathlib
import time

import pytest
from data import folders

from pnoc_jax import config as config_lib
from pnoc_jax.data import info, sources
from pnoc_jax.engine import loop
from pnoc_jax.errors import UserError
from pnoc_jax.parallel import company
from pnoc_jax.report import files
from pnoc_jax.runs import crews, lock, runner, trained
from pnoc_jax.stages.common import scores, stage


def test_one_of_several_runs_that_somebody_runs_alone_is_left_to_them(tmp_path):
  crew = crews.Crew(company.Company(lambda error: None), lambda: False)
  with (
    lock.hold(tmp_path),
    pytest.raises(UserError, match=r'another run is at work in .*process \d+ on'),
  ):
    runner._run_below(config_lib.PipelineConfig(), tmp_path, crew)


def test_a_start_that_fails_leaves_nothing(tmp_path):
  config = config_lib.PipelineConfig()
  config.dataset.name, config.dataset.root = 'folder', str(tmp_path / 'none')
  config.runtime.compilation_cache = str(tmp_path / 'cache')
  with pytest.raises(UserError, match='none'):
    runner.execute(config, tmp_path / 'runs' / 'new')
  assert not (tmp_path / 'runs').exists()
  # Of a directory that was there, and of one that holds something, that is kept.
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'used').mkdir()
  (tmp_path / 'used' / 'notes.txt').write_text('mine')
  for name in ('mine', 'used'):
    with pytest.raises(UserError, match='none'):
      runner.execute(config, tmp_path / name)
  assert not list((tmp_path / 'mine').iterdir())
  assert (tmp_path / 'used' / 'notes.txt').read_text() == 'mine'


def test_poolnet_without_its_weights_is_told():
  config = config_lib.PipelineConfig()
  saliency = next(x for x in stage.stages(config) if x.name == 'saliency')
  config.saliency.model.backbone = 'resnet50_caffe'
  (said,) = saliency.warnings(config)
  assert '--config.saliency.init=FILE' in said and 'resnet50_caffe.pth' in said
  config.saliency.init = 'resnet50_caffe.pth'
  assert not saliency.warnings(config)
  config.saliency.init, config.saliency.model.backbone = '', 'resnest_tiny'
  assert not saliency.warnings(config)


def test_what_processes_compare_are_the_fields_that_they_share():
  found = crews.flat(config_lib.PipelineConfig())
  assert found['runtime.save_every'] == '500' and found['generator.method'] == '"pnoc"'
  assert not {'runtime.process_id', 'dataset.root'} & set(found)
  assert set(crews.versions()) == {'the code of pnoc_jax', 'the version of JAX'}


@pytest.mark.parametrize('what', ['check', 'score'])
def test_the_check_and_the_scores_stop_at_the_next_image(tmp_path, monkeypatch, what):
  config = config_lib.PipelineConfig()
  config.dataset.name, config.dataset.root = 'folder', str(folders.write(tmp_path / 'data', 20))
  source, seen = sources.open_source(config.dataset, 'train'), []
  runtime = trained.local_runtime(tmp_path)
  runtime.should_stop = lambda: seen.append(0) or len(seen) == 3
  if what == 'check':
    decoded, examine = [], runner.checks.examine
    spy = lambda *of: decoded.append(0) or time.sleep(0.01) or examine(*of)  # noqa: E731
    monkeypatch.setattr(runner.checks, 'examine', spy)
    with pytest.raises(loop.Interrupted, match='the check of train, 3 of 20'):
      runner._check(config, runtime, {'train': source}, {}, company.Company(lambda error: None))
    assert len(decoded) < 15
    return
  split = scores.Split(source, runtime=runtime)
  masks = pathlib.Path(config.dataset.root) / 'masks'
  (tmp_path / 'train').symlink_to(masks)
  with pytest.raises(loop.Interrupted, match='scoring x of train'):
    list(scores.paths(split, tmp_path, 'x', range(20)))


def test_remarks_on_a_split_are_on_the_terminal_and_in_the_report(tmp_path, capsys):
  root = folders.write(tmp_path / 'animals')
  os.rename(root / 'masks', root / 'Masks')
  config = info.DatasetConfig(name='folder', root=str(root))
  runner._remark(tmp_path, {'train': sources.open_source(config, 'train')})
  said = 'Masks/a.png looks like a mask, but is not read as one'
  assert f'warning: split train: {said}' in capsys.readouterr().err
  assert any(f'Split train: {said}' in note for note in files.read_run(tmp_path, ()).notes)
  # Mended, and nothing is said any longer.
  os.rename(root / 'Masks', root / 'masks')
  runner._remark(tmp_path, {'train': sources.open_source(config, 'train')})
  assert capsys.readouterr().err == ''
  assert not any('mask, but' in note for note in files.read_run(tmp_path, ()).notes)
