"""One file an image, in as many calls and processes as it takes."""

import dataclasses
import pathlib

import pytest

from pnoc_jax.engine import loop, per_image
from pnoc_jax.errors import UserError
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


def _be(monkeypatch, process):
  """One of two processes, which hears of no other."""
  monkeypatch.setattr(per_image.hosts, 'process_count', lambda: 2)
  monkeypatch.setattr(per_image.hosts, 'process_index', lambda: process)
  monkeypatch.setattr(per_image.hosts, 'any_host', lambda flag: flag)


def _there(root):
  return {path.name for path in (root / 'train').iterdir()}


def test_each_process_makes_what_is_missing_of_its_share(tmp_path, monkeypatch):
  (tmp_path / 'train').mkdir()
  (tmp_path / 'train' / 'train_1').touch()
  _be(monkeypatch, 1)
  assert _make(tmp_path) == 1
  assert _there(tmp_path) == {'train_1', 'train_3'}


@pytest.mark.parametrize('when', range(3))
def test_what_one_process_writes_while_another_looks_costs_no_image(tmp_path, monkeypatch, when):
  """The first process works between the looks of the second one, whatever it has seen by then."""
  looks, exists = [], pathlib.Path.exists

  def look(path):
    if len(looks) == when:
      _be(monkeypatch, 0)
      per_image.make(_job(tmp_path), label_maps.make_runtime(tmp_path))
      _be(monkeypatch, 1)
    looks.append(path)
    return exists(path)

  _be(monkeypatch, 1)
  job = dataclasses.replace(_job(tmp_path), exists=look)
  per_image.make(job, label_maps.make_runtime(tmp_path))
  _be(monkeypatch, 0)
  _make(tmp_path)
  assert _there(tmp_path) == {f'train_{i}' for i in range(4)}


def test_products_are_counted_before_a_stage_is_done(tmp_path):
  def results(indices):
    for index in indices:
      yield index, lambda path: path.name == 'train_2' or path.touch()

  job = dataclasses.replace(_job(tmp_path), results=results)
  with pytest.raises(UserError, match=r'1 of 4 products .* not there, the first is .*train_2'):
    per_image.make(job, label_maps.make_runtime(tmp_path))
  assert _make(tmp_path) == 1


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
