"""The tiny config for runs in the tests' own process, and how a run is refused."""

import pathlib

import pytest

from pnoc_jax import config_flags
from pnoc_jax.config import PipelineConfig
from pnoc_jax.errors import UserError
from pnoc_jax.runs import graph, runner

CONFIG = pathlib.Path(__file__).parent / 'configs' / 'tiny.py'


def config(monkeypatch):
  """The tiny config; runs in this process leave the tests' compilation cache alone."""
  monkeypatch.setattr(runner.compiler, 'setup_cache', lambda *_, **__: None)
  return config_flags.load(str(CONFIG))


def refused(config, workdir, message):
  """Runs a config that must end before any stage begins, with an error that matches `message`."""
  with pytest.raises(UserError, match=message):
    runner.execute(config, workdir)
  # A start that fails leaves nothing, not even a directory that it made.
  left = {path.name for path in workdir.iterdir()} if workdir.exists() else set()
  assert not set(graph.names(PipelineConfig)) & left
