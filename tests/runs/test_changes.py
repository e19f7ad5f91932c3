"""Images that were changed after a stage began are named at the next start."""

import os

import pytest
from data import folders

from pnoc_jax import config as config_lib
from pnoc_jax.data import sources as sources_lib
from pnoc_jax.runs import changes, graph


@pytest.fixture
def config(tmp_path):
  result = config_lib.PipelineConfig()
  result.dataset.name, result.dataset.root = 'folder', str(folders.write(tmp_path / 'data'))
  result.dataset.val_split, result.priors.splits = 'train', ('train',)
  return result


def _start(config, workdir, *, until):
  """Does as the runner; returns what is said, and leaves the stages up to one done."""
  sources = {'train': sources_lib.open_source(config.dataset, 'train')}
  plan, states = graph.make_plan(config, workdir, sources), changes.look(sources)
  said = changes.find(workdir, plan, states)
  if not said:
    changes.note(workdir, states)
  for item in plan:
    if item.runs:
      graph.begin(item, changes.digests(item.stage, config, states))
      graph.finish(item, {})
    if item.stage.name == until:
      break
  return said


def test_an_image_that_changed_is_named_with_the_stages(config, tmp_path):
  workdir = tmp_path / 'run'
  assert _start(config, workdir, until='generator') == {}
  assert _start(config, workdir, until='generator') == {}
  os.utime(tmp_path / 'data' / 'masks' / 'b.png', ns=(1, 1))  # Evaluation sees to it.
  assert _start(config, workdir, until='generator') == {}
  os.utime(tmp_path / 'data' / 'images' / 'b.png', ns=(1, 1))
  for _ in range(2):  # As long as it is so.
    assert _start(config, workdir, until='generator') == {
      'train': '1 images have changed, e.g. b.png, since classifier, generator began, which are '
      'not made again: --config.rerun=classifier does so'
    }
  # Priors are made of the images as they are, and are not among the stages concerned.
  assert 'priors' not in _start(config, workdir, until='priors')['train']
  assert 'priors' not in _start(config, workdir, until='priors')['train']
  config.rerun = 'classifier'
  assert _start(config, workdir, until='priors') == {}
  config.rerun = ''
  assert _start(config, workdir, until='priors') == {}


def test_computed_images_do_not_change(tmp_path):
  config = config_lib.PipelineConfig()
  config.dataset.shapes.train, config.dataset.shapes.size = 4, 16
  assert changes.look({'train': sources_lib.open_source(config.dataset, 'train')}) == {}
