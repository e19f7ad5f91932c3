"""Regions are what COCO's own tools make of them, and nothing reaches these that breaks them."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pnoc_jax.data.readers import regions

SIZE = (5, 7)
BOX = np.array([1.0, 1, 4, 1, 4, 3, 1, 3])


def _painted(region, size=SIZE):
  return regions.paint([(9, regions.encode(region, size))], size)


def _runs(mask):
  """Lengths of runs down the columns, of 0 first."""
  flat = mask.T.ravel()
  ends = np.flatnonzero(np.diff(flat)) + 1
  return [*([0] if flat[0] else []), *np.diff([0, *ends, flat.size]).tolist()]


def test_parts_of_a_region_are_filled_together():
  expected = np.zeros(SIZE, np.uint8)
  expected[1:3, 1:4] = 9
  np.testing.assert_array_equal(_painted([BOX]), expected)
  # Two points are no area; COCO's tools would take their four numbers for a box.
  np.testing.assert_array_equal(_painted([BOX[:4], BOX]), expected)
  expected[3:5, 5:7] = 9
  np.testing.assert_array_equal(_painted([BOX, np.array([5.0, 3, 60, 3, 60, 40, 5, 40])]), expected)
  assert not _painted([]).any() and not _painted([BOX[:4]]).any()


def test_runs_go_down_the_columns_compressed_or_not():
  rng = np.random.default_rng(0)
  for size in ((3, 2), (1, 9), (40, 31)):
    mask = (rng.random(size) < 0.4).astype(np.uint8)
    counts = _runs(mask)
    code = coco_mask.encode(np.asfortranarray(mask))['counts'].decode()
    for region in ({'counts': counts}, {'counts': counts, 'size': list(size)}, {'counts': code}):
      np.testing.assert_array_equal(_painted(region, size), 9 * mask)


def test_the_smaller_region_lies_on_top():
  codes = [regions.encode({'counts': x}, (2, 3)) for x in ([0, 6], [2, 1, 3])]
  for order in ([(5, codes[0]), (7, codes[1])], [(7, codes[1]), (5, codes[0])]):
    np.testing.assert_array_equal(regions.paint(order, (2, 3)), [[5, 7, 5], [5, 5, 5]])
  np.testing.assert_array_equal(regions.paint([], (2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize(
  'region, message',
  [
    ([np.array(1.0), np.array(2.0)], 'is a list of outlines flat'),
    ([BOX[:7]], 'an outline of 7 numbers'),
    ([BOX * np.nan], 'not near its image of 5x7 px'),
    ([BOX * 1e30], 'not near its image'),
    ([np.tile([-50.0, -50, 50, 50], 30_000)], 'an outline that is longer than'),
    ({'counts': [2, 3]}, 'runs of 5 px in all, not 35'),
    ({'counts': [40, -5]}, 'a run of negative length'),
    ({'counts': [1.5, 33.5]}, 'run lengths that are no whole numbers'),
    ({'counts': [2**63 - 1, 2**63 - 1, 37]}, 'runs of'),
    ({'counts': [35], 'size': [7, 5]}, 'run lengths of 7x5 px, but its image has 5x7'),
    ({'counts': 'o'}, 'broken, or not of 5x7 px'),  # It ends within a number.
    ({'counts': ''}, 'broken'),
    ({'counts': '3\x00'}, 'broken'),
    ({'counts': '3é'}, 'broken'),
    ({'counts': '34'}, 'broken'),  # 7 px.
    ({'counts': 'oooooo0'}, 'broken'),  # More than there are.
    ({'counts': 'oooooooooooooo0'}, 'broken'),
  ],
)
def test_what_would_confuse_the_tools_is_refused(region, message):
  with pytest.raises(ValueError, match=message):
    regions.encode(region, SIZE)


@pytest.mark.parametrize('size', [(0, 5), (5, -1), (5, 10**9), (5.5, 5), ('5', 5)])
def test_sizes_of_no_image_are_refused(size):
  with pytest.raises(ValueError, match='a size of '):
    regions.check_size(size)


def test_spoilt_codes_are_refused_or_are_masks():
  rng = np.random.default_rng(0)
  characters = np.frombuffer(bytes(range(40, 120)), 'S1').astype(str)
  refused = 0
  for _ in range(3000):
    mask = (rng.random(SIZE) < 0.3).astype(np.uint8)
    code = list(coco_mask.encode(np.asfortranarray(mask))['counts'].decode())
    for place in rng.integers(0, len(code), rng.integers(1, 4)):
      code[place : place + rng.integers(2)] = rng.choice(characters, rng.integers(3))
    try:
      painted = _painted({'counts': ''.join(code)})
    except ValueError:
      refused += 1
    else:
      assert sum(_runs(painted)) == 35 and set(np.unique(painted)) <= {0, 9}
      assert _painted({'counts': _runs(painted > 0)}).tobytes() == painted.tobytes()
  assert 1000 < refused < 3000
