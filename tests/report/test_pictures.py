"""Pictures: what they show, pixel by pixel where that can be said."""

import base64

import numpy as np
import pytest

from pnoc_jax.report import pictures


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


def test_small_pictures_grow_by_whole_pixels():
  picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  assert pictures.enlarge(picture, 7).shape == (8, 8, 3)
  np.testing.assert_array_equal(pictures.enlarge(picture, 7)[::4, ::4], picture)
  assert pictures.enlarge(picture, 1).shape == picture.shape


@pytest.mark.parametrize(('photograph', 'magic'), [(False, b'\x89PNG'), (True, b'\xff\xd8')])
def test_data_uris_hold_an_image(photograph, magic):
  uri = pictures.data_uri(np.zeros((4, 4, 3), np.uint8), photograph=photograph)
  assert base64.b64decode(uri.split(',')[1]).startswith(magic)
