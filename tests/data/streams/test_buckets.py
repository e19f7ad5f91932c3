"""Buckets hold every size; multi-scale batches are Pillow's resizes in static shapes."""

import hypothesis
import numpy as np
import pytest
from data import folders
from hypothesis import strategies as st
from PIL import Image

from pnoc_jax.data.readers import folder
from pnoc_jax.data.streams import buckets

SCALES = (0.5, 1.0, 1.5)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  sizes=st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=40),
  most=st.integers(1, 5),
)
def test_every_size_fits_in_few_buckets(sizes, most):
  plan = buckets.plan_buckets(sizes, multiple=32, max_buckets=most)
  assert 1 <= len(plan) <= most
  assert all(h % 32 == 0 and w % 32 == 0 for h, w in plan)
  for size in sizes:
    chosen = buckets.choose(size, plan)
    assert size[0] <= chosen[0] and size[1] <= chosen[1]


def test_common_photographs_waste_little():
  sizes = (
    [(375, 500)] * 60 + [(500, 375)] * 30 + [(333, 500)] * 15 + [(500, 333)] * 10 + [(400, 410)]
  )
  plan = buckets.plan_buckets(sizes, multiple=32, max_buckets=4)
  used = sum(np.prod(buckets.choose(x, plan)) for x in sizes)
  assert used / sum(np.prod(x) for x in sizes) < 1.1


def test_what_fits_nowhere_is_an_error():
  with pytest.raises(ValueError, match='no bucket holds'):
    buckets.choose((65, 10), [(64, 64)])


def _by_index(source, indices, **options):
  result, shapes = {}, {}
  options = {'scales': SCALES, 'batch_size': 2, 'multiple': 8} | options
  for batch in buckets.multi_scale_batches(source, indices, buckets.Shapes(**options)):
    for row in np.flatnonzero(batch['weight']):
      index = int(batch['index'][row])
      assert index not in result
      assert tuple(batch['size'][row]) == source.size(index)
      result[index] = [(x[row], y[row]) for x, y in zip(batch['images'], batch['boxes'])]
    found = [x.shape for x in batch['images']]
    assert shapes.setdefault(batch['bucket'], found) == found
  return result


def test_images_equal_pillow_and_the_rest_is_zero(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x', 5)), 'train')
  result = _by_index(source, [0, 1, 2, 4], max_buckets=2)
  assert sorted(result) == [0, 1, 2, 4]
  for index, scaled in result.items():
    image = source.example(index)['image']
    for scale, (padded, box) in zip(SCALES, scaled, strict=True):
      height, width = round(image.shape[0] * scale), round(image.shape[1] * scale)
      assert box.tolist() == [0, 0, height, width]
      expected = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
      np.testing.assert_array_equal(padded[:height, :width], np.asarray(expected))
      assert not padded[height:].any() and not padded[:, width:].any()


def test_an_image_lies_in_the_bucket_of_its_source_whichever_are_asked_for(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x', 5)), 'train')
  plan = buckets.plan_buckets([source.size(i) for i in range(5)], multiple=8, max_buckets=2)
  assert len(plan) == 2
  whole = _by_index(source, range(5), max_buckets=2)
  parts = [_by_index(source, range(first, 5, 2), max_buckets=2) for first in (0, 1)]
  assert [sorted(part) for part in parts] == [[0, 2, 4], [1, 3]]
  for index, scaled in (parts[0] | parts[1]).items():
    bucket = buckets.choose(source.size(index), plan)
    for scale, found, expected in zip(SCALES, scaled, whole[index], strict=True):
      assert found[0].shape[:2] == buckets.scaled_bucket(bucket, scale, multiple=8)
      for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_image_keeps_its_row_whichever_are_asked_for(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x', 7)), 'train')
  shapes = buckets.Shapes(scales=(1.0,), batch_size=3, multiple=8, max_buckets=1)

  def places(indices):
    batches = list(buckets.multi_scale_batches(source, indices, shapes, among=range(7)))
    found = {}
    for batch in batches:
      for row in np.flatnonzero(batch['weight']):
        found[int(batch['index'][row])] = row, batch['images'][0][row].tobytes()
    return found, len(batches)

  every, count = places(range(7))
  assert count == 3 and sorted(every) == list(range(7))
  some, count = places([1, 2, 6])
  assert count == 2 and some == {i: every[i] for i in (1, 2, 6)}


def test_square_resize_keeps_the_native_size(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x', 4)), 'train')
  result = _by_index(source, range(4), max_buckets=1, resize_to=16)
  for scaled in result.values():
    assert [x.shape for x, _ in scaled] == [(8, 8, 3), (16, 16, 3), (24, 24, 3)]
    assert scaled[2][1].tolist() == [0, 0, 24, 24]
