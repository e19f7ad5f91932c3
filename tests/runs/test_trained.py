"""A trained network treats images of any origin as its run did."""

import copy
import json

import numpy as np
import pytest

from pnoc_jax.data.readers import loose
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, weights
from pnoc_jax.predict import segmentation as pure
from pnoc_jax.runs import trained
from pnoc_jax.stages import predictions
from tests.launch import finished_run

SIDE = 24


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run that squeezes images to a square before it scales them."""
  directory = finished_run.write(tmp_path_factory.mktemp('run'))
  settings = {'resize_to': SIDE, 'scales': [1.0], 'batch_size': 1}
  (directory / 'config.json').write_text(json.dumps({'predictions': settings}))
  return directory


def _write(path, size):
  coarse = np.random.default_rng(size).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
  images.write_png(path, images.resize_bicubic(coarse, size))


def _squeezed(found, image):
  """Labels of the image's own size by the pure call, from the image in the run's square."""
  square = images.resize_bilinear(image, (SIDE, SIDE)) / 255
  normalized = ((square - found.dataset.mean) / found.dataset.std)[None].astype(np.float32)
  sides, native = (np.array([size], np.int32) for size in ((SIDE, SIDE), image.shape[:2]))
  soft = pure.probabilities(
    found.model, found.variables, [normalized], [sides], native, shape=image.shape[:2]
  )
  return np.asarray(soft)[0].argmax(-1)


def test_images_are_squeezed_as_in_the_run_and_labels_have_their_own_size(run, tmp_path):
  sizes = {'wide': (40, 56), 'large': (80, 72)}
  for name, size in sizes.items():
    _write(tmp_path / 'album' / f'{name}.png', size)
  found = trained.load(run)
  assert found.inference.resize_to == SIDE
  assert trained.load(run / 'segmentation').inference == found.inference
  trained.predict_files(found, tmp_path / 'album', tmp_path / 'out', max_side=64)
  source = loose.LooseImages(loose.find(tmp_path / 'album'), found.dataset, max_side=64)
  for index, name in enumerate(source.ids):
    labels = images.read_mask(tmp_path / 'out' / f'{name}.png')
    assert labels.shape == sizes[name]
    expected = _squeezed(found, source.example(index)['image']).astype(np.uint8)
    expected = images.resize_nearest(expected, sizes[name])
    assert len(np.unique(expected)) > 1
    # Padding moves the last bits: a pixel between two labels may fall to either.
    assert (labels == expected).mean() > 0.998


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    *(('crop', x) for x in (float('inf'), -1, 1e30, 10**30, '8')),
    *(('head.width', x) for x in (0, -4, 6)),
    *(('head.rates', x) for x in ([], [0], [-1])),
    ('head.dropout', [1, 1, 1]),
    ('dataset.mean', [float('nan')] * 3),
  ],
)
def test_weights_that_claim_what_cannot_be_are_refused(run, tmp_path, field, value):
  variables, meta = weights.load(run / 'segmentation')
  inner, _, key = field.rpartition('.')
  meta = copy.deepcopy(meta)
  (meta[inner] if inner else meta)[key] = value
  weights.save(tmp_path / 'segmentation', variables, meta=meta)
  with pytest.raises(UserError, match='are not the weights of a segmentation network'):
    trained.load(tmp_path)


def test_images_in_memory_are_segmented_as_in_the_run(run):
  found = trained.load(run)
  draw = np.random.default_rng(0).integers
  album = [
    images.resize_bicubic(draw(0, 256, (5, 7, 3), np.uint8), size) for size in ((40, 56), (32, 24))
  ]
  labels = found.predict(album)
  for one, image in zip(labels, album, strict=True):
    assert one.shape == image.shape[:2]
    assert one.dtype == np.int32
    assert (one == _squeezed(found, image)).mean() > 0.998
  with pytest.raises(ValueError, match=r'float64\[40, 56, 3\], expected uint8\[H, W, 3\]'):
    found.predict([album[0] / 255])


def test_without_a_config_inference_has_its_defaults(tmp_path):
  found = trained.load(finished_run.write(tmp_path))
  assert found.inference == predictions.PredictionsConfig()


def test_the_network_of_another_run_is_found(run, tmp_path):
  config = {'inputs': {'segmentation': str(run / 'segmentation')}, 'predictions': {'flip': False}}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  found = trained.load(tmp_path)
  assert found.dataset == trained.load(run).dataset
  assert (found.inference.flip, found.inference.resize_to) == (False, 0)
