"""Against OpenCV's output, a loop over pixels, and colours known by heart."""

import pathlib

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.data.augment import equalization, transforms

# cv2.createCLAHE(clip, (tiles, tiles)).apply, OpenCV 5.0.
FIXTURE = np.load(pathlib.Path(__file__).parents[2] / 'fixtures' / 'clahe.npz')
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
  ('name', 'clip', 'tiles'), [('clip_2', 2.0, 8), ('clip_40', 40.0, 8), ('even', 2.0, 4)]
)
def test_tiles_are_equalised_as_by_opencv(name, clip, tiles):
  expected = FIXTURE[name]
  plane = FIXTURE['plane'][: expected.shape[0], : expected.shape[1]]
  result = equalization.equalize_tiles(plane, clip=clip, tiles=tiles)
  np.testing.assert_array_equal(result, expected)


def test_tiles_are_equalised_as_by_the_definition():
  """Sides that divide: no mirror image; one pixel after the other."""
  plane, tiles, side, clip = RNG.integers(60, 120, (24, 24), dtype=np.uint8), 3, 8, 3.0
  tables = np.zeros((tiles, tiles, 256))
  for i in range(tiles):
    for j in range(tiles):
      cell = plane[side * i : side * (i + 1), side * j : side * (j + 1)]
      count = [int((cell == v).sum()) for v in range(256)]
      limit = max(int(clip * side * side / 256), 1)
      excess = sum(max(n - limit, 0) for n in count)
      count = [min(n, limit) + excess // 256 for n in count]
      left, step = excess % 256, max(256 // max(excess % 256, 1), 1)
      for v in range(0, 256, step):
        if left:
          count[v], left = count[v] + 1, left - 1
      tables[i, j] = np.rint(np.cumsum(count) * 255 / side**2)
  result = equalization.equalize_tiles(plane, clip=clip, tiles=tiles)
  for y in range(24):
    for x in range(24):
      value = 0.0
      fy, fx = (y / side - 0.5), (x / side - 0.5)
      for i in (int(np.floor(fy)), int(np.floor(fy)) + 1):
        for j in (int(np.floor(fx)), int(np.floor(fx)) + 1):
          part = (1 - abs(fy - i)) * (1 - abs(fx - j))
          value += part * tables[min(max(i, 0), 2), min(max(j, 0), 2), plane[y, x]]
      assert abs(result[y, x] - value) <= 0.5 + 1e-4


def test_lab_is_that_of_the_books_and_comes_back():
  colors = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]], np.uint8)
  expected = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
  np.testing.assert_allclose(equalization.rgb_to_lab(colors)[0], expected, atol=0.05)
  image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
  np.testing.assert_array_equal(equalization.lab_to_rgb(equalization.rgb_to_lab(image)), image)


def test_clahe_equalises_lightness_and_keeps_grey_grey():
  grey = np.repeat(FIXTURE['plane'][..., None], 3, axis=2)
  result = equalization.clahe(grey)
  assert np.ptp(result, axis=2).max() <= 1
  assert result.std() > 1.1 * grey.std()


def test_a_quantile_becomes_white_channel_by_channel():
  image = np.zeros((10, 20, 4), np.uint8)
  image[..., 0] = np.arange(200).reshape(10, 20)  # 99 %: 197.01
  image[..., 1] = 24
  image[..., 2] = 100
  result = equalization.normalize_quantile(image)
  expected = np.rint(np.minimum(np.arange(200) / 197.01, 1) * 255).reshape(10, 20)
  np.testing.assert_array_equal(result[..., 0], expected)
  assert (result[..., 1] == 24).all() and (result[..., 2] == 255).all()
  assert (result[..., 3] == 0).all() and (image[..., 2] == 100).all()


@pytest.mark.parametrize('tones', list(transforms.Tones)[1:])
def test_tones_come_before_the_crop_and_use_no_draw(tones):
  image = RNG.integers(0, 200, (30, 30, 3), dtype=np.uint8)
  config = transforms.TransformConfig(
    resize=transforms.Resize.NONE, crop=16, flip=False, augment=transforms.Augment.NONE
  )
  result, _ = transforms.train(image, np.random.default_rng(5), config)
  y, x = next(
    (y, x) for y in range(15) for x in range(15) if (image[y : y + 16, x : x + 16] == result).all()
  )
  config.tones = tones
  toned, _ = transforms.train(image, np.random.default_rng(5), config)
  if tones is not transforms.Tones.CLAHE:
    image = equalization.normalize_quantile(image)
  if tones is not transforms.Tones.QUANTILE:
    image = equalization.clahe(image)
  np.testing.assert_array_equal(toned, image[y : y + 16, x : x + 16])


def test_clahe_is_refused_where_it_is_not_of_colours():
  config = transforms.TransformConfig(
    tones=transforms.Tones.QUANTILE_CLAHE, augment=transforms.Augment.NONE
  )
  with pytest.raises(errors.UserError, match='tones is quantile_clahe'):
    transforms.validate(config, channels=4)
  config.tones = transforms.Tones.QUANTILE
  transforms.validate(config, channels=4)
