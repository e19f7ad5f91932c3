"""Machines that lack something which a run can do without: a home, a cache, locks."""

import errno
import pathlib
import warnings

import pytest

from pnoc_jax.data import cache
from pnoc_jax.errors import UserError
from pnoc_jax.io import user_cache
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


def test_a_file_system_without_locks_is_no_other_run(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(lock.fcntl, 'flock', refuse)
  told = pytest.warns(UserWarning, match=r'knows no locks \(No locks available\)')
  with told, lock.hold(tmp_path):
    assert 'knows no locks' in (lock.trouble(tmp_path) or '')


def test_a_lock_keeps_others_out_as_long_as_it_is_held(tmp_path):
  with lock.hold(tmp_path):
    assert lock.trouble(tmp_path) == f'another run is at work in {tmp_path}'
    with pytest.raises(UserError, match='another run is at work'), lock.hold(tmp_path):
      pass
  assert lock.trouble(tmp_path) is None


def test_a_directory_that_takes_no_file_is_told(tmp_path):
  (tmp_path / '.lock').mkdir()
  with pytest.raises(UserError, match='cannot be written'), lock.hold(tmp_path):
    pass
