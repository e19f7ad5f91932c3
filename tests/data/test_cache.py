"""What is kept of data: made once, told when it is damaged."""

import os
import re

import numpy as np
import pytest

from pnoc_jax.data import cache
from pnoc_jax.errors import UserError


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
