"""A file is written whole or not at all."""

import errno
import os
import signal

import numpy as np
import pytest

from pnoc_jax.errors import UserError
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


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with pytest.raises(OSError, match=r"No space left on device: '.*a\.png'"):
    atomic.write(tmp_path / 'a.png', full)
  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match=r"'.*b\.png'"):
    atomic.write(tmp_path / 'b.png', lambda file: file.write(b'x'))
  with records.JsonLines(tmp_path / 'c.jsonl') as lines, pytest.raises(OSError, match=r"'.*c\."):
    lines.sync()


def test_folders_are_synced_after_the_rename(tmp_path, monkeypatch):
  events, replace, fsync = [], os.replace, os.fsync
  monkeypatch.setattr(os, 'replace', lambda *paths: (replace(*paths), events.append('rename')))
  names = lambda number: os.path.basename(os.readlink(f'/proc/self/fd/{number}'))  # noqa: E731
  monkeypatch.setattr(os, 'fsync', lambda number: (fsync(number), events.append(names(number))))
  atomic.write(tmp_path / 'a', lambda file: file.write(b'1'))
  assert events[0].startswith('.a.') and events[1:] == ['rename', tmp_path.name]
  events.clear()
  atomic.write(tmp_path / 'b', lambda file: file.write(b'1'), sync_folder=False)
  assert events[0].startswith('.b.') and events[1:] == ['rename']
  atomic.sync_folders([tmp_path / 'b', tmp_path / 'a', tmp_path / 'gone' / 'c'])
  assert events[2:] == [tmp_path.name]


@pytest.mark.parametrize('link', [False, True])
def test_a_new_directory_is_whole_or_not_there(tmp_path, link):
  output = tmp_path / 'out'
  if link:  # A large disk, mounted elsewhere.
    (tmp_path / 'disk').mkdir()
    output.symlink_to(tmp_path / 'disk')
  before = sorted(tmp_path.iterdir())
  with pytest.raises(OSError, match='no room'), atomic.new_directory(output) as made:
    (made / 'a').touch()
    raise OSError('no room')
  assert sorted(tmp_path.iterdir()) == before
  with atomic.new_directory(output) as made:
    (made / 'a').touch()
    assert not (output / 'a').exists()
  assert [x.name for x in output.iterdir()] == ['a'] and output.is_symlink() == link
  with pytest.raises(UserError, match='is there already'), atomic.new_directory(output):
    pass
  assert not [x for x in tmp_path.iterdir() if x.name.startswith('.')]


def test_a_new_directory_is_removed_by_sigterm(tmp_path):
  handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
  try:
    with pytest.raises(SystemExit) as end, atomic.new_directory(tmp_path / 'out') as made:
      (made / 'a').touch()
      signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143 and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  finally:
    signal.signal(signal.SIGTERM, handler)


def test_of_two_that_make_a_directory_the_second_is_told(tmp_path):
  with (
    pytest.raises(UserError, match='by somebody else meanwhile'),
    atomic.new_directory(tmp_path / 'out') as made,
  ):
    (made / 'a').touch()
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'theirs').touch()
  assert [x.name for x in tmp_path.rglob('*')] == ['out', 'theirs']


def test_the_directory_that_a_user_is_in_is_not_replaced(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match='that you are in'), atomic.new_directory('.'):
    pass
