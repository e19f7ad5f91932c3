"""One file an image, in as many calls and processes as it takes."""

import pytest

from pnoc_jax.engine import loop, per_image
from tests.stages import label_maps


def _make(root, **keywords):
  """Makes a file for every image of a small source; returns how many."""
  source = label_maps.Memory()

  def results(indices):
    for index in indices:
      yield index, (root / source.ids[index]).touch

  return per_image.make(
    label_maps.make_runtime(root, **keywords),
    source,
    what='files',
    among=range(len(source)),
    exists=lambda name: (root / name).exists(),
    results=results,
  )


def test_each_process_makes_its_share_of_what_is_missing(tmp_path, monkeypatch):
  (tmp_path / 'train_1').touch()
  monkeypatch.setattr(per_image.hosts, 'process_count', lambda: 2)
  monkeypatch.setattr(per_image.hosts, 'process_index', lambda: 1)
  monkeypatch.setattr(per_image.hosts, 'any_host', lambda flag: flag)
  assert _make(tmp_path) == 1
  assert {path.name for path in tmp_path.iterdir()} == {'train_1', 'train_2'}


def test_a_process_that_has_made_its_share_stops_with_those_that_were_told_to(
  tmp_path, monkeypatch
):
  with pytest.raises(loop.Interrupted):
    _make(tmp_path, stop_after=2)
  assert len(list(tmp_path.iterdir())) == 2
  assert _make(tmp_path) == 2
  told = []
  monkeypatch.setattr(per_image.hosts, 'any_host', lambda flag: told.append(flag) or True)
  with pytest.raises(loop.Interrupted):
    _make(tmp_path)
  assert told == [False]
