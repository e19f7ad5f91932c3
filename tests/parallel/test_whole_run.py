"""Two processes of two devices run from labels to the walk as one does, and share checkpoints."""

import concurrent.futures
import time

import numpy as np
import pytest

from pnoc_jax import trees
from pnoc_jax.io import checkpoints, products, weights
from tests.parallel import two_processes, whole_run


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A run by this process, and one by two others, with a step by this one in between."""
  folder, found = tmp_path_factory.mktemp('runs'), {}
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pair = pool.submit(
      two_processes.run, 'tests.parallel.whole_run:in_two_processes', str(folder), devices=2
    )
    assert whole_run.execute(folder / 'alone')
    while not ((folder / 'stopped').exists() or pair.done()):
      time.sleep(0.1)
    found['theirs'], asked = _steps(folder), []
    if not pair.done():
      assert not whole_run.execute(folder / 'run', lambda: asked.append(0) or len(asked) == 2)
      found['ours'] = _steps(folder)
    (folder / 'continued').touch()
    found['ends'] = pair.result()
  return folder, found


def _steps(folder):
  with checkpoints.Checkpoints(folder / 'run' / 'generator' / 'checkpoints') as saved:
    return saved.steps()


def test_a_checkpoint_of_two_processes_is_continued_by_one_and_back(runs):
  _, found = runs
  stopped = whole_run.STOPPED
  assert found['theirs'][-1] == stopped and found['ours'][-1] == stopped + 1
  assert found['ends'] == [[False, True]] * 2


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
