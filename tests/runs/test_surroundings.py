"""Machines that lack something which a run can do without: a home, a cache, locks."""

import contextlib
import errno
import os
import pathlib
import socket
import threading
import time
import warnings

import pytest

from pnoc_jax.data import cache
from pnoc_jax.engine import loop
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
    monkeypatch.setattr(lock, '_RENEWED', 0.01)
  with lock.hold(tmp_path):
    assert records.read_json(held)['pid'] == os.getpid()
  assert not held.exists()


@pytest.fixture
def no_locks(monkeypatch):
  """A file system without locks, where a file stands for one."""
  monkeypatch.setattr(lock.fcntl, 'flock', lambda *_: (_ for _ in ()).throw(OSError(37, '')))
  monkeypatch.setattr(lock, '_RENEWED', 0.05)


@contextlib.contextmanager
def _mark_of(path, *, time_off=0.0, renewed=False, **changes):
  """Somebody else's mark, made some seconds ago as the clock tells, and perhaps renewed."""
  records.write_json(path, {'host': 'elsewhere', 'pid': 7, 'since': '1'} | changes)
  ended = threading.Event()

  def touch():
    at = time.time() + time_off
    while not ended.wait(0.01):
      at += 0.01
      os.utime(path, (at, at))

  thread = threading.Thread(target=touch)
  os.utime(path, (time.time() + time_off,) * 2)
  if renewed:
    thread.start()
  try:
    yield
  finally:
    ended.set()
    if renewed:
      thread.join()


@pytest.mark.parametrize('time_off', [-3600.0, 3600.0])
def test_clocks_that_were_set_neither_let_in_nor_keep_out(no_locks, tmp_path, time_off):
  held = tmp_path / '.lock.held'
  with (
    _mark_of(held, time_off=time_off, renewed=True),
    pytest.raises(UserError, match=rf'process 7 on elsewhere.*if it has ended, remove {held}'),
    lock.hold(tmp_path),
  ):
    pass
  with _mark_of(held, time_off=time_off), lock.hold(tmp_path):
    assert records.read_json(held)['pid'] == os.getpid()


def test_a_process_of_another_container_is_known_by_its_renewals(no_locks, tmp_path):
  held, host = tmp_path / '.lock.held', socket.gethostname()
  with (
    _mark_of(held, time_off=-3600, renewed=True, host=host, pid=2**22 + 1, space='another start'),
    pytest.raises(UserError, match='another run is at work'),
    lock.hold(tmp_path),
  ):
    pass
  # A container that starts anew often has the same name, and its process the same number.
  for space in ('another start', lock._space()):
    with (
      _mark_of(held, time_off=-3600, host=host, pid=os.getpid(), space=space),
      lock.hold(tmp_path),
    ):
      pass


def test_of_two_that_find_a_mark_stale_one_gets_in(no_locks, tmp_path, monkeypatch):
  held, stale = tmp_path / '.lock.held', lock._is_stale

  def slow(path, **options):
    found = stale(path, **options)
    held.unlink()
    records.write_json(held, {'host': 'elsewhere', 'pid': 8, 'since': '2'})  # It was quicker.
    return found

  monkeypatch.setattr(lock, '_is_stale', slow)
  with (
    _mark_of(held, time_off=-3600),
    pytest.raises(UserError, match='process 8 on elsewhere'),
    lock.hold(tmp_path),
  ):
    pass
  assert records.read_json(held)['pid'] == 8
  assert sorted(path.name for path in tmp_path.iterdir()) == ['.lock', '.lock.held']


def test_a_run_whose_mark_was_taken_over_stops_and_leaves_the_other_one(no_locks, tmp_path, capfd):
  held = tmp_path / '.lock.held'
  with loop.stop_on_signals() as asked, lock.hold(tmp_path):
    held.rename(tmp_path / 'x')  # As who takes it over does: the number of a file is used again.
    records.write_json(held, {'host': 'elsewhere', 'pid': 8, 'since': '2'})
    limit = time.monotonic() + 10
    while not asked() and time.monotonic() < limit:
      time.sleep(0.01)
    assert asked()
  assert records.read_json(held)['pid'] == 8
  assert 'was taken over by another process' in capfd.readouterr().err


def test_an_error_of_the_work_passes_a_lock_unchanged(locks, tmp_path):
  with pytest.raises(FileExistsError), lock.hold(tmp_path):
    (tmp_path / '.lock').mkdir()


def test_a_directory_without_permission_is_told_though_its_lock_is_there(tmp_path, monkeypatch):
  (tmp_path / '.lock').touch()
  monkeypatch.setattr(lock.os, 'access', lambda *_: False)
  with pytest.raises(UserError, match='cannot be written: Permission denied'), lock.hold(tmp_path):
    pass


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


def test_a_lock_that_cannot_be_read_is_told(tmp_path, monkeypatch):
  def denied(*_):
    raise PermissionError(errno.EACCES, 'Permission denied')

  (tmp_path / '.lock').touch()
  monkeypatch.setattr(lock.os, 'open', denied)
  assert lock.trouble(tmp_path) == f'{tmp_path} cannot be read: Permission denied'


def test_a_directory_that_takes_no_file_is_told(tmp_path):
  (tmp_path / '.lock').mkdir()
  with pytest.raises(UserError, match='cannot be written'), lock.hold(tmp_path):
    pass
