"""Streams are a pure function of (seed, position), whoever reads them."""

import gc
import itertools

import numpy as np
import pytest
from data import folders

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.readers import folder, shapes
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.io import images

TRANSFORM = transforms.TransformConfig(
  min_size=24, max_size=40, crop=32, augment=transforms.Augment.RANDAUGMENT
)
NAMES = ('image', 'box', 'label', 'index')


@pytest.fixture(scope='module')
def source():
  return shapes.ShapesSource(info.ShapesConfig(size=32, train=22, val=10), 'train')


def _batches(source, count=7, **options):
  options = {'batch_size': 8, 'seed': 3} | options
  with pipeline.train_batches(pipeline.Examples(source), TRANSFORM, **options) as batches:
    return list(itertools.islice(batches, count))


def _assert_equal(ours, theirs):
  assert len(ours) == len(theirs)
  for one, other in zip(ours, theirs, strict=True):
    assert set(one) == set(other)
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_batches_have_the_promised_arrays(source):
  batch = _batches(source, 1)[0]
  assert {name: (x.shape, x.dtype.name) for name, x in batch.items()} == {
    'image': ((8, 32, 32, 3), 'uint8'),
    'box': ((8, 4), 'int32'),
    'label': ((8, 6), 'float32'),
    'index': ((8,), 'int32'),
  }
  np.testing.assert_array_equal(batch['label'], source.labels[batch['index']])


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_the_same_global_batches(source, processes):
  shares = [pipeline.Share(index, processes) for index in range(processes)]
  parts = [_batches(source, 4, share=share) for share in shares]
  joined = [
    {name: np.concatenate([x[name] for x in group]) for name in NAMES}
    for group in zip(*parts, strict=True)
  ]
  _assert_equal(joined, _batches(source, 4))


def test_workers_and_resuming_change_nothing(source):
  stream = _batches(source, 7)
  _assert_equal(_batches(source, 4, start_step=3, share=pipeline.Share(workers=4)), stream[3:])
  _assert_equal(_batches(source, 2, start_step=5), stream[5:])


def test_a_whole_pass_leaves_no_memory_that_processes_share():
  """Python tells of it at the end: "leaked shared_memory objects"."""
  source = shapes.ShapesSource(info.ShapesConfig(size=32, val=4), 'val')
  gc.disable()  # It would find the memory at some time, or never in a short run.
  try:
    share = pipeline.Share(workers=1)
    with pipeline.valid_batches(source, size=32, batch_size=2, share=share) as batches:
      assert len(list(batches)) == 2
    assert not [x for x in gc.get_objects() if type(x).__name__ == 'SharedMemoryArray']
  finally:
    gc.enable()


def test_an_epoch_shows_an_image_at_most_once_and_epochs_differ(source):
  assert pipeline.Examples(source).steps_per_epoch(8) == 2
  index = [x['index'] for x in _batches(source, 6)]
  epochs = [np.concatenate(index[i : i + 2]) for i in (0, 2, 4)]
  for epoch in epochs:
    assert len(set(epoch.tolist())) == 16
  assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()
  far = _batches(source, 1, start_step=10**9)[0]
  assert far['image'].shape == (8, 32, 32, 3)


def test_an_image_is_transformed_anew_each_time(source):
  batches = _batches(source, 2 * 6)
  boxes = [x['box'][x['index'] == 0] for x in batches]
  assert len(np.unique(np.concatenate(boxes), axis=0)) > 1


def test_seeds_differ(source):
  one, other = _batches(source, 1)[0], _batches(source, 1, seed=4)[0]
  assert (one['index'] != other['index']).any()


def test_images_without_label_are_not_trained_on(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x')), 'train')
  assert pipeline.Examples(source).steps_per_epoch(3) == 1
  seen = np.concatenate([x['index'] for x in _batches(source, 4, batch_size=3)])
  assert set(seen.tolist()) == {0, 1, 2}
  with pytest.raises(errors.UserError, match='3 images with a label, fewer than the batch size 4'):
    pipeline.train_batches(pipeline.Examples(source), TRANSFORM, batch_size=4, seed=0)


def test_a_batch_must_divide_by_the_processes(source):
  with pytest.raises(errors.UserError, match='multiple of 3'):
    _batches(source, share=pipeline.Share(count=3))


def test_a_broken_image_is_named_by_the_stream(tmp_path):
  root = folders.write(tmp_path / 'x')
  source = folder.FolderSource(str(root), 'train')
  (root / 'images' / 'b.png').write_bytes(b'broken')
  with pytest.raises(errors.UserError, match=r'b\.png'):
    _batches(source, 1, batch_size=3)


def test_a_mask_that_is_no_class_is_named_by_the_stream(tmp_path):
  root = folders.write(tmp_path / 'x')
  images.write_png(root / 'masks' / 'b.png', np.full((24, 30), 9, np.uint8))
  source = folder.FolderSource(str(root), 'train')
  stream = pipeline.valid_batches(source, size=32, batch_size=4)
  with stream, pytest.raises(errors.UserError, match=r'b\.png: the mask has the values \[9\]'):
    next(stream)
  with pytest.raises(errors.UserError, match=r'b\.png: the mask has the values \[9\]'):
    joins.true_masks(source).read(1)


def test_validation_squeezes_whole_images(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x')), 'train')
  for squeeze in (False, True):
    batch = next(iter(pipeline.valid_batches(source, size=8, batch_size=1, squeeze=squeeze)))
    example = source.example(0)['image']
    expected, _, mask = transforms.valid(example, source.mask(0), size=8, squeeze=squeeze)
    np.testing.assert_array_equal(batch['image'][0], expected)
    np.testing.assert_array_equal(batch['mask'][0], mask)


@pytest.mark.parametrize('processes', [1, 2])
def test_validation_sees_every_image_once(processes):
  source = shapes.ShapesSource(info.ShapesConfig(size=32, val=10), 'val')
  seen = []
  for p in range(processes):
    batches = list(
      pipeline.valid_batches(source, size=32, batch_size=4, share=pipeline.Share(p, processes))
    )
    assert len(batches) == 3
    for batch in batches:
      assert batch['mask'].shape == (4 // processes, 32, 32)
      seen += batch['index'][batch['weight'] > 0].tolist()
      for row, index in enumerate(batch['index']):
        np.testing.assert_array_equal(batch['mask'][row], source.mask(index))
        np.testing.assert_array_equal(batch['image'][row], source.example(index)['image'])
  assert sorted(seen) == list(range(10))
