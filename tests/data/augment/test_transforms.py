"""Transforms equal Pillow's, and keep their geometry straight."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pnoc_jax import errors
from pnoc_jax.data.augment import colors, equalization, geometry, transforms

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE[:5, :7]).resize((56, 40), Image.Resampling.BICUBIC))


@pytest.mark.parametrize('image', [NOISE, SMOOTH], ids=['noise', 'smooth'])
@pytest.mark.parametrize('factor', [0.0, 0.7, 0.93, 1.0, 1.18, 1.3])
@pytest.mark.parametrize(
  'ours, theirs',
  [
    (colors.brightness, ImageEnhance.Brightness),
    (colors.contrast, ImageEnhance.Contrast),
    (colors.saturation, ImageEnhance.Color),
  ],
)
def test_colours_equal_pillow(image, factor, ours, theirs):
  expected = np.asarray(theirs(Image.fromarray(image)).enhance(factor)).astype(int)
  assert np.abs(ours(image, factor).astype(int) - expected).max() <= 1


def test_hue_turns_the_circle():
  red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
  assert np.abs(colors.hue(red, 1 / 3).astype(int) - [0, 200, 0]).max() <= 6
  assert np.abs(colors.hue(red, -1 / 3).astype(int) - [0, 0, 200]).max() <= 6
  grey = np.full((2, 2, 3), 90, np.uint8)
  np.testing.assert_array_equal(colors.hue(grey, 0.1), grey)


def test_hues_of_photographs_are_looked_up_and_are_those_of_pillow():
  image = np.random.default_rng(0).integers(0, 256, (256, 260, 3), np.uint8)
  for turn in (-0.1, 0.0, 0.03, 0.5):
    hsv = np.array(Image.fromarray(image).convert('HSV'))
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)
    expected = np.asarray(Image.fromarray(hsv, 'HSV').convert('RGB'))
    np.testing.assert_array_equal(colors.hue(image, turn), expected)


def _crop(image, seed, *, crop, shift=0, target=None, fill=255):
  """The crop alone: an image whose short side is the size drawn keeps its shape."""
  config = transforms.TransformConfig(
    min_size=min(image.shape[:2]),
    max_size=min(image.shape[:2]),
    resize=transforms.Resize.SHORT_SIDE,
    crop=crop,
    shift=shift,
    flip=False,
    augment=transforms.Augment.NONE,
  )
  return transforms.train_pair(image, target, np.random.default_rng(seed), config, fill=fill)


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
  # The target is the image's red: it must stay so.
  canvas, (y0, x0, y1, x1), target = _crop(
    image, seed, crop=crop, shift=shift, target=image[..., 0], fill=7
  )
  assert canvas.shape == (crop, crop, 3)
  inside = np.zeros((crop, crop), bool)
  inside[y0:y1, x0:x1] = True
  assert (canvas[inside] > 0).all() and (canvas[~inside] == 0).all()
  content = canvas[y0:y1, x0:x1]
  if content.size:
    windows = np.lib.stride_tricks.sliding_window_view(image, content.shape)
    assert (windows == content).all((-1, -2, -3)).any()
  np.testing.assert_array_equal(target, np.where(inside, canvas[..., 0], 7))


def test_crop_places_are_uniform():
  image = np.ones((8, 8, 3), np.uint8)
  small = [_crop(image, i, crop=10).box for i in range(200)]
  assert {tuple(box[:2]) for box in small} == {(y, x) for y in range(3) for x in range(3)}
  moved = [_crop(image, i, crop=8, shift=1).box for i in range(200)]
  assert {tuple(box) for box in moved} == {
    (y0, x0, y1, x1) for y0, y1 in ((0, 7), (0, 8), (1, 8)) for x0, x1 in ((0, 7), (0, 8), (1, 8))
  }


def _sizes(resize, low, high):
  return [
    geometry.draw_size(
      (40, 56), np.random.default_rng(i), min_size=low, max_size=high, resize=resize
    )
    for i in range(60)
  ]


def test_the_drawn_size_is_of_the_side_asked_for():
  long = _sizes(transforms.Resize.LONG_SIDE, 20, 23)
  assert {width for (_, width), _ in long} == {20, 21, 22, 23}
  assert all(height == round(40 * width / 56) and not squared for (height, width), squared in long)
  short = _sizes(transforms.Resize.SHORT_SIDE, 20, 23)
  assert {height for (height, _), _ in short} == {20, 21, 22, 23}
  assert all(width == round(56 * height / 40) and not squared for (height, width), squared in short)
  square = _sizes(transforms.Resize.SQUARE, 20, 23)
  assert set(square) == {((n, n), True) for n in (20, 21, 22, 23)}
  percent = _sizes(transforms.Resize.PERCENT, 50, 200)
  assert all((20, 28) <= size <= (80, 112) and not squared for size, squared in percent)
  assert len({height for (height, _), _ in percent}) > 20
  assert set(_sizes(transforms.Resize.PERCENT, 50, 50)) == {((20, 28), False)}
  # Equal bounds squeeze to a square, as in the reference; a short side stays one.
  assert set(_sizes(transforms.Resize.LONG_SIDE, 20, 20)) == {((20, 20), True)}
  assert set(_sizes(transforms.Resize.SHORT_SIDE, 20, 20)) == {((20, 28), False)}


@pytest.mark.parametrize('resize', list(transforms.Resize))
@pytest.mark.parametrize('flip', [False, True])
def test_image_and_target_are_resized_as_pillow_does(resize, flip):
  config = transforms.TransformConfig(
    min_size=30, max_size=30, crop=64, resize=resize, flip=flip, augment=transforms.Augment.NONE
  )
  size, ours = (30, 30), Image.Resampling.BILINEAR
  if resize is transforms.Resize.SHORT_SIDE:
    size, ours = (42, 30), Image.Resampling.BICUBIC
  elif resize is transforms.Resize.NONE:
    size = (56, 40)
  elif resize is transforms.Resize.PERCENT:
    size, ours = (17, 12), Image.Resampling.BICUBIC
  target = NOISE[..., 1]
  for resample in transforms.Resample:
    image, (y0, x0, y1, x1), mapped = transforms.train_pair(
      NOISE, target, np.random.default_rng(3), config, fill=9, resample=resample
    )
    assert (x1 - x0, y1 - y0) == size
    expected = np.asarray(Image.fromarray(NOISE).resize(size, ours))
    theirs = np.asarray(
      Image.fromarray(target).resize(size, getattr(Image.Resampling, resample.name))
    )
    mirrored = flip and not (image[y0:y1, x0:x1] == expected).all()
    if mirrored:
      expected, theirs = expected[:, ::-1], theirs[:, ::-1]
    np.testing.assert_array_equal(image[y0:y1, x0:x1], expected)
    np.testing.assert_array_equal(mapped[y0:y1, x0:x1], theirs)
    assert (np.delete(mapped, np.s_[y0:y1], 0) == 9).all()


@pytest.mark.parametrize('augment', [x for x in transforms.Augment if 'rand' not in x.value])
def test_a_target_sees_no_colours_and_changes_no_image(augment):
  # The colours' draws come before the crop's: a crop without a choice shows the same place.
  plain, coloured = (
    transforms.TransformConfig(min_size=30, max_size=30, crop=30, augment=x)
    for x in (transforms.Augment.NONE, augment)
  )
  for seed in range(5):
    pairs = [
      transforms.train_pair(NOISE, NOISE[..., 0], np.random.default_rng(seed), x)
      for x in (plain, coloured)
    ]
    np.testing.assert_array_equal(pairs[0].target, pairs[1].target)
    assert augment is transforms.Augment.NONE or (pairs[0].image != pairs[1].image).any()
    image, box = transforms.train(NOISE, np.random.default_rng(seed), coloured)
    np.testing.assert_array_equal(pairs[1].image, image)
    np.testing.assert_array_equal(pairs[1].box, box)


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
  # 333 px become 336, though 333 * (112 / 111) is 335.99... in floating point.
  wide = np.random.default_rng(0).integers(0, 256, (111, 333, 3), dtype=np.uint8)
  image, _, _ = transforms.valid(wide, None, size=112)
  resized = Image.fromarray(wide).resize((336, 112), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(image, np.asarray(resized)[:, :112])


@pytest.mark.parametrize('tones', transforms.Tones)
def test_valid_makes_the_tones_of_the_whole_image_alike(tones):
  image, _, _ = transforms.valid(NOISE, None, size=20, tones=tones)
  expected = np.asarray(Image.fromarray(NOISE).resize((28, 20), Image.Resampling.BILINEAR))
  if tones in (transforms.Tones.QUANTILE, transforms.Tones.QUANTILE_CLAHE):
    expected = equalization.normalize_quantile(expected)
  if tones in (transforms.Tones.CLAHE, transforms.Tones.QUANTILE_CLAHE):
    expected = equalization.clahe(expected)
  np.testing.assert_array_equal(image, expected[:, :20])


def test_valid_squeezes_where_training_does():
  mask = np.arange(40 * 56).reshape(40, 56).astype(np.uint8)
  image, box, labels = transforms.valid(NOISE, mask, size=20, squeeze=True)
  resized = Image.fromarray(NOISE).resize((20, 20), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(image, np.asarray(resized))
  # The last column of the mask is that of the whole image, not of its square.
  assert labels.shape == (20, 20) and labels[0, -1] > 40 and box.tolist() == [0, 0, 20, 20]
  make = transforms.TransformConfig
  assert make(min_size=32, max_size=32).squeezes
  assert make(resize=transforms.Resize.SQUARE, min_size=32, max_size=48).squeezes
  assert not make(min_size=32, max_size=48).squeezes
  assert not make(resize=transforms.Resize.SHORT_SIDE, min_size=32, max_size=32).squeezes


def test_impossible_numbers_are_refused():
  config = transforms.TransformConfig(min_size=9, max_size=8, hue=0.6, cutout=-1)
  with pytest.raises(errors.UserError, match=r'(?s)9 and 8.*hue is 0.6.*cutout is -1'):
    transforms.validate(config)
  config = transforms.TransformConfig()  # RandAugment turns and shears.
  transforms.validate(config)
  with pytest.raises(errors.UserError, match='randaugment, which moves the image but not its'):
    transforms.validate(config, paired=True)
