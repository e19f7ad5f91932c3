"""RandAugment: Pillow's operations with the method's values, and the method's draws."""

import collections

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from pnoc_jax.data.augment import randaugment

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
PICTURE = Image.fromarray(IMAGE)


class _Fixed:
  """A generator whose uniform draw is fixed, to fix signs."""

  def __init__(self, value):
    self._value = value

  def random(self):
    return self._value


def _affine(a, b, c, d, e, f):
  return PICTURE.transform((50, 40), Image.Transform.AFFINE, (a, b, c, d, e, f))


@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('v', [1, 5, 9])
def test_operations_equal_pillow(v, sign):
  enhance = {1: 0.14, 5: 0.5, 9: 0.86}[v]
  expected = {
    'autocontrast': ImageOps.autocontrast(PICTURE),
    'brightness': ImageEnhance.Brightness(PICTURE).enhance(enhance),
    'color': ImageEnhance.Color(PICTURE).enhance(enhance),
    'contrast': ImageEnhance.Contrast(PICTURE).enhance(enhance),
    'equalize': ImageOps.equalize(PICTURE),
    'identity': PICTURE,
    'posterize': ImageOps.posterize(PICTURE, {1: 4, 5: 6, 9: 7}[v]),
    'rotate': PICTURE.rotate(sign * {1: 3, 5: 15, 9: 27}[v]),
    'sharpness': ImageEnhance.Sharpness(PICTURE).enhance(enhance),
    'shear_x': _affine(1, sign * 0.03 * v, 0, 0, 1, 0),
    'shear_y': _affine(1, 0, 0, sign * 0.03 * v, 1, 0),
    'solarize': ImageOps.solarize(PICTURE, {1: 231, 5: 128, 9: 26}[v]),
    'translate_x': _affine(1, 0, sign * {1: 1, 5: 7, 9: 13}[v], 0, 1, 0),
    'translate_y': _affine(1, 0, 0, 0, 1, sign * {1: 1, 5: 6, 9: 10}[v]),
  }
  assert len(expected) == 14 and set(expected) == set(randaugment.OPERATIONS)
  for name, operation in randaugment.OPERATIONS.items():
    result = operation(PICTURE, v, _Fixed(0.0 if sign < 0 else 0.9))
    np.testing.assert_array_equal(
      np.asarray(result).astype(int), np.asarray(expected[name]), err_msg=name
    )


def test_draws_are_those_of_the_method(monkeypatch):
  calls, count = collections.Counter(), 1500
  for name in randaugment.OPERATIONS:
    monkeypatch.setitem(
      randaugment.OPERATIONS, name, lambda picture, v, rng, n=name: calls.update([n, v]) or picture
    )
  rng = np.random.default_rng(0)
  for _ in range(count):
    randaugment.rand_augment(IMAGE[:2, :2], rng, n=2, m=10, cutout_size=0)
  names = [calls[x] for x in randaugment.OPERATIONS]
  magnitudes = [calls[v] for v in range(1, 10)]
  assert sum(names) == sum(magnitudes)
  assert abs(sum(names) / (2 * count) - 0.5) < 0.04
  assert min(names) > 60 and max(names) < 160  # About 107 each.
  assert min(magnitudes) > 115 and max(magnitudes) < 220  # About 167 each.
  assert calls[0] == calls[10] == 0


def test_cutout_is_black_and_at_most_17_px():
  white = Image.new('RGB', (50, 40), (255, 255, 255))
  sizes = set()
  for seed in range(200):
    result = randaugment.cutout(white, np.random.default_rng(seed), size=16)
    y, x = np.nonzero(~np.asarray(result).any(-1))
    sizes.add((np.ptp(y) + 1, np.ptp(x) + 1))
    assert len(y) == (np.ptp(y) + 1) * (np.ptp(x) + 1)
  assert np.max(list(sizes), 0).tolist() == [17, 17] and np.min(list(sizes)) >= 7
  assert np.asarray(white).all()
