"""Mixed examples are exactly the sums that the draws say, and nobody's label changes."""

import itertools

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data.augment import mixing, transforms
from pnoc_jax.data.readers import shapes
from pnoc_jax.data.streams import pipeline, positions, sampling

SIZE = 32
TRANSFORM = transforms.TransformConfig(
  min_size=20, max_size=44, crop=SIZE, augment=transforms.Augment.COLORJITTER
)
SOURCE = shapes.ShapesSource(info.ShapesConfig(size=SIZE, train=22), 'train')
MEAN = np.rint(255 * np.array(info.IMAGENET_MEAN)).astype(np.uint8)


def _batches(kind, count=4, *, draw=sampling.Sampling.UNIFORM, **options):
  mix = mixing.MixConfig(kind=kind, cutmix_probability=0.5, mixup_probability=0.75)
  examples = pipeline.Examples(SOURCE, mix=mix, draw=draw)
  with pipeline.train_batches(examples, TRANSFORM, batch_size=8, seed=3, **options) as batches:
    return list(itertools.islice(batches, count))


def _rows(batches):
  return [{name: x[i] for name, x in batch.items()} for batch in batches for i in range(8)]


def _whole(row):
  return row['box'].tolist() == [0, 0, SIZE, SIZE]


def _opaque(row):
  """The image with the mean colour around its content."""
  y0, x0, y1, x1 = row['box']
  image = np.tile(MEAN, (SIZE, SIZE, 1))
  image[y0:y1, x0:x1] = row['image'][y0:y1, x0:x1]
  return image


def _partner(rng):
  index = pipeline.labelled(SOURCE)[rng.integers(len(pipeline.labelled(SOURCE)))]
  return SOURCE.example(int(index))


@pytest.mark.parametrize('kind', [mixing.Mix.CUTMIX, mixing.Mix.MIXUP, mixing.Mix.CUT_OR_MIX])
def test_an_example_is_what_its_draws_say(kind):
  before = SOURCE.labels.copy()
  plain, mixed = _rows(_batches(mixing.Mix.NONE)), _rows(_batches(kind))
  seen = set()
  for position, (one, ours) in enumerate(zip(plain, mixed, strict=True)):
    assert one['index'] == ours['index']
    rng = np.random.default_rng([positions.MIX, 3, position])
    what = kind
    if kind is mixing.Mix.CUT_OR_MIX:
      what = mixing.Mix.CUTMIX if rng.random() < 0.5 else mixing.Mix.MIXUP
    if rng.random() >= (0.5 if what is mixing.Mix.CUTMIX else 0.75):
      what = mixing.Mix.NONE
    seen.add(what)
    if what is mixing.Mix.NONE:
      for name in one:
        np.testing.assert_array_equal(ours[name], one[name])
      continue
    assert _whole(ours)
    other, weight = _partner(rng), rng.beta(1, 1)
    image = _opaque(one)
    if what is mixing.Mix.MIXUP:
      second, box = transforms.train(other['image'], rng, TRANSFORM)
      second = _opaque({'image': second, 'box': box})
      wanted = weight * image.astype(np.float64) + (1 - weight) * second
      assert np.abs(ours['image'] - wanted).max() <= 0.501
      share = weight
    else:
      second = transforms.uncropped(other['image'], rng, TRANSFORM)
      height, width = (min(int(SIZE * np.sqrt(1 - weight)), n) for n in second.shape[:2])
      y, x = (int(rng.integers(0, SIZE - n + 1)) for n in (height, width))
      top, left = (second.shape[0] - height) // 2, (second.shape[1] - width) // 2
      image[y : y + height, x : x + width] = second[top : top + height, left : left + width]
      np.testing.assert_array_equal(ours['image'], image)
      share = 1 - height * width / SIZE**2
    label = share * one['label'] + (1 - share) * other['label']
    assert ours['label'].dtype == np.float32
    np.testing.assert_allclose(ours['label'], label, atol=1e-6)
  assert seen == {mixing.Mix.NONE} | (
    {mixing.Mix.CUTMIX, mixing.Mix.MIXUP} if kind is mixing.Mix.CUT_OR_MIX else {kind}
  )
  np.testing.assert_array_equal(SOURCE.labels, before)


def test_workers_processes_and_resuming_change_nothing():
  stream = _batches(mixing.Mix.CUT_OR_MIX, 5)
  later = _batches(mixing.Mix.CUT_OR_MIX, 2, start_step=3, share=pipeline.Share(workers=1))
  halves = [_batches(mixing.Mix.CUT_OR_MIX, 1, share=pipeline.Share(p, 2)) for p in (0, 1)]
  for name in stream[0]:
    for one, other in zip(later, stream[3:], strict=True):
      np.testing.assert_array_equal(one[name], other[name])
    joined = np.concatenate([half[0][name] for half in halves])
    np.testing.assert_array_equal(joined, stream[0][name])


def test_what_cannot_be_mixed_is_refused():
  with pytest.raises(errors.UserError, match=r'beta is 0\.0; it must be positive'):
    wrong = pipeline.Examples(SOURCE, mix=mixing.MixConfig(kind=mixing.Mix.MIXUP, beta=0.0))
    pipeline.train_batches(wrong, TRANSFORM, batch_size=8, seed=0)
  with pytest.raises(errors.UserError, match='images with a target cannot be mixed'):
    cutmix = mixing.MixConfig(kind=mixing.Mix.CUTMIX)
    wrong = pipeline.Examples(SOURCE, target=object(), mix=cutmix)
    pipeline.train_batches(wrong, TRANSFORM, batch_size=8, seed=0)


def test_the_balanced_draw_is_of_its_weights_and_resumes_exactly():
  balanced = sampling.Sampling.BALANCED
  stream = _batches(mixing.Mix.NONE, 6, draw=balanced)
  weights = sampling.example_weights(SOURCE.labels)
  assert (pipeline.labelled(SOURCE) == np.arange(22)).all()
  for epoch in range(3):
    rng = np.random.default_rng([positions.SHUFFLE, 3, epoch])
    order = rng.choice(22, 22, p=weights / weights.sum())
    found = np.concatenate([x['index'] for x in stream[2 * epoch : 2 * epoch + 2]])
    np.testing.assert_array_equal(found, order[:16])
  for one, other in zip(
    _batches(mixing.Mix.NONE, 3, draw=balanced, start_step=3), stream[3:], strict=True
  ):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
