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
from pnoc_jax.stages.common import scores


def test_one_of_several_runs_that_somebody_runs_alone_is_left_to_them(tmp_path):
  crew = crews.Crew(company.Company(lambda error: None), lambda: False)
  with (
    lock.hold(tmp_path),
    pytest.raises(UserError, match=r'another run is at work in .*process \d+ on'),
  ):
    runner._run_below(config_lib.PipelineConfig(), tmp_path, crew)


def test_what_processes_compare_are_the_fields_that_they_share():
  found = crews.flat(config_lib.PipelineConfig())
  assert found['runtime.save_every'] == '500' and found['generator.method'] == '"pnoc"'
  assert not {'runtime.process_id', 'dataset.root'} & set(found)
  assert set(crews.versions()) == {'the code of pnoc_jax', 'the version of JAX'}


@pytest.mark.parametrize('stage', ['check', 'score'])
def test_the_check_and_the_scores_stop_at_the_next_image(tmp_path, monkeypatch, stage):
  config = config_lib.PipelineConfig()
  config.dataset.name, config.dataset.root = 'folder', str(folders.write(tmp_path / 'data', 20))
  source, seen = sources.open_source(config.dataset, 'train'), []
  runtime = trained.local_runtime(tmp_path)
  runtime.should_stop = lambda: seen.append(0) or len(seen) == 3
  if stage == 'check':
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
