"""Two processes of two devices run from labels to the walk as one does, and share checkpoints."""

import concurrent.futures
import functools

import numpy as np
import pytest

from pnoc_jax import trees
from pnoc_jax.io import checkpoints, products, weights
from tests.parallel import two_processes, whole_run


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A run by this process, and one by two others, with a step by this one in between."""
  folder, found = tmp_path_factory.mktemp('runs'), {}
  pair = functools.partial(
    two_processes.run, 'tests.parallel.whole_run:in_two_processes', str(folder / 'run'), devices=2
  )
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    begun = pool.submit(pair, True)
    assert whole_run.execute(folder / 'alone')
    assert begun.result() == [False, False]
  found['theirs'] = _steps(folder)
  assert not whole_run.execute(
    folder / 'run', lambda: whole_run.logged(folder / 'run') > whole_run.STOPPED
  )
  found['ours'] = _steps(folder)
  assert pair(False) == [True, True]
  return folder, found


def _steps(folder):
  with checkpoints.Checkpoints(folder / 'run' / 'generator' / 'checkpoints') as saved:
    return saved.steps()


def test_a_checkpoint_of_two_processes_is_continued_by_one_and_back(runs):
  _, found = runs
  stopped = whole_run.STOPPED
  assert found['theirs'][-1] == stopped and found['ours'][-1] == stopped + 1


@pytest.mark.parametrize('name', ['classifier', 'generator', 'affinity'])
def test_weights_are_those_of_one_process(runs, name):
  found, expected = (
    trees.flatten_names(weights.load(runs[0] / run / name)[0]) for run in ('run', 'alone')
  )
  assert found.keys() == expected.keys()
  for leaf, value in expected.items():
    np.testing.assert_allclose(found[leaf], value, rtol=1e-4, atol=1e-5, err_msg=leaf)


@pytest.mark.parametrize(
  ('name', 'read'), [('priors', products.read_prior), ('random_walk', products.read_walk)]
)
def test_every_image_has_the_product_that_one_process_makes(runs, name, read):
  paths = sorted((runs[0] / 'alone' / name).glob('*/*.npz'))
  assert len(paths) == 16
  for path in paths:
    theirs = runs[0] / 'run' / path.relative_to(runs[0] / 'alone')
    expected, found = (read(x)._asdict() for x in (path, theirs))
    for key, value in expected.items():
      np.testing.assert_allclose(found[key], value, atol=2e-3, err_msg=f'{path.name}: {key}')
