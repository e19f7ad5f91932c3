"""What is kept of data: made once, told when it is damaged."""

import os
import re

import numpy as np
import pytest

from launch import caches
from pnoc_jax.data import cache
from pnoc_jax.errors import UserError
from pnoc_jax.io import user_cache
from pnoc_jax.runs import runner
from tests.configs import tiny


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'pnoc_jax' / 'data'


def _kept(path, made):
  def make():
    made.append(path.name)
    return {'x': np.arange(1000.0)}

  return cache.arrays('kind', [path], 1, make)


def test_damaged_arrays_name_the_directory_to_remove(tmp_path, place):
  file, made = tmp_path / 'a', []
  file.touch()
  np.testing.assert_array_equal(_kept(file, made)['x'], np.arange(1000.0))
  (path,) = place.rglob('*.npy')
  for content in (b'', path.read_bytes()[:-1], path.read_bytes()[:20] + b'(' * 9000):
    path.write_bytes(content)
    message = f'{re.escape(str(path))} is damaged .*remove {re.escape(str(path.parent))}'
    with pytest.raises(UserError, match=message):
      _kept(file, made)['x']
  assert made == ['a'] and os.listdir(place) == ['kind']


def test_what_was_used_longest_ago_goes_first(tmp_path, place):
  made = []
  files = [tmp_path / x for x in 'abc']
  for age, file in enumerate(files):
    file.touch()
    _kept(file, made)
    for path in (*place.glob('*/*'), *place.glob('*/*/*')):
      os.utime(path, (path.stat().st_mtime - 1e6,) * 2)
    assert len(user_cache.entries('data')) == age + 1
  _kept(files[0], made)  # Used again.
  size = user_cache.entries('data')[0].size
  assert user_cache.trim('data', limit=3 * size) == 0
  assert user_cache.trim('data', limit=size) == 2 * size  # b and c are a million seconds old.
  _kept(files[0], made)
  assert made == ['a', 'b', 'c']
  assert user_cache.trim('data', limit=0) == 0  # Another run may work with it.
  assert user_cache.trim('data', limit=0, fresh=0.0) == size


def test_a_run_trims_and_a_command_empties(tmp_path, place, monkeypatch, capsys):
  trimmed = []
  monkeypatch.setattr(user_cache, 'trim', lambda kind: trimmed.append(kind))
  monkeypatch.setattr(runner.compiler, 'setup_cache', lambda _: None)
  runner._setup_cache(tiny.get_config())
  assert trimmed == ['xla', 'data']
  monkeypatch.undo()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  (tmp_path / 'a').touch()
  _kept(tmp_path / 'a', [])
  programs, mine = place.parent / 'xla', tmp_path / 'mine'
  programs.mkdir()
  (programs / 'jit_f-cache').write_bytes(bytes(1000))
  mine.write_text('mine')
  (programs / 'link-cache').symlink_to(mine)
  weights = place.parent / 'weights' / 'by--hand.safetensors'
  weights.parent.mkdir()
  weights.touch()
  assert caches.main([]) == 0
  assert 'facts about data: 1 in' in capsys.readouterr().out
  assert caches.main(['--empty']) == 0
  assert 'removed 0.00 GiB' in capsys.readouterr().out
  assert not list(programs.iterdir()) and not list(place.glob('*/*'))
  assert weights.exists() and mine.read_text() == 'mine'
