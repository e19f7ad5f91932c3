"""Transforms equal Pillow's, and keep their geometry straight."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pnoc_jax import errors
from pnoc_jax.data import transforms

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE[:5, :7]).resize((56, 40), Image.Resampling.BICUBIC))


@pytest.mark.parametrize('image', [NOISE, SMOOTH], ids=['noise', 'smooth'])
@pytest.mark.parametrize('factor', [0.0, 0.7, 0.93, 1.0, 1.18, 1.3])
@pytest.mark.parametrize(
  'ours, theirs',
  [
    (transforms.brightness, ImageEnhance.Brightness),
    (transforms.contrast, ImageEnhance.Contrast),
    (transforms.saturation, ImageEnhance.Color),
  ],
)
def test_colours_equal_pillow(image, factor, ours, theirs):
  expected = np.asarray(theirs(Image.fromarray(image)).enhance(factor)).astype(int)
  assert np.abs(ours(image, factor).astype(int) - expected).max() <= 1


def test_hue_turns_the_circle():
  red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
  assert np.abs(transforms.hue(red, 1 / 3).astype(int) - [0, 200, 0]).max() <= 6
  assert np.abs(transforms.hue(red, -1 / 3).astype(int) - [0, 0, 200]).max() <= 6
  grey = np.full((2, 2, 3), 90, np.uint8)
  np.testing.assert_array_equal(transforms.hue(grey, 0.1), grey)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  height=st.integers(1, 40),
  width=st.integers(1, 40),
  crop=st.integers(1, 40),
  shift=st.integers(0, 5),
  seed=st.integers(0, 1000),
)
def test_the_box_holds_the_content(height, width, crop, shift, seed):
  image = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
  canvas, (y0, x0, y1, x1) = transforms.random_crop(
    image, np.random.default_rng(seed), crop=crop, shift=shift
  )
  assert canvas.shape == (crop, crop, 3)
  inside = np.zeros((crop, crop), bool)
  inside[y0:y1, x0:x1] = True
  assert (canvas[inside] > 0).all() and (canvas[~inside] == 0).all()
  content = canvas[y0:y1, x0:x1]
  if content.size:
    windows = np.lib.stride_tricks.sliding_window_view(image, content.shape)
    assert (windows == content).all((-1, -2, -3)).any()


def test_crop_places_are_uniform():
  image = np.ones((8, 8, 3), np.uint8)
  small = [transforms.random_crop(image, np.random.default_rng(i), crop=10) for i in range(200)]
  assert {tuple(box[:2]) for _, box in small} == {(y, x) for y in range(3) for x in range(3)}
  moved = [
    transforms.random_crop(image, np.random.default_rng(i), crop=8, shift=1) for i in range(200)
  ]
  assert {tuple(box) for _, box in moved} == {
    (y0, x0, y1, x1) for y0, y1 in ((0, 7), (0, 8), (1, 8)) for x0, x1 in ((0, 7), (0, 8), (1, 8))
  }


def test_random_resize_goes_by_the_long_side():
  sizes = [
    transforms.random_resize(NOISE, np.random.default_rng(i), min_size=20, max_size=23).shape
    for i in range(60)
  ]
  assert {x[1] for x in sizes} == {20, 21, 22, 23}
  assert all(x[0] == round(40 * x[1] / 56) for x in sizes)
  # Equal bounds squeeze to a square.
  square = transforms.random_resize(NOISE, RNG, min_size=20, max_size=20)
  expected = Image.fromarray(NOISE).resize((20, 20), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(square, np.asarray(expected))


@pytest.mark.parametrize('augment', list(transforms.Augment))
def test_train_depends_on_its_generator_alone(augment):
  config = transforms.TransformConfig(min_size=24, max_size=48, crop=32, augment=augment)
  first, again, other = (
    transforms.train(NOISE, np.random.default_rng(seed), config) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first[0], again[0])
  np.testing.assert_array_equal(first[1], again[1])
  assert (first[0] != other[0]).any()
  assert first[0].shape == (32, 32, 3) and first[0].dtype == np.uint8


def test_flips_half_of_the_images():
  config = transforms.TransformConfig(
    min_size=40, max_size=40, crop=40, augment=transforms.Augment.NONE
  )
  image = NOISE[:, :40]
  flipped = 0
  for seed in range(100):
    result, _ = transforms.train(image, np.random.default_rng(seed), config)
    straight = (result == image).all()
    assert straight or (result == image[:, ::-1]).all()
    flipped += not straight
  assert 30 < flipped < 70


def test_valid_takes_the_top_left_square():
  mask = np.arange(40 * 56).reshape(40, 56).astype(np.uint8)
  image, box, labels = transforms.valid(NOISE, mask, size=40)
  np.testing.assert_array_equal(image, NOISE[:, :40])
  np.testing.assert_array_equal(labels, mask[:, :40])
  assert box.tolist() == [0, 0, 40, 40]
  image, _, labels = transforms.valid(NOISE.transpose(1, 0, 2), None, size=20)
  assert image.shape == (20, 20, 3) and (labels == 255).all()


def test_impossible_numbers_are_refused():
  config = transforms.TransformConfig(min_size=9, max_size=8, hue=0.6)
  with pytest.raises(errors.UserError, match=r'(?s)9 and 8.*hue is 0.6'):
    transforms.validate(config)
