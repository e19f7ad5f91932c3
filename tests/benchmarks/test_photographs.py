"""benchmarks/photographs.py: its views are of the photographs, and its families are well formed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import photographs, views
from pnoc_jax.metrics import thresholds
from pnoc_jax.updates import pnoc


def test_a_view_holds_the_photograph_in_its_box():
  # Red tells the row, green the column, so that a view says where each pixel is from.
  y, x = np.indices((320, 320))
  image = np.stack([y * 0.7, x * 0.7, np.full_like(y, 128)], -1).astype(np.uint8)
  size = jnp.array([200, 300], jnp.int32)
  key = jax.random.split(jax.random.key(0), 6)
  view = jax.jit(jax.vmap(lambda k: views.augment(k, image, size, crop=64, sizes=(48, 96))))
  made, boxes = jax.device_get(view(key))
  assert made.shape == (6, 64, 64, 3) and made.min() >= 0 and made.max() <= 255
  for view, (top, left, bottom, right) in zip(made, boxes, strict=True):
    assert 0 <= top < bottom <= 64 and 0 <= left < right <= 64
    content = view[top:bottom, left:right]
    # Colours change, but red still grows downwards.
    assert np.corrcoef(content.mean((1, 2)), np.arange(bottom - top))[0, 1] > 0.8
  long = (boxes[:, 3] - boxes[:, 1]).max()
  assert long <= 64 and len({tuple(box) for box in boxes.tolist()}) > 1


def test_families_have_a_plain_one_to_judge_them():
  for name, family in photographs.FAMILIES.items():
    assert name.endswith(str(family.crop)) and family.recipes
    if pnoc.METHODS[family.method].judge:
      assert f'vanilla{family.crop}' in photographs.FAMILIES


def test_images_are_scored_by_the_size_of_their_objects():
  masks = [np.zeros((4, 5), np.uint8) for _ in range(6)]
  for mask, pixels in zip(masks, (10, 2, 6, 8, 4, 12), strict=True):
    mask.flat[:pixels] = 1
  masks[1][2:] = 255  # 2 of 10 known pixels are as many as 4 of 20; the first of equals is smaller.
  split = views.Photographs(*(np.zeros(6),) * 3, masks)
  np.testing.assert_array_equal(photographs._thirds(split), [2, 0, 1, 1, 0, 2])
  high = np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 4, 5)
  sums = thresholds.sweep(np.array([0, 1]), high, masks[0], num_classes=2)
  # Of 20 pixels in order the first 10 are the object, and the last 10 are above the threshold.
  found = photographs._at(sums, 0.5, ['background', 'thing'])
  assert found == pytest.approx({'miou_fg': 0, 'fp': 50, 'fn': 50})
