"""The run's command line: what it says of itself, and what it refuses."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _call(script, *arguments):
  return subprocess.run(
    [sys.executable, f'launch/{script}.py', *arguments],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    timeout=200,
    check=False,
  )


@pytest.mark.parametrize('script', ['run', 'doctor'])
def test_the_help_names_the_config(script):
  said = _call(script, '--help').stdout
  assert '--config: ' in said and '--workdir: ' in said


def test_processes_without_a_coordinator_are_refused(tmp_path):
  # Each of them would do the whole run.
  arguments = ('--config=configs/pnoc_shapes.py', f'--workdir={tmp_path / "run"}')
  done = _call('run', *arguments, '--config.runtime.num_processes=2')
  assert done.returncode == 1 and 'need a coordinator' in done.stderr
  assert not (tmp_path / 'run').exists()
