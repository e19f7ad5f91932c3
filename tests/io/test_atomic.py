"""A file is written whole or not at all."""

import numpy as np
import pytest

from pnoc_jax.io import atomic, records


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
  path = tmp_path / 'a.json'
  records.write_json(path, {'miou': np.float64(1.5), 'list': np.arange(2)})
  text = path.read_text()
  assert '"miou": 1.5' in text

  def fail(file):
    file.write(b'half')
    raise RuntimeError('killed')

  with pytest.raises(RuntimeError):
    atomic.write(path, fail)
  assert path.read_text() == text
  assert [x.name for x in tmp_path.iterdir()] == ['a.json']
  with pytest.raises(ValueError, match='JSON'):
    records.write_json(path, {'miou': float('nan')})
