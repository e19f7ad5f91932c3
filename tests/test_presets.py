"""`:smoke` of the presets on small data sets in the true layouts: whole runs, in processes."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pnoc_jax import config_flags
from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import sources
from pnoc_jax.io import images, records, weights
from pnoc_jax.runs import graph
from tests import machine
from tests.data import miniatures

ROOT = pathlib.Path(__file__).parents[1]
ALL = tuple(graph.names(PipelineConfig))
TO_PRIORS = ('classifier', 'generator', 'priors', 'evaluation', 'report')
WITHOUT_WALK = (*TO_PRIORS, 'pseudo_masks', 'segmentation', 'predictions')


def run(preset, root, workdir, *flags):
  """Runs a preset's `:smoke` to its end on one device."""
  cache = os.environ['JAX_COMPILATION_CACHE_DIR']
  result = subprocess.run(
    [
      sys.executable,
      'launch/run.py',
      f'--config=configs/{preset}.py:smoke',
      f'--config.dataset.root={root}',
      f'--workdir={workdir}',
      f'--config.runtime.compilation_cache={cache}',
      *flags,
    ],
    cwd=ROOT,
    env=machine.environment(),
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
  return result.stdout


@pytest.mark.parametrize(
  ('preset', 'write', 'stages'),
  [
    ('pnoc_voc', miniatures.write_voc, ALL),
    ('pnoc_coco', miniatures.write_coco, ALL),
    ('pnoc_cityscapes', miniatures.write_cityscapes, (*WITHOUT_WALK, 'c2am', 'saliency_priors')),
    ('pnoc_deepglobe', miniatures.write_deepglobe, WITHOUT_WALK),
    ('pnoc_hpa', miniatures.write_hpa, TO_PRIORS),
  ],
)
def test_smoke_runs_to_its_end(tmp_path, preset, write, stages):
  root, workdir = write(tmp_path / 'data'), tmp_path / 'run'
  run(preset, root, workdir)
  assert {path.parent.name for path in workdir.glob('*/DONE')} == set(stages)
  assert (workdir / 'report' / 'index.html').is_file()
  config = config_flags.load(str(ROOT / 'configs' / f'{preset}.py'), 'smoke')
  config.dataset.root = str(root)
  for split in config.priors.splits:
    source = sources.open_source(config.dataset, split)
    labelled = [name for name, label in zip(source.ids, source.labels) if label.any()]
    assert {path.stem for path in (workdir / 'priors' / split).iterdir()} == set(labelled)
    if 'pseudo_masks' in stages:
      check_masks(workdir / 'pseudo_masks', source)
  for split in config.predictions.splits if 'predictions' in stages else ():
    source = sources.open_source(config.dataset, split)
    check_masks(workdir / 'predictions', source, labelled_only=False)
    score = records.read_json(workdir / 'evaluation' / f'predictions_{split}.json')
    assert 0 <= score['miou'] <= 100
  # Nothing is pretrained in it, and HPA's first convolution has four channels.
  variables, meta = weights.load(workdir / 'generator')
  stem = variables['params']['backbone']['stem']['conv1']['kernel']
  assert stem.shape[2] == len(source.info.mean) and meta['arch'] == 'resnest_tiny'


def check_masks(directory, source, *, labelled_only=True):
  """Every image has a label map of its size, of its classes if these are given."""
  for index, name in enumerate(source.ids):
    mask = images.read_mask(directory / source.split / f'{name}.png')
    assert mask.shape == source.size(index)
    present = {0, *(np.flatnonzero(source.labels[index]) + 1)}
    allowed = present if labelled_only else set(range(source.info.num_classes + 1))
    assert set(np.unique(mask)) <= allowed
