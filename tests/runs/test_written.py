"""The record of what a command wrote: two commands never mix their files in one folder."""

import contextlib

import pytest

from pnoc_jax.errors import UserError
from pnoc_jax.runs import written


@pytest.mark.parametrize('torn', [False, True])
def test_of_two_commands_one_writes_to_a_folder(tmp_path, torn):
  a = tmp_path / 'a.png'
  with written.Written(tmp_path) as record:
    record.write(a, b'old', 'old')
  if torn:
    with (tmp_path / written.RECORD).open('a') as file:
      file.write('{"file": "b')
  with written.Written(tmp_path) as first, written.Written(tmp_path) as second:
    third = written.Written(tmp_path)
    first.write(a, b'first', 'first')
    for other in (second, third, written.Written(tmp_path)):
      with pytest.raises(UserError, match='another command writes to'):
        other.write(a, b'other', 'other')
  # What was read before somebody else wrote is not what is there now.
  with contextlib.closing(third._work), pytest.raises(UserError, match='or has just done so'):
    third.write(a, b'other', 'other')
  assert a.read_bytes() == b'first' and written.Written(tmp_path).made_of(a) == 'first'
  with written.Written(tmp_path) as later:
    later.write(a, b'later', 'later')
  assert a.read_bytes() == b'later'


def test_a_folder_is_written_without_locks(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(37, 'No locks available')

  monkeypatch.setattr(written.fcntl, 'flock', refuse)
  with written.Written(tmp_path) as record:
    record.write(tmp_path / 'a.png', b'x', 'y')
  assert written.Written(tmp_path).made_of(tmp_path / 'a.png') == 'y'
