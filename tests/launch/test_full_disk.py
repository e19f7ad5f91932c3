"""A disk that is full, or that a user may not write to, ends a command with a line that says so."""

import errno
import os

import numpy as np
import pytest

from launch import evaluate, import_weights, new_dataset
from pnoc_jax.io import images
from tests.data import folders


def _evaluate(root):
  data = folders.write(root / 'data')
  arguments = [f'--pred={data / "masks"}', '--dataset=folder', f'--root={data}', '--split=train']
  return evaluate.main, [*arguments, f'--output={root / "out"}']


def _import_weights(root):
  folder = root / 'generator' / 'weights'
  folder.mkdir(parents=True)
  meta = np.asarray('{"arch": "resnest_tiny", "stage": "generator"}')
  kernel = np.ones((1, 1, 2, 3), np.float32)
  np.savez(folder / 'variables.npz', **{'params/classifier/kernel': kernel, '__meta__': meta})
  return import_weights.main, [f'--input={folder.parent}', f'--output={folder.parent}']


def _new_dataset(root):
  for name in ('cat/a', 'cat/b', 'dog/c', 'dog/d'):
    (root / 'photographs' / name).parent.mkdir(parents=True, exist_ok=True)
    images.write_png(root / 'photographs' / f'{name}.png', np.zeros((9, 9, 3), np.uint8))
  given = ['--from=directories', f'--input={root / "photographs"}', f'--output={root / "new"}']
  return new_dataset.main, given


@pytest.mark.filterwarnings('ignore:.*takes no more files')
@pytest.mark.parametrize('make', [_evaluate, _import_weights, _new_dataset])
@pytest.mark.parametrize(
  ('number', 'said'),
  [(errno.ENOSPC, 'there is no room for a file'), (errno.EACCES, 'chmod u+rwX')],
)
def test_a_command_says_what_the_disk_says(tmp_path, monkeypatch, capsys, make, number, said):
  def full(source, target, **_):
    raise OSError(number, os.strerror(number), str(target))

  command, arguments = make(tmp_path)
  with monkeypatch.context() as patched:
    patched.setattr(os, 'replace', full)
    patched.setattr(os, 'rename', full)
    assert command(arguments) == 2
  *_, told = capsys.readouterr().err.splitlines()
  assert told.startswith('error: ') and said in told


def test_what_is_no_error_of_a_disk_stays_one(tmp_path, monkeypatch):
  def broken(source, target, **_):
    raise OSError(errno.EMFILE, 'Too many open files')

  command, arguments = _import_weights(tmp_path)
  monkeypatch.setattr(os, 'replace', broken)
  with pytest.raises(OSError, match='Too many'):
    command(arguments)
