"""One file an image, in as many calls and processes as it takes."""

import dataclasses
import pathlib
import time
import types

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
  again = per_image.make_all(jobs, runtime)
  assert again['images'] == 0 and 'images_per_second' not in again


def _slow(root, written, held, seconds=0.05):
  """Products that take a while to write; notes which are, and how many were held at once."""
  job = _job(root)
  source = types.SimpleNamespace(split='train', ids=[f'image_{i}' for i in range(20)])

  def results(indices):
    given = []
    for index in indices:
      given.append(index)
      held.append(len(given) - len(written))

      def write(path, index=index):
        time.sleep(seconds)
        path.touch()
        written.append(index)

      yield index, write

  return dataclasses.replace(job, source=source, among=range(20), results=results)


def test_products_are_written_while_the_next_are_made(tmp_path):
  written, held = [], []
  job = _slow(tmp_path, written, held)
  facts = per_image.make_all([job], label_maps.make_runtime(tmp_path))
  assert sorted(written) == list(range(20)) == list(range(facts['images']))
  # Several at a time, and not any number of them.
  assert 4 < max(held) <= per_image._HELD + 1
  # The disk is what is slow here, and the counter says so.
  assert 0.05 < facts['seconds_for_disk'] < 20 * 0.05
  quick = dataclasses.replace(_slow(tmp_path / 'b', [], [], seconds=0.0))
  assert per_image.make_all([quick], label_maps.make_runtime(''))['seconds_for_disk'] < 0.05


def test_what_cannot_be_written_ends_the_work_and_the_rest_is_kept(tmp_path):
  written = []
  job = _slow(tmp_path, written, [])

  def results(indices):
    for index, write in job.results(indices):
      yield index, (_fail if index == 3 else write)

  with pytest.raises(OSError, match='no room'):
    per_image.make(dataclasses.replace(job, results=results), label_maps.make_runtime(tmp_path))
  assert {0, 1, 2} <= set(written) and 3 not in written and len(written) < 20
  assert _there(tmp_path) == {f'image_{i}' for i in written}


def _fail(path):
  raise OSError('no room')
