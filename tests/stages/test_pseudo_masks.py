"""Pseudo masks: the argmax against a loop over pixels, and files that survive being killed."""

import itertools
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from pnoc_jax.engine import loop
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products
from pnoc_jax.ops import crf as crf_ops
from pnoc_jax.stages import pseudo_masks
from pnoc_jax.stages.common import maps
from tests.stages import contexts, label_maps

PRIORS, WALK = maps.Scores.PRIORS, maps.Scores.RANDOM_WALK


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  return label_maps.write_inputs(tmp_path_factory.mktemp('made'))


def _config(source=WALK, saliency=maps.Saliency.NONE, steps=0):
  config = label_maps.make_config()
  ours = config.pseudo_masks
  ours.source, ours.saliency, ours.crf.steps = source, saliency, steps
  ours.threshold = 0.4
  return config


def _run(config, inputs, out, **keywords):
  runtime = label_maps.make_runtime(out, **keywords)
  return contexts.run(pseudo_masks.STAGE, config, inputs, out, runtime)['images']


@pytest.mark.parametrize(
  ('source', 'saliency'),
  [
    (WALK, maps.Saliency.NONE),
    (PRIORS, maps.Saliency.NONE),
    (PRIORS, maps.Saliency.NETWORK),
    (WALK, maps.Saliency.PRIORS),
  ],
)
def test_without_steps_the_masks_are_the_argmax(inputs, tmp_path, source, saliency):
  assert _run(_config(source, saliency), inputs, tmp_path) == 8
  met = set()
  for split, (index, (height, width)) in itertools.product(
    ('train', 'val'), enumerate(label_maps.SIZES)
  ):
    found = images.read_mask(tmp_path / split / f'{split}_{index}.png')
    assert found.shape == (height, width)
    if not label_maps.PRESENT[index]:
      assert not found.any()
      continue
    keys, scores = label_maps.maps_of(index, seed=int(source is WALK))
    background = np.full((height, width), 0.4, np.float32)
    if saliency is not maps.Saliency.NONE:
      (directory,) = saliency.stages
      grey = images.read_mask(inputs[directory] / split / f'{split}_{index}.png')
      background = np.float32(1) - grey / np.float32(255)
    for y, x in itertools.product(range(height), range(width)):
      best = int(np.argmax(scores[:, y, x]))
      expected = keys[best + 1] if scores[best, y, x] > background[y, x] else 0
      assert found[y, x] == expected
    met |= set(np.unique(found).tolist())
  assert met == {0, 1, 2, 3, 4}


def test_masks_are_palette_pngs_in_the_colours_of_the_data_set(inputs, tmp_path):
  _run(_config(), inputs, tmp_path)
  with Image.open(tmp_path / 'val' / 'val_0.png') as image:
    assert image.mode == 'P'
    assert np.array(image.getpalette()[:15]).reshape(5, 3).tolist() == [
      list(color) for color in label_maps.Memory().info.palette
    ]


def test_the_crf_refines_the_label_map_as_it_does_alone(inputs, tmp_path):
  config = _config(steps=1)
  config.priors.splits = ('val',)
  assert config.pseudo_masks.crf.confidence == 0.9
  refinement = config.pseudo_masks.crf
  refinement.confidence, refinement.bilateral_srgb = 0.6, 40.0
  refinement.filter = crf_ops.Filter.EXACT
  _run(config, inputs, tmp_path)
  keys, scores = label_maps.maps_of(0, seed=1)
  image = label_maps.Memory('val').example(0)['image']
  labels = np.where(scores[0] > np.float32(0.4), 1, 0)

  @jax.jit
  def refine(labels):
    unary = crf_ops.label_unary(labels, 2, 0.6)
    options = {'kernels': refinement.kernels, 'filter': crf_ops.Filter.EXACT}
    return crf_ops.dense_crf(unary, image, steps=1, **options).argmax(-1)

  refined = np.asarray(refine(labels))
  assert (refined != labels).any()
  found = images.read_mask(tmp_path / 'val' / 'val_0.png')
  np.testing.assert_array_equal(found, keys[refined])


def test_killed_and_resumed_gives_the_same_files(inputs, tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  _run(_config(), inputs, whole)
  for images_there in (2, 4):
    with pytest.raises(loop.Interrupted):
      _run(_config(), inputs, parts, stop_after=2)
    assert len(label_maps.read_all(parts)) == images_there
  assert _run(_config(), inputs, parts) == 4
  assert label_maps.read_all(parts) == label_maps.read_all(whole)


def test_walks_that_do_not_fit_are_named_before_anything_is_written(inputs, tmp_path):
  made = {**inputs, 'random_walk': tmp_path / 'random_walk'}
  shutil.copytree(inputs['random_walk'], made['random_walk'])
  folder = made['random_walk'] / 'val'
  cut = folder / 'val_0.npz'
  cut.write_bytes(cut.read_bytes()[:-20])
  keys, walk = label_maps.maps_of(1, seed=1)
  products.write_walk(folder / 'val_1.npz', keys, walk[:, 1:])
  keys, walk = label_maps.maps_of(3, seed=1)
  products.write_walk(folder / 'val_3.npz', keys + np.int32([0, 3, 3]), walk)
  with pytest.raises(UserError, match=r'(?s)val_0.*cut.*val_1.*31.*val_3.*holds 6'):
    _run(_config(), made, tmp_path / 'out')
  # A prior in the place of a walk.
  shutil.copy(inputs['priors'] / 'val' / 'val_0.npz', cut)
  (folder / 'val_1.npz').unlink()
  with pytest.raises(UserError, match=r'(?s)3 walks.*val_0.*val_1'):
    runtime = label_maps.make_runtime(tmp_path)
    contexts.check(pseudo_masks.STAGE, _config(), made, tmp_path / 'out', runtime)
  assert not (tmp_path / 'out').exists()


def test_needs_follow_the_sources():
  assert pseudo_masks.STAGE.needs(_config()) == ('random_walk',)
  config = _config(PRIORS, maps.Saliency.NETWORK)
  assert pseudo_masks.STAGE.needs(config) == ('priors', 'saliency')
  config.pseudo_masks.threshold = 1.5
  assert len(pseudo_masks.STAGE.faults(config)) == 1
