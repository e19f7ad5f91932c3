"""Machines that lack something which a run can do without: a home, a cache, locks."""

import errno
import os
import pathlib
import socket
import warnings

import pytest

from pnoc_jax.data import cache
from pnoc_jax.errors import UserError
from pnoc_jax.io import records, user_cache
from pnoc_jax.runs import doctor, lock, runner
from tests.configs import tiny


@pytest.fixture(params=['no home', 'a home that cannot be written'])
def homeless(request, tmp_path, monkeypatch):
  """A user who can keep nothing."""
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)

  def home():
    if request.param == 'no home':
      raise RuntimeError('Could not determine home directory.')
    return tmp_path / 'file'

  (tmp_path / 'file').write_text('no directory')
  monkeypatch.setattr(pathlib.Path, 'home', home)


def test_without_a_cache_a_run_goes_on_with_one_warning(homeless, monkeypatch):
  called = []
  monkeypatch.setattr(runner.compiler, 'setup_cache', called.append)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('default')
    runner._setup_cache(tiny.get_config())
    for _ in range(2):
      found = cache.arrays('kind', [], 'what', lambda: {'x': [1, 2]})
      assert found['x'] == [1, 2]
  assert not called
  (said,) = {str(x.message) for x in caught}
  assert 'are not kept' in said and 'set XDG_CACHE_HOME' in said


def test_a_chosen_cache_is_not_the_users(homeless, monkeypatch, tmp_path):
  called, config = [], tiny.get_config()
  monkeypatch.setattr(runner.compiler, 'setup_cache', called.append)
  config.runtime.compilation_cache = str(tmp_path / 'xla')
  runner._setup_cache(config)
  assert called == [tmp_path / 'xla']
  config.runtime.compilation_cache = str(tmp_path / 'file' / 'xla')
  with pytest.warns(UserWarning, match='are not kept'):
    runner._setup_cache(config)


def test_the_doctor_tells_that_nothing_can_be_kept(homeless, tmp_path):
  report = doctor.Report()
  doctor._installation(tiny.get_config(), tmp_path / 'run', report)
  told = [x.what for x in report.of(doctor.WARNING)]
  assert told == [user_cache.fault(user_cache.directory('xla'))]


@pytest.fixture(params=['locks', 'no locks'])
def locks(request, monkeypatch):
  """File systems with and without locks."""

  def refuse(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  if request.param == 'no locks':
    monkeypatch.setattr(lock.fcntl, 'flock', refuse)


def test_a_lock_keeps_others_out_and_names_its_holder(locks, tmp_path):
  with lock.hold(tmp_path):
    told = lock.trouble(tmp_path) or ''
    who = f'process {os.getpid()} on {socket.gethostname()}, since 20'
    assert told.startswith(f'another run is at work in {tmp_path} ({who}')
    with pytest.raises(UserError) as error, lock.hold(tmp_path):
      pass
    assert str(error.value) == told
  assert lock.trouble(tmp_path) is None
  with lock.hold(tmp_path):
    pass


@pytest.mark.parametrize('host', ['here', 'elsewhere'])
def test_without_locks_a_killed_run_keeps_nobody_out(tmp_path, monkeypatch, host):
  monkeypatch.setattr(lock.fcntl, 'flock', lambda *_: (_ for _ in ()).throw(OSError(37, '')))
  held = tmp_path / '.lock.held'
  left = {'host': socket.gethostname() if host == 'here' else host, 'pid': 2**22 + 1, 'since': '1'}
  records.write_json(held, left)
  if host == 'elsewhere':  # Nobody knows its processes: their mark is renewed or not.
    with pytest.raises(UserError, match='process 4194305 on elsewhere'), lock.hold(tmp_path):
      pass
    os.utime(held, (1, 1))
  with lock.hold(tmp_path):
    assert records.read_json(held)['pid'] == os.getpid()
  assert not held.exists()


def test_a_stage_that_is_read_is_not_made_again(locks, tmp_path):
  directory = tmp_path / 'classifier'
  directory.mkdir()
  records.write_done(directory, {}, {}, {})
  with lock.read([directory, tmp_path / 'nowhere']):
    who = f'being read by another run \\(process {os.getpid()} on'
    with pytest.raises(UserError, match=who), lock.alone(directory):
      pass
  with lock.alone(directory):
    pass
  assert [path.name for path in directory.iterdir()] == ['DONE']


def test_a_directory_that_takes_no_file_is_told(tmp_path):
  (tmp_path / '.lock').mkdir()
  with pytest.raises(UserError, match='cannot be written'), lock.hold(tmp_path):
    pass
