"""Pictures: what they show, pixel by pixel where that can be said."""

import base64

import numpy as np
import pytest

from pnoc_jax.report import curves, pictures


def test_overlay_leaves_silent_pixels_and_colours_loud_ones():
  image = np.full((2, 2, 3), 100, np.uint8)
  cam = np.array([[0.0, 1.0], [0.5, 2.0]])
  laid = pictures.overlay(image, cam, strength=1.0, colormap='gray')
  assert laid.dtype == np.uint8
  np.testing.assert_array_equal(laid[0, 0], 100)
  np.testing.assert_array_equal(laid[0, 1], 255)
  np.testing.assert_array_equal(laid[1, 1], laid[0, 1])
  with pytest.raises(ValueError, match='expected'):
    pictures.overlay(image, cam[:1])


def test_colour_mask_uses_the_palette_and_shows_void():
  palette = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
  mask = np.array([[0, 1], [2, 255]], np.uint8)
  expected = [[(0, 0, 0), (255, 0, 0)], [(0, 255, 0), pictures.VOID_COLOUR]]
  np.testing.assert_array_equal(pictures.colour_mask(mask, palette), expected)


def test_prior_mask_is_the_argmax_behind_a_constant_background():
  generator = np.random.default_rng(0)
  keys, high = np.array([0, 2, 7]), generator.random((2, 5, 6)).astype(np.float16)
  high[0, 0, 0], high[1, 0, 0] = 0.5, 0.5
  background = np.full((1, 5, 6), 0.5, np.float32)
  expected = keys[np.argmax(np.concatenate([background, high.astype(np.float32)]), axis=0)]
  np.testing.assert_array_equal(pictures.prior_mask(keys, high, 0.5), expected)


def test_pictures_shrink_by_whole_factors_and_masks_keep_their_colours():
  picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
  assert pictures.shrink(picture, 7, smooth=True) is picture
  small = pictures.shrink(picture, 3, smooth=True)
  np.testing.assert_array_equal(small[0, 0], np.round(picture[:2, :2].mean((0, 1))))
  assert small.shape == (2, 3, 3)
  np.testing.assert_array_equal(pictures.shrink(picture, 3, smooth=False), picture[1::2, 1::2])


def test_errors_have_a_colour_for_each_kind():
  target = np.array([[0, 0, 1, 1, 1, 255]])
  labels = np.array([[0, 2, 1, 0, 2, 1]])
  right, missed, claimed, other = pictures.ERRORS.values()
  expected = [pictures.palette(2)[0], claimed, right, missed, other, pictures.VOID_COLOUR]
  np.testing.assert_array_equal(pictures.errors(labels, target)[0], expected)


def test_a_name_stands_on_its_class():
  labels = np.zeros((20, 30), np.uint8)
  labels[2:6, 20:24] = 3
  # A ring: the middle of its pixels is not its own.
  labels[10:19, 1:10], labels[11:18, 2:9] = 7, 255
  found = pictures.places(labels)
  assert set(found) == {3, 7}
  for key, (x, y) in found.items():
    assert labels[int(y * 20), int(x * 30)] == key


# Colours as eyes without one kind of cones see them (Machado et al. 2009), in linear RGB.
EYES = {
  'all cones': np.eye(3),
  'protanopia': np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
  'deuteranopia': np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
  'tritanopia': np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def _linear(colours):
  x = np.asarray(colours, float) / 255
  return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _lab(linear):
  to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
  x = np.clip(linear, 0, 1) @ np.transpose(to_xyz) / [0.9505, 1.0, 1.089]
  f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
  return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize('eyes', EYES)
def test_colours_differ_for_all_eyes(eyes):
  for colours in (
    [*pictures.palette(7), pictures.VOID_COLOUR],
    [pictures.palette(0)[0], *pictures.ERRORS.values()],
  ):
    lab = _lab(_linear(colours) @ EYES[eyes].T)
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(len(lab), 1)]
    assert apart.min() > 12  # 2.3 can just be told apart side by side.
  # As many classes as a data set has, no two of the same colour near each other.
  palette = pictures.palette(80)
  assert len(palette) == 81 and len(set(palette)) == 22
  # Maps are read by their brightness.
  bar = pictures.colour_bar()[0].astype(float) @ [0.2126, 0.7152, 0.0722]
  assert bar[-1] > bar[0] + 40


def test_lines_stand_out_from_light_and_dark_paper():
  for paper in ((255, 255, 255), (0x14, 0x18, 0x1E)):
    back = _linear(paper) @ [0.2126, 0.7152, 0.0722]
    for colour in curves.COLOURS:
      front = _linear([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) @ [0.2126, 0.7152, 0.0722]
      assert (max(front, back) + 0.05) / (min(front, back) + 0.05) >= 3, (colour, paper)


@pytest.mark.parametrize(('photograph', 'magic'), [(False, b'\x89PNG'), (True, b'\xff\xd8')])
def test_data_uris_hold_an_image(photograph, magic):
  uri = pictures.data_uri(np.zeros((4, 4, 3), np.uint8), photograph=photograph)
  assert base64.b64decode(uri.split(',')[1]).startswith(magic)
