"""The command that rebuilds a page: what it does where the data set is not found."""

import os
import pathlib
import subprocess
import sys

import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.io import records
from tests.data import folders

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def workdir(tmp_path):
  """A run on `data`, a directory beside it, which has a page."""
  config = config_lib.PipelineConfig()
  folders.write(tmp_path / 'data')
  config.dataset.name, config.dataset.root = 'folder', 'data'
  config.priors.splits = ('train',)
  records.write_json(tmp_path / 'run' / 'config.json', config)
  page = tmp_path / 'run' / 'report' / 'index.html'
  page.parent.mkdir()
  page.write_text('with pictures')
  return tmp_path / 'run'


def _report(cwd, workdir, *flags):
  return subprocess.run(
    [sys.executable, str(ROOT / 'launch' / 'report.py'), f'--workdir={workdir}', *flags],
    cwd=cwd,
    env=os.environ,
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_page_with_pictures_is_not_replaced_by_one_without(workdir, tmp_path):
  page, elsewhere = workdir / 'report' / 'index.html', tmp_path / 'elsewhere'
  elsewhere.mkdir()
  done = _report(elsewhere, workdir)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert 'the page would have no pictures' in done.stderr and '--root=DIR' in done.stderr
  assert "the run's is 'data'" in done.stderr
  assert page.read_text() == 'with pictures'


@pytest.mark.parametrize(
  ('where', 'flags'),
  [('.', ()), ('run', ('--root=../data',)), ('run', ('--images=0',))],
)
def test_with_the_data_set_or_by_request_the_page_is_made(workdir, tmp_path, where, flags):
  done = _report(tmp_path / where, workdir, *flags)
  assert done.returncode == 0, done.stderr
  assert '<html' in (workdir / 'report' / 'index.html').read_text(encoding='utf-8')
