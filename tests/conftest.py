"""The tests' machine: eight fake CPU devices, and compiled programs kept between runs."""

import os

from tests import machine

# Before anything imports jax.
os.environ.update(machine.environment(machine.DEVICES))

import pytest
from absl import flags


def pytest_configure(config: pytest.Config) -> None:
  # Environment variables, so that the processes that tests start share the cache.
  cache = getattr(config, 'cache', None)
  if cache is not None and 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = os.fspath(cache.mkdir('xla'))
  # What tests find out about their data sets is no part of the user's cache.
  if cache is not None:
    os.environ['XDG_CACHE_HOME'] = os.fspath(cache.mkdir('user'))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
  # grain's worker processes read absl's flags, and no app parses them here.
  flags.FLAGS.mark_as_parsed()


LONGEST = (
  'tests/test_presets.py',
  'tests/test_pipeline.py',
  'tests/parallel/test_whole_run.py',
  'tests/test_docs.py',
  'tests/test_notebook.py',
  'tests/faults/test_runs.py',
)
"""Files that take minutes: they begin first, so that no process works on one alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Puts the longest files first."""
  items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope='session')
def mesh():
  """The mesh over all eight devices."""
  from pnoc_jax.parallel import mesh as mesh_lib

  return mesh_lib.make_mesh()


@pytest.fixture(scope='session')
def one_device():
  """A mesh of a single device, to compare with."""
  import jax

  from pnoc_jax.parallel import mesh as mesh_lib

  return mesh_lib.make_mesh(jax.devices()[:1])
