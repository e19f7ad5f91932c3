import collections

import numpy as np
import pytest

from pnoc_jax.ops import paths

# Number of directions by length of their path, counted with the reference's construction.
_LENGTHS = {
  5: '2:2 3:2 4:4 5:2 6:4 7:2 8:8 10:6 11:4',
  10: '2:2 3:2 4:4 5:2 6:6 7:4 8:10 9:2 10:12 11:4 12:12 13:2 14:8 15:8 16:22 18:16 19:6 20:20 '
  '21:4 22:6',
}


@pytest.mark.parametrize(('radius', 'count'), [(5, 34), (10, 152)])
def test_directions_and_lengths_are_the_references(radius, count):
  directions = paths.directions(radius)
  assert len(set(directions)) == len(directions) == count
  # One of each opposite two, none outside of the radius.
  assert not set(directions) & {(-y, -x) for y, x in directions}
  assert all(y >= 0 and y * y + x * x < radius * radius for y, x in directions)
  lengths = collections.Counter(len(paths.path(d)) for d in directions)
  found = ' '.join(f'{length}:{lengths[length]}' for length in sorted(lengths))
  assert found == _LENGTHS[radius]


def test_paths_by_hand():
  assert set(paths.path((1, 3))) == {(y, x) for y in range(2) for x in range(4)}
  assert set(paths.path((2, 1))) == {(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (2, 1)}
  # The mirror image of (0,0) (0,1) (1,0) (1,1) (1,2) (2,1) (2,2).
  assert paths.path((2, -2)) == ((0, 0), (0, -1), (1, 0), (1, -1), (1, -2), (2, -1), (2, -2))
  for direction in paths.directions(6):
    assert paths.path(direction)[0] == (0, 0)
    assert direction in paths.path(direction)


@pytest.mark.parametrize('radius', [2, 5, 10])
def test_groups_hold_every_path(radius):
  groups = paths.groups(radius)
  assert np.concatenate([g.directions for g in groups]).tolist() == [
    list(d) for d in paths.directions(radius)
  ]
  for group in groups:
    for direction, cells in zip(group.directions.tolist(), group.cells.tolist(), strict=True):
      assert set(map(tuple, cells)) == set(paths.path(tuple(direction)))


def test_a_radius_without_neighbours_is_refused():
  with pytest.raises(ValueError, match='radius is 1'):
    paths.directions(1)
