"""One file an image, in as many calls and processes as it takes."""

import pathlib

import pytest

from pnoc_jax.engine import loop, per_image
from tests.stages import label_maps


def _job(root, split='train'):
  """A file for every image of a small source."""
  source = label_maps.Memory(split)

  def results(indices):
    for index in indices:
      yield index, pathlib.Path.touch

  return per_image.Job(
    what='files',
    source=source,
    among=range(len(source)),
    directory=root,
    results=results,
    exists=pathlib.Path.exists,
    suffix='',
  )


def _make(root, **keywords):
  """Makes the files of the training split; returns how many."""
  return per_image.make(_job(root), label_maps.make_runtime(root, **keywords))


def test_each_process_makes_its_share_of_what_is_missing(tmp_path, monkeypatch):
  (tmp_path / 'train').mkdir()
  (tmp_path / 'train' / 'train_1').touch()
  monkeypatch.setattr(per_image.hosts, 'process_count', lambda: 2)
  monkeypatch.setattr(per_image.hosts, 'process_index', lambda: 1)
  monkeypatch.setattr(per_image.hosts, 'any_host', lambda flag: flag)
  assert _make(tmp_path) == 1
  assert {path.name for path in (tmp_path / 'train').iterdir()} == {'train_1', 'train_2'}


def test_a_process_that_has_made_its_share_stops_with_those_that_were_told_to(
  tmp_path, monkeypatch
):
  with pytest.raises(loop.Interrupted):
    _make(tmp_path, stop_after=2)
  assert len(list((tmp_path / 'train').iterdir())) == 2
  assert _make(tmp_path) == 2
  told = []
  monkeypatch.setattr(per_image.hosts, 'any_host', lambda flag: told.append(flag) or True)
  with pytest.raises(loop.Interrupted):
    _make(tmp_path)
  assert told == [False]


def test_splits_are_made_one_after_another_and_counted(tmp_path):
  jobs, runtime = [_job(tmp_path, split) for split in ('train', 'val')], label_maps.make_runtime('')
  assert _make(tmp_path) == 4
  facts = per_image.make_all(jobs, runtime)
  assert facts['images'] == 4 and facts['images_per_second'] > 0
  made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*_*')}
  assert made == {f'{split}/{split}_{n}' for split in ('train', 'val') for n in range(4)}
  assert per_image.make_all(jobs, runtime)['images'] == 0
