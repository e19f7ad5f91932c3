"""Data and weights that a run refuses before any work, by name."""

import copy

import jax
import numpy as np
import pytest

from pnoc_jax.data import info, sources
from pnoc_jax.data.augment import transforms
from pnoc_jax.engine import networks
from pnoc_jax.io import images, weights
from pnoc_jax.runs import runner
from pnoc_jax.stages import generator
from tests import refusals
from tests.data import folders


@pytest.fixture
def config(monkeypatch):
  """The tiny config."""
  return refusals.config(monkeypatch)


@pytest.fixture
def folder(config, tmp_path):
  """A sound folder of four images, and a config that reads it."""
  root = folders.write(tmp_path / 'data')
  config.dataset.name = 'folder'
  config.dataset.root = str(root)
  config.dataset.val_split = 'train'
  config.priors.splits = config.predictions.splits = config.evaluation.crf_splits = ('train',)
  return root


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda root: root.rename(root.with_name('moved')), 'no such folder'),
    (lambda root: (root / 'images' / 'b.png').unlink(), "no image for the id 'b'"),
    (
      lambda root: folders.replace(root / 'image_labels.csv', 'dog', 'dgo'),
      "unknown class 'dgo'; did you mean 'dog'",
    ),
    (
      lambda root: images.write_png(root / 'masks' / 'b.png', np.zeros((9, 9), np.uint8)),
      'the mask is 9x9 px, its image 30x24',
    ),
    (lambda root: (root / 'images' / 'c.png').write_bytes(b'\xff\xd8\xff\xe0 cut'), r'c\.png'),
  ],
  ids=['no_folder', 'no_image', 'unknown_class', 'mask_size', 'corrupt_image'],
)
def test_a_bad_folder_is_refused_before_work(folder, config, tmp_path, damage, message):
  damage(folder)
  refusals.refused(config, tmp_path / 'run', message)


def test_a_workdir_among_the_images_is_refused(folder, config):
  refusals.refused(config, folder / 'images', '--workdir is .*apart from the data set')


def test_a_corrupt_image_can_be_left_out(folder, config, tmp_path, monkeypatch):
  (folder / 'images' / 'b.png').write_bytes(b'\xff\xd8\xff\xe0 cut')
  config.dataset.on_error = info.OnError.SKIP
  started = []
  monkeypatch.setattr(runner, '_run_stage', lambda config, item, *rest: started.append(item))
  monkeypatch.setattr(runner, '_score', lambda *_: None)
  for name in ('classifier', 'generator', 'c2am', 'saliency', 'affinity', 'segmentation'):
    getattr(config, name).batch_size = 1
  _plan_only(config, tmp_path / 'run', monkeypatch)
  assert started
  rows = (tmp_path / 'run' / 'quarantine_train.csv').read_text().splitlines()
  assert rows[0] == 'id,problem'
  assert len(rows) == 2
  assert rows[1].startswith('b,')


def _plan_only(config, workdir, monkeypatch):
  """Runs all that comes before the stages, on one of the devices: the batch is a single image."""
  one = runner.meshes.make_mesh(jax.devices()[:1])
  monkeypatch.setattr(runner.meshes, 'make_mesh', lambda *_: one)
  runner.execute(config, workdir)


def test_transforms_that_cannot_work_are_refused_before_any_stage(config, tmp_path):
  config.affinity.transform.augment = transforms.Augment.RANDAUGMENT
  refusals.refused(config, tmp_path / 'run', r'affinity\.transform: .*moves the image but not its')
  config.generator.transform.hue = 0.9
  refusals.refused(config, tmp_path / 'run', r'generator\.transform: .*hue is 0\.9')


def test_weights_of_another_network_are_refused(config, tmp_path):
  other = copy.deepcopy(config.generator.model)
  other.last_stage = 'layer2'
  dataset = sources.open_source(config.dataset, 'train').info
  model = networks.build(other, dataset.num_classes)
  zeros = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), networks.abstract_variables(model, dataset)
  )
  weights.save(tmp_path / 'resnet18', zeros, meta={'arch': 'resnet18'})
  config.generator.init = str(tmp_path / 'resnet18')
  refusals.refused(
    config, tmp_path / 'run', 'holds weights of resnet18, but the model is resnest_tiny'
  )
  # The right name with other shapes does not pass either.
  del zeros['params']['backbone']['layer1']
  weights.save(tmp_path / 'cut', zeros, meta={'arch': 'resnest_tiny'})
  config.generator.init = str(tmp_path / 'cut')
  refusals.refused(config, tmp_path / 'run', 'does not fit the model')
  config.generator.start = generator.NetworkStart.CLASSIFIER
  config.generator.init = str(tmp_path / 'cut')
  refusals.refused(config, tmp_path / 'run', 'would not be used. Leave init out')
  config.generator.init, config.generator.model = '', other
  refusals.refused(config, tmp_path / 'run', 'tiny to layer1 and generator.model is .* to layer2')
  config.generator.model = config.classifier.model
  config.generator.start = generator.NetworkStart.PRETRAINED
  config.generator.init = str(tmp_path / 'nowhere')
  refusals.refused(config, tmp_path / 'run', 'no weights at')
