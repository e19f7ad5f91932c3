"""The synthetic data set: deterministic, consistent, and of the intended difficulty."""

import colorsys
import pickle

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.readers import shapes


def _source(split='train', **fields):
  return shapes.ShapesSource(info.ShapesConfig(train=60, val=20, **fields), split)


def test_an_image_depends_on_seed_split_and_index_alone():
  source, again = _source(), _source()
  again.example(7)  # Another order of access.
  for index in (3, 0):
    np.testing.assert_array_equal(source.example(index)['image'], again.example(index)['image'])
  other = shapes.ShapesSource(info.ShapesConfig(train=5), 'train')
  np.testing.assert_array_equal(source.example(3)['image'], other.example(3)['image'])
  for different in (_source('val'), _source(seed=1)):
    assert (different.example(3)['image'] != source.example(3)['image']).any()


def test_label_mask_and_part_agree():
  source = _source()
  for index in range(len(source)):
    example, mask, part = source.example(index), source.mask(index), source.part(index)
    present = set(np.unique(mask[part > 0]) - 1)
    assert present == set(np.flatnonzero(example['label']))
    assert example['label'].sum() in (1, 2, 3)
    np.testing.assert_array_equal(mask > 0, part > 0)
    for k in present:
      head = ((mask == k + 1) & (part == shapes.HEAD)).sum()
      assert 0.1 < head / (mask == k + 1).sum() < 0.4
  assert example['image'].shape == (*source.size(index), 3)
  assert example['image'].dtype == mask.dtype == part.dtype == np.uint8


def test_shares_of_area_are_as_configured():
  source = _source()
  parts = np.stack([source.part(i) for i in range(len(source))])
  assert abs((parts > 0).mean() - 0.3) < 0.03
  assert abs((parts == shapes.HEAD).sum() / (parts > 0).sum() - 0.17) < 0.02


def test_pairs_share_a_body_hue_and_heads_are_saturated():
  source = _source(class_probabilities=(1.0,))
  hues, saturation = {}, []
  for index in range(len(source)):
    image, part = source.example(index)['image'] / 255, source.part(index)
    k = int(source.labels[index].argmax())
    hues.setdefault(k, []).append(colorsys.rgb_to_hsv(*image[part == shapes.BODY].mean(0))[0])
    head = image[part == shapes.HEAD]
    saturation.append((head.max(-1) - head.min(-1)).mean())
  for k, found in hues.items():
    away = (np.array(found) - (k // 2) / 3 + 0.5) % 1 - 0.5
    assert np.abs(away).max() < 0.13, (k, found)
  assert np.mean(saturation) > 0.7


def test_distractors_change_neither_label_nor_mask_values():
  plain, with_distractors = _source(), _source(distractor=1.0)
  np.testing.assert_array_equal(plain.labels, with_distractors.labels)
  for index in range(20):
    mask = with_distractors.mask(index)
    assert set(np.unique(mask)) - {0} == set(np.flatnonzero(plain.labels[index]) + 1)


def test_exclude_and_pickle_keep_images():
  source = shapes.ShapesSource(
    info.ShapesConfig(train=5), 'train', exclude=frozenset({'train_00001'})
  )
  assert source.ids == ('train_00000', 'train_00002', 'train_00003', 'train_00004')
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(
    copy.example(1)['image'], shapes.draw(info.ShapesConfig(), 'train', 2)[0]
  )


@pytest.mark.parametrize('size', [32, 96])
def test_any_size(size):
  image, mask, part = shapes.draw(info.ShapesConfig(size=size), 'train', 0)
  assert image.shape == (size, size, 3) and mask.shape == part.shape == (size, size)


def test_impossible_numbers_are_all_listed():
  config = info.DatasetConfig(shapes=info.ShapesConfig(size=8, coverage=2.0))
  with pytest.raises(errors.UserError, match=r'(?s)size is 8.*coverage is 2'):
    sources.open_source(config, 'train')
