"""Class statistics against a hand-made split, and their correlation with a score."""

import numpy as np
import pytest

from pnoc_jax.data import info
from pnoc_jax.data.inspect import statistics

# Four images of 2x5 pixels, so that a pixel is 10 %; 9 is a value of no class, 255 void.
_MASKS = (
  [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]],  # 80 % background, 20 % cat.
  [[1, 1, 1, 1, 255], [255, 2, 0, 0, 0]],  # 40 % cat, 10 % dog, 30 % background, 20 % void.
  [[2, 2, 2, 2, 2], [2, 2, 2, 2, 2]],  # All dog.
  [[0, 0, 0, 0, 0], [0, 0, 0, 0, 9]],  # 90 % background.
)
_LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
_INFO = info.DatasetInfo('pets', ('cat', 'dog', 'eel'), 'background', info.color_map(4))


@pytest.fixture
def split():
  areas = np.stack([statistics.shares(np.array(x, np.uint8), 3) for x in _MASKS])
  return statistics.class_statistics(_LABELS, areas)


def test_statistics_are_those_counted_by_hand(split):
  assert split.images.tolist() == [2, 2, 0]
  # Void counts in the image and for no class; a class's images are those that show it.
  np.testing.assert_allclose(split.size[:3], [(80 + 30 + 90) / 3, (20 + 40) / 2, (10 + 100) / 2])
  # One of the cat's two images has another class, one of the dog's too: 1 and 2 classes in them.
  np.testing.assert_allclose(split.company[:2], [50, 50])
  np.testing.assert_allclose(split.count[:2], [1.5, 1.5])
  # The eel has no images.
  assert np.isnan(split.size[3]) and np.isnan(split.company[2]) and np.isnan(split.count[2])
  np.testing.assert_allclose(
    statistics.overall(split), [(200 / 3 + 30 + 55) / 3, 50, 1.5], rtol=1e-12
  )


def test_a_split_without_masks_has_no_sizes():
  split = statistics.class_statistics(_LABELS, None)
  assert split.size is None and statistics.overall(split)[0] is None
  assert statistics.correlations(split, np.array([1.0, 2.0, 3.0]))['%S'] is None
  assert '-' in statistics.table(split, _INFO, None)


def test_pearson_is_that_of_the_textbook():
  # Deviations (-1, 0, 1) and (-3, 1, 2): 5 / sqrt(2 * 14).
  assert statistics.pearson([1, 2, 3], [0, 4, 5]) == pytest.approx(100 * 5 / np.sqrt(28))
  assert statistics.pearson([1, 2, 3], [5, 3, 1]) == pytest.approx(-100)
  assert statistics.pearson([1, np.nan, 3], [5, 3, 9]) == pytest.approx(100)
  assert statistics.pearson([2, 2, 2], [5, 3, 1]) is None
  assert statistics.pearson([1, np.nan], [5, 3]) is None
  x, y = np.random.default_rng(0).normal(size=(2, 20))
  assert statistics.pearson(x, y) == pytest.approx(100 * np.corrcoef(x, y)[0, 1])


def test_correlations_leave_out_background_and_classes_without_images():
  labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]], np.float32)
  areas = np.array([[50, 50, 0, 0], [40, 40, 20, 0], [0, 0, 30, 70], [10, 30, 10, 50]]) / 100
  split = statistics.class_statistics(labels, areas)
  np.testing.assert_allclose(split.size, [100 / 3, 40, 20, 60])
  np.testing.assert_allclose(split.company, [200 / 3, 100, 100])
  np.testing.assert_allclose(split.count, [2, 7 / 3, 2.5])
  found = statistics.correlations(split, np.array([50.0, 30.0, 70.0]))
  assert found['%S'] == pytest.approx(100)  # IoU is size + 10.
  # Deviations of %C (-2, 1, 1) and of the IoU (0, -2, 2): none in common.
  assert found['%C'] == pytest.approx(0)
  # Of L, in sixths, (-5, 1, 4) * 1/3: 6 / (sqrt(42) * sqrt(8)).
  assert found['L'] == pytest.approx(100 * 6 / np.sqrt(42 * 8))
  text = statistics.table(split, _INFO, np.array([90.0, 50, 30, 70]))
  rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
  assert rows['cat'] == ['3', '40.0', '66.7', '2.00', '50.0']
  assert rows['background'] == ['-', '33.3', '-', '-', '90.0']
  assert rows['mean'] == ['-', '38.3', '88.9', '2.28', '60.0']
  assert text.splitlines()[-1].split() == ['100', 'r', '-', '100.0', '0.0', '32.73']
