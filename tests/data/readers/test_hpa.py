"""HPA images have four channels, through the transforms too."""

import itertools

import numpy as np
import pytest
from data import folders, miniatures

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.inspect import checks
from pnoc_jax.data.streams import buckets, pipeline
from pnoc_jax.io import images


@pytest.fixture
def root(tmp_path):
  return miniatures.write_hpa(tmp_path / 'hpa')


def _open(root, split, **options):
  config = info.DatasetConfig(name='hpa', root=str(root), **options)
  return sources.open_source(config, split)


def test_channels_and_labels(root):
  source = _open(root, 'train')
  index = source.ids.index('cell03')
  image = source.example(index)['image']
  assert image.shape == (16, 16, 4) and source.size(index) == (16, 16)
  assert image[0, 0].tolist() == [30, 31, 32, 33]
  assert source.labels.shape[1] == 19 and source.labels[index].nonzero()[0].tolist() == [3]
  assert len(source.info.mean) == len(source.info.std) == 4
  assert not source.has_masks and len(source.files(0)) == 4
  assert checks.check_source(source) == []


def test_a_tenth_validates(root, tmp_path):
  train, val = _open(root, 'train'), _open(root, 'val')
  assert len(val) == 2 and len(train) == 10 and not set(train.ids) & set(val.ids)
  assert _open(root, 'val').ids == val.ids
  (tmp_path / 'few.txt').write_text('cell00\n')
  few = _open(root, 'few', lists=str(tmp_path))
  assert few.labels[0].nonzero()[0].tolist() == [0, 18]


def test_an_id_with_two_rows_of_other_labels_is_named(root):
  (root / 'publichpa.csv').write_text('ID,Label\ncell03,3\n')
  assert len(_open(root, 'train')) == 10
  (root / 'publichpa.csv').write_text('ID,Label\ncell03,3|4\n')
  with pytest.raises(errors.UserError, match=r"pa.csv, line 2: the id 'cell03' has a row of"):
    _open(root, 'train')


def test_four_channels_go_through_the_pipelines(root):
  source = _open(root, 'train')
  config = transforms.TransformConfig(
    min_size=20, max_size=30, crop=24, augment=transforms.Augment.LIGHT
  )
  examples = pipeline.Examples(source)
  with pipeline.train_batches(examples, config, batch_size=4, seed=0) as batches:
    for batch in itertools.islice(batches, 3):
      assert batch['image'].shape == (4, 24, 24, 4)
  valid = next(iter(pipeline.valid_batches(source, size=8, batch_size=2)))
  np.testing.assert_array_equal(
    valid['image'][:, 0, 0], [source.example(i)['image'][0, 0] for i in (0, 1)]
  )
  shapes = buckets.Shapes(scales=(1.0, 1.5), batch_size=1, max_buckets=1)
  plan = buckets.multi_scale_batches(source, [0], shapes)
  scaled = next(iter(plan))['images']
  assert [x.shape for x in scaled] == [(1, 32, 32, 4), (1, 64, 64, 4)]
  with pytest.raises(errors.UserError, match='randaugment, which is of red, green and blue'):
    pipeline.train_batches(examples, transforms.TransformConfig(), batch_size=4, seed=0)


def test_resizing_treats_four_channels_alike():
  image = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
  image[:5, :, 3] = 0  # As transparency it would take the others along.
  for resize in (images.resize_bicubic, images.resize_bilinear):
    ours = resize(image, (6, 17))
    for c in range(4):
      np.testing.assert_array_equal(
        ours[..., c], resize(np.ascontiguousarray(image[..., c]), (6, 17))
      )


def test_problems_are_named(root, tmp_path):
  folders.replace(root / 'train.csv', 'cell03,3', 'cell03,30')
  (root / 'train' / 'cell04_blue.png').unlink()
  with pytest.raises(errors.UserError) as caught:
    _open(root, 'train')
  assert "the label '30' is not of numbers 0 to 18" in str(caught.value)
  assert "the id 'cell04' has no image of blue" in str(caught.value)
  images.write_png(root / 'train' / 'cell00_green.png', np.zeros((8, 9), np.uint8))
  folders.replace(root / 'train.csv', 'cell03,30', 'cell03,3')
  (tmp_path / 'few.txt').write_text('cell00\n')
  source = _open(root, 'few', lists=str(tmp_path))
  with pytest.raises(errors.UserError, match=r'cell00_green\.png: 9x8 px, but the first channel'):
    source.example(0)
  with pytest.raises(errors.UserError, match="no split 'test'"):
    _open(root, 'test')
