"""The run's command line: what it says of itself, and what it refuses."""

import argparse
import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags as ml_flags

from pnoc_jax import config_flags
from pnoc_jax.config import PipelineConfig
from pnoc_jax.runs import fields, places

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


_CONFIGURED = ('run', 'doctor', 'paper')


@pytest.mark.parametrize('script', _CONFIGURED)
def test_help_names_the_config_and_is_no_error(script):
  done = _call(script, '--help')
  assert done.returncode == 0 and not done.stderr
  assert '--config: ' in done.stdout and '--workdir: ' in done.stdout


_OTHERS = sorted(x.stem for x in (ROOT / 'launch').glob('*.py') if x.stem not in _CONFIGURED)


@pytest.mark.parametrize('script', _OTHERS)
def test_help_of_the_other_commands_is_no_error(script, capsys):
  with pytest.raises(SystemExit) as end:
    importlib.import_module(f'launch.{script}').main(['--help'])
  said = capsys.readouterr()
  assert end.value.code == 0 and 'options:' in said.out and not said.err


def _parse(monkeypatch, *words):
  """Reads a command line of `run.py`."""
  values = flags.FlagValues()
  ml_flags.DEFINE_config_file('config', flag_values=values)
  flags.DEFINE_string('fields', None, '', flag_values=values)
  monkeypatch.setattr(config_flags.flags, 'FLAGS', values)
  argv = ['run.py', *words]
  monkeypatch.setattr(sys, 'argv', argv)
  config_flags.make_parser('config', fields.table)(argv)


SHAPES = f'--config={ROOT}/configs/pnoc_shapes.py'


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    ([f'--confg={SHAPES}'], 'there is no flag --confg; did you mean --config?'),
    ([SHAPES, 'extra'], 'unknown arguments: extra'),
    ([SHAPES, '--config.generator.lr=1'], 'did you mean config.generator.optim.lr?'),
    (
      [SHAPES, '--config.method=pnoc'],
      'did you mean config.generator.method or config.c2am.method?',
    ),
    ([SHAPES, '--fields=generater'], "no field 'generater'"),
  ],
)
def test_what_is_wrong_on_the_command_line_ends_with_2(monkeypatch, capsys, words, said):
  with pytest.raises(SystemExit) as end:
    _parse(monkeypatch, *words)
  assert end.value.code == 2 and said in capsys.readouterr().err


def test_an_address_is_refused_where_a_directory_is_written():
  done = _call('run', '--config=configs/pnoc_shapes.py', '--workdir=gs://bucket/run')
  assert done.returncode == 2 and 'mount the bucket' in done.stderr
  assert not list(ROOT.glob('gs:*'))
  with pytest.raises(argparse.ArgumentTypeError, match='mount the bucket'):
    places.written('gs://bucket/x')


def test_fields_are_listed_with_type_value_and_meaning(monkeypatch, capsys):
  with pytest.raises(SystemExit) as end:
    _parse(monkeypatch, SHAPES, '--fields=generator')
  said = capsys.readouterr().out
  assert end.value.code == 0
  assert "generator.method = 'pnoc'   (text)\n    the CAM method, one of" in said
  assert 'generator.optim.rule = adam   (sgd | adam | adamw | lion | lamb)' in said
  assert 'classifier.' not in said


def test_every_field_has_a_meaning():
  bare = [x.path for x in fields.walk(PipelineConfig()) if not x.meaning]
  assert not bare


def test_processes_without_a_coordinator_are_refused(tmp_path):
  # Each of them would do the whole run.
  arguments = ('--config=configs/pnoc_shapes.py', f'--workdir={tmp_path / "run"}')
  done = _call('run', *arguments, '--config.runtime.num_processes=2')
  assert done.returncode == 2 and 'need a coordinator' in done.stderr
  assert not (tmp_path / 'run').exists()


_STOPPED = """
import runpy, signal, sys
sys.path.insert(0, '.')
from pnoc_jax.engine import loop
from pnoc_jax.runs import runner

def execute(config, workdir):
  with loop.stop_on_signals():
    signal.raise_signal(signal.{name})
    raise loop.Interrupted(3)

runner.execute = execute
sys.argv = ['launch/run.py', '--config=configs/pnoc_shapes.py']
runpy.run_path('launch/run.py', run_name='__main__')
"""


@pytest.mark.parametrize(('name', 'code'), [('SIGTERM', 143), ('SIGINT', 130)])
def test_a_stopped_run_ends_as_a_shell_says_it(name, code):
  done = subprocess.run(
    [sys.executable, '-c', _STOPPED.format(name=name)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == code, done.stderr
  assert done.stdout == 'stopped: saved at step 3; the same command resumes.\n'


_FULL = """
import runpy, sys, atexit, errno
sys.path.insert(0, '.')
from pnoc_jax.runs import runner

def execute(config, workdir):
  atexit.register(lambda: 1 / 0)
  try:
    raise {error}
  except Exception as error:
    raise RuntimeError('saving failed') from error

runner.execute = execute
sys.argv = ['launch/run.py', '--config=configs/pnoc_shapes.py', '--workdir={workdir}']
runpy.run_path('launch/run.py', run_name='__main__')
"""


@pytest.mark.parametrize(
  ('error', 'full'),
  [
    ("OSError(errno.ENOSPC, 'No space left on device', '/dev/shm/psm_1')", True),
    ("ValueError('UNKNOWN: write: No space left on device [errno 28]')", True),
    ("ValueError('another')", False),
  ],
)
def test_of_a_full_disk_the_last_line_says_what_to_do(tmp_path, error, full):
  done = subprocess.run(
    [sys.executable, '-c', _FULL.format(error=error, workdir=tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1
  said = 'Traceback' not in done.stderr and done.stderr.splitlines()[-1]
  if full:
    assert said.startswith('error: there is no room for a file (')
    assert f'{tmp_path} ' in said and '/dev/shm' in said and 'the same command again' in said
  else:
    assert not said and 'another' in done.stderr


@pytest.mark.parametrize(
  ('variables', 'said'),
  [
    ({}, 'no SLURM job is seen here'),
    (
      {'SLURM_JOB_ID': '17', 'SLURM_PROCID': '0'},
      'SLURM_STEP_NODELIST, SLURM_NTASKS, SLURM_LOCALID is missing: start it with srun',
    ),
    (
      {'SLURM_JOB_ID': '17', 'SLURM_STEP_NODELIST': 'n1', 'SLURM_NTASKS': 'x'},
      'start it with srun',
    ),
  ],
)
def test_to_join_without_a_whole_cluster_is_an_error_with_a_remedy(tmp_path, variables, said):
  env = {name: x for name, x in os.environ.items() if not name.startswith('SLURM')}
  workdir, script = tmp_path / 'run', 'launch/run.py'
  flags = '--config=configs/pnoc_shapes.py', f'--workdir={workdir}', '--distributed=on'
  done = subprocess.run(
    [sys.executable, script, *flags],
    cwd=ROOT,
    env=env | variables,
    capture_output=True,
    text=True,
    check=False,
    timeout=100,
  )
  assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
  assert 'error: the processes cannot be joined' in done.stderr and said in done.stderr
  assert '--distributed=off' in done.stderr and not workdir.exists()
