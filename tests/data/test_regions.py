"""Regions are the pixels that COCO's own tools fill (tools/record_coco_regions.py)."""

import pathlib

import numpy as np
import pytest

from pnoc_jax.data.readers import regions

FIXTURE = pathlib.Path(__file__).parents[1] / 'fixtures' / 'coco_regions.npz'


def _recorded():
  with np.load(FIXTURE, allow_pickle=False) as file:
    points = np.split(file['points'], np.cumsum(file['point_counts'])[:-1])
    packed = np.split(file['masks'], np.cumsum(file['mask_counts'])[:-1])
    for size, outline, bits, code in zip(
      file['sizes'].tolist(), points, packed, file['codes'].tolist(), strict=True
    ):
      mask = np.unpackbits(bits)[: size[0] * size[1]].reshape(size).astype(bool)
      yield tuple(size), outline, mask, code


def test_polygons_and_codes_equal_those_of_cocos_tools():
  filled = 0
  for size, outline, mask, code in _recorded():
    np.testing.assert_array_equal(regions.polygon(outline, size), mask)
    np.testing.assert_array_equal(regions.run_lengths(regions.parse_counts(code), size), mask)
    filled += mask.any()
  assert filled > 25


def test_runs_go_down_the_columns():
  mask = regions.run_lengths(np.array([2, 3, 1]), (3, 2))
  np.testing.assert_array_equal(mask, [[0, 1], [0, 1], [1, 0]])
  with pytest.raises(ValueError, match='runs of 5 px in all, but the image has 6'):
    regions.run_lengths(np.array([2, 3]), (3, 2))
  with pytest.raises(ValueError, match='ends within a number'):
    regions.parse_counts('o')


def test_the_smaller_region_lies_on_top():
  large, small = np.ones((2, 3), bool), np.zeros((2, 3), bool)
  small[0, 1] = True
  for order in ([(5, large), (7, small)], [(7, small), (5, large)]):
    np.testing.assert_array_equal(regions.paint(order, (2, 3)), [[5, 7, 5], [5, 5, 5]])
