"""Runs that are killed, whose disk fails, and of which files are lost end as undisturbed ones do.

The toy run of `tests/configs/toy.py` meets a few faults here; the commands in the files that do it
take any config and any number of them.
"""

import os
import pathlib
import subprocess
import sys

import pytest
from faults import failing_disk, killed_runs, launches

from tests import machine

ROOT = pathlib.Path(__file__).parents[2]
SEED = 16
# One process imports everything, and forks each launch.
_SHARE = f"""
import pathlib, sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]
from faults import damaged_runs, failing_disk, killed_runs, launches
from pnoc_jax.runs import runner
root, cache = pathlib.Path(sys.argv[1]), sys.argv[2]
flags = ['--config=tests/configs/toy.py', f'--config.runtime.compilation_cache={{cache}}']
print(killed_runs.kills(flags, root, 6, {SEED}))
print(failing_disk.check(flags, root, among=(0, 1, 9)))
print(damaged_runs.check(flags, root, 3, {SEED}))

def slow(tell):
  from pnoc_jax.parallel import company
  leave = company.Company.__exit__
  def late(self, *error):
    time.sleep(2.0 * self._me)
    leave(self, *error)
  company.Company.__exit__ = late
  return tell

two = [*flags, f'--workdir={{root}}/whole']  # Which is done.
late = launches.start(two, root / 'late.log', processes=2, fault=slow)
print('codes', late.end(120.0))
print((root / 'late.1.log').read_text(encoding='utf-8'))
"""


@pytest.fixture(scope='module')
def told(tmp_path_factory):
  """What was told, a list of lines."""
  done = subprocess.run(
    [sys.executable, '-c', _SHARE, tmp_path_factory.mktemp('faults'),
     os.environ['JAX_COMPILATION_CACHE_DIR']],
    cwd=ROOT, env=machine.environment(), capture_output=True, text=True, timeout=300, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout.splitlines()


def _faults(told, number):
  return [line for line in told if line.startswith('[')][number]


def test_a_run_killed_at_random_moments_ends_as_one_that_is_not(told):
  assert '6 of 6 launches were killed' in told
  assert _faults(told, 0) == '[]', '\n'.join(told)


def test_a_disk_that_fails_is_told_in_a_line_and_the_run_goes_on(told):
  met = [line for line in told if ': exit 1: error: ' in line]
  assert len(met) == 3 and any('a disk fails' in x for x in met)
  assert any('there is no room for a file' in x for x in met)
  assert _faults(told, 1) == '[]', '\n'.join(told)


def test_lost_files_are_made_again_or_named(told):
  assert _faults(told, 2) == '[]', '\n'.join(told)


def test_a_launch_of_two_processes_ends_when_the_slower_one_has_said_its_last_word(told):
  codes = next(line for line in told if line.startswith('codes '))
  assert codes.count(': 0') == 2, '\n'.join(told)


def test_a_comparison_with_nothing_is_an_error_not_a_success():
  with pytest.raises(ValueError, match='no finished stage among 1 files'):
    launches.differences({'config.json': b''}, {'config.json': b''})
  finished = {'config.json': b'', 'priors/DONE': ('', {})}
  assert launches.differences(finished, finished) == []
  assert launches.differences({'config.json': b''}, finished) == ['priors/DONE']


def test_what_an_earlier_call_left_is_not_taken_for_runs_of_this_one(tmp_path):
  root = launches.new_directory(tmp_path / 'new')
  assert root.is_dir() and launches.new_directory(root) == root
  (root / 'whole').mkdir()
  with pytest.raises(ValueError, match='new is not empty'):
    launches.new_directory(root)


@pytest.mark.parametrize(('killed', 'faults'), [(0, 1), (1, 1), (2, 0), (4, 0)])
def test_launches_that_end_before_they_are_killed_are_a_fault(
  monkeypatch, tmp_path, killed, faults
):
  outcomes = iter(['killed; 0 s later the others had ended with [1]'] * killed + ['finished'] * 4)
  victims = []

  def strike(*_, victim, **__):
    victims.append(victim)
    return next(outcomes)

  monkeypatch.setattr(killed_runs, 'record', lambda *_: [(0.0, 'start'), (9.0, 'end')])
  monkeypatch.setattr(killed_runs, 'strike', strike)
  monkeypatch.setattr(killed_runs, '_finish', lambda *_: [])
  assert len(killed_runs.kills([], tmp_path, 4, SEED, processes=2)) == faults
  assert sorted(victims) == [0, 0, 1, 1]


@pytest.mark.parametrize(
  ('told', 'patience'),
  [([], killed_runs.JOINING), (['before /run/config.json'], killed_runs.ALONE)],
)
def test_who_may_not_have_met_process_0_has_longer_to_end(monkeypatch, tmp_path, told, patience):
  waited, killed, told = [], [], list(told)

  class Launch:
    pids, codes, age = (1, 2), {}, 0.0

    def event(self, seconds=None):
      return told.pop() if told else None

    def end(self, seconds):
      waited.append(seconds)
      return {1: -9, 2: 1}

  monkeypatch.setattr(launches, 'start', lambda *_, **__: Launch())
  monkeypatch.setattr(killed_runs.os, 'waitpid', lambda *_: (0, 0))
  monkeypatch.setattr(killed_runs.os, 'kill', lambda pid, _: killed.append(pid))
  moment = killed_runs.Moment('start', 'start', 0.5, frozenset())
  assert killed_runs.strike([], tmp_path / 'run', moment, set(), processes=2).startswith('killed')
  assert waited == [patience] and killed == [1]


def test_the_port_of_a_launch_is_all_of_a_config_that_is_not_compared(tmp_path):
  found = []
  for port, seed in ((1, 0), (2, 0), (1, 1)):
    text = f'{{"seed": {seed}, "coordinator": "localhost:{port}"}}'
    (tmp_path / 'config.json').write_text(text, encoding='utf-8')
    found.append(launches.lasting(tmp_path))
  assert found[0] == found[1] != found[2]


def test_a_disk_that_never_failed_is_a_fault(monkeypatch, tmp_path):
  class Launch:
    pids = (1,)

    def events(self):
      return iter(())

    def end(self, seconds):
      return {1: 0}

  monkeypatch.setattr(launches, 'start', lambda *_, **__: Launch())
  monkeypatch.setattr(launches, 'lasting', lambda _: {'priors/DONE': ''})
  assert failing_disk.check([], tmp_path) == ['0 errors were met']
  assert failing_disk.check([], tmp_path, among=(3,)) == ['0 errors were met']
