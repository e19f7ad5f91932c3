"""Runs that are killed, whose disk fails, and of which files are lost end as undisturbed ones do.

The toy run of `tests/configs/toy.py` meets a few faults here; the commands in the files that do it
take any config and any number of them.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import machine

ROOT = pathlib.Path(__file__).parents[2]
SEED = 16
# One process imports everything, and forks each launch.
_SHARE = f"""
import pathlib, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]
from faults import damaged_runs, failing_disk, killed_runs
from pnoc_jax.runs import runner
root, cache = pathlib.Path(sys.argv[1]), sys.argv[2]
flags = ['--config=tests/configs/toy.py', f'--config.runtime.compilation_cache={{cache}}']
print(killed_runs.kills(flags, root, 6, {SEED}))
print(failing_disk.check(flags, root, among=(0, 1, 9)))
print(damaged_runs.check(flags, root, 3, {SEED}))
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
