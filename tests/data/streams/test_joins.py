"""Maps of earlier stages stay on their images, and files that do not fit are refused by name."""

import itertools
import pickle

import numpy as np
import pytest
from data import folders

from pnoc_jax import errors
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.readers import folder
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.io import images, products

TRANSFORM = transforms.TransformConfig(
  min_size=20, max_size=40, crop=24, shift=3, augment=transforms.Augment.COLORJITTER
)
PLAIN = transforms.TransformConfig(
  min_size=20, max_size=40, crop=24, shift=3, augment=transforms.Augment.NONE
)


@pytest.fixture
def source(tmp_path):
  return folder.FolderSource(str(folders.write(tmp_path / 'animals', 6)), 'train')


@pytest.fixture
def red(source, tmp_path):
  """Grey maps: the red channel of every image."""
  directory = tmp_path / 'saliency' / 'train'
  directory.mkdir(parents=True)
  for i, name in enumerate(source.ids):
    images.write_png(directory / f'{name}.png', source.example(i)['image'][..., 0].copy())
  return joins.grey_maps(source, directory)


def _write_prior(source, directory, index, *, size=None, num_classes=3, keys=None):
  height, width = size or source.size(index)
  keys = keys or (0, *np.flatnonzero(source.labels[index]) + 1)
  rng = np.random.default_rng(index)
  high = rng.random((len(keys) - 1, height, width)).astype(np.float16)
  low = np.zeros((len(keys) - 1, -(-height // 4), -(-width // 4)), np.float32)
  products.write_prior(
    directory / f'{source.ids[index]}.npz',
    np.array(keys, np.int32),
    low,
    high,
    np.zeros(num_classes, np.float32),
  )
  return high


def _batches(source, transform=PLAIN, count=5, **options):
  stream = {'batch_size': 4, 'seed': 3} | {
    name: options.pop(name) for name in ('batch_size', 'start_step', 'share') if name in options
  }
  examples = pipeline.Examples(source, **{'images': pipeline.Images.ALL} | options)
  with pipeline.train_batches(examples, transform, **stream) as batches:
    return list(itertools.islice(batches, count))


def _assert_equal(ours, theirs):
  assert len(ours) == len(theirs)
  for one, other in zip(ours, theirs, strict=True):
    assert set(one) == set(other)
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def _inside(box, size):
  y, x = np.mgrid[:size, :size]
  y0, x0, y1, x1 = (n[:, None, None] for n in box.T)
  return (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)


def test_a_target_lies_on_its_image(source, red):
  # Squares are bilinear in image and target: the red map must equal the red channel everywhere.
  squares = transforms.TransformConfig(
    min_size=20,
    max_size=40,
    resize=transforms.Resize.SQUARE,
    crop=24,
    shift=3,
    augment=transforms.Augment.NONE,
  )
  seen = []
  for batch in _batches(source, squares, 12, target=red):
    assert batch['target'].shape == (4, 24, 24) and batch['target'].dtype == np.uint8
    np.testing.assert_array_equal(batch['target'], batch['image'][..., 0])
    assert (batch['target'][~_inside(batch['box'], 24)] == 0).all()
    seen += [tuple(x) for x in batch['box']]
  assert len(set(seen)) > 10


def test_labels_are_never_mixed_and_padding_is_void(source, tmp_path):
  directory = tmp_path / 'affinity_labels' / 'train'
  directory.mkdir(parents=True)
  for i, name in enumerate(source.ids):
    labels = np.full(source.size(i), 255, np.uint8)
    labels[:, :10], labels[:, 10:15] = 3, 0
    images.write_png(directory / f'{name}.png', labels, palette=np.array(source.info.palette))
  maps = joins.label_maps(source, directory, num_classes=3)
  joins.check(maps, source, range(len(source)))
  for batch in _batches(source, TRANSFORM, target=maps):
    assert set(np.unique(batch['target'])) <= {0, 3, 255}
    assert (batch['target'][~_inside(batch['box'], 24)] == 255).all()


def test_a_target_changes_nothing_else(source, red):
  with_target = _batches(source, TRANSFORM, target=red)
  targets = [x.pop('target') for x in with_target]
  _assert_equal(with_target, _batches(source, TRANSFORM))
  # Nor do colours change the target. Their draws move the crop, so it must have no choice.
  fixed = [
    transforms.TransformConfig(min_size=24, max_size=24, crop=24, augment=x)
    for x in (transforms.Augment.NONE, transforms.Augment.COLORJITTER)
  ]
  plain, coloured = (_batches(source, x, target=red) for x in fixed)
  for one, other in zip(plain, coloured, strict=True):
    np.testing.assert_array_equal(one['target'], other['target'])
    assert (one['image'] != other['image']).any()
  assert len(targets) == 5


def test_resuming_and_processes_change_nothing(source, red):
  stream = _batches(source, TRANSFORM, 6, target=red)
  _assert_equal(_batches(source, TRANSFORM, 3, target=red, start_step=3), stream[3:])
  parts = [_batches(source, TRANSFORM, 6, target=red, share=pipeline.Share(p, 2)) for p in (0, 1)]
  joined = [
    {name: np.concatenate([x[name] for x in group]) for name in group[0]}
    for group in zip(*parts, strict=True)
  ]
  _assert_equal(joined, stream)


def test_images_without_a_label_are_shown_when_asked_for(source, red):
  everything = pipeline.Examples(source, images=pipeline.Images.ALL)
  assert pipeline.Examples(source).steps_per_epoch(3) == 1
  assert everything.steps_per_epoch(3) == 2
  for which, expected in ((pipeline.Images.ALL, set(range(6))), ('labelled', set(range(5)))):
    batches = _batches(source, count=10, batch_size=1, images=pipeline.Images(which), target=red)
    assert {int(i) for x in batches for i in x['index']} == expected
  with pytest.raises(errors.UserError, match='6 images, fewer than the batch size 7'):
    everything.steps_per_epoch(7)


def test_validation_takes_the_targets(source, red):
  batches = list(pipeline.valid_batches(source, size=20, batch_size=4, target=red))
  seen = [i for x in batches for i in x['index'][x['weight'] > 0].tolist()]
  assert seen == list(range(6))
  for batch in batches:
    np.testing.assert_array_equal(batch['mask'], batch['image'][..., 0])


def test_hints_are_the_largest_map_of_a_prior(source, tmp_path):
  directory = tmp_path / 'priors' / 'train'
  high = _write_prior(source, directory, 1)
  maps = joins.prior_hints(source, directory)
  expected = np.round(255 * high.max(0).astype(np.float64))
  hints = maps.read(1)
  assert hints.dtype == np.uint8
  assert np.abs(hints - expected).max() == 0
  assert (maps.fill, maps.resample) == (0, joins.Resample.BILINEAR)
  joins.check(maps, source, [1])
  assert pickle.loads(pickle.dumps(maps)) == maps


def test_priors_that_do_not_fit_are_refused(source, tmp_path):
  directory = tmp_path / 'priors' / 'train'
  for i in range(5):
    _write_prior(
      source, directory, i, size=(5, 6) if i == 1 else None, num_classes=4 if i == 2 else 3
    )
  path = directory / 'd.npz'
  path.write_bytes(path.read_bytes()[:-30])
  np.savez(directory / 'e.npz', cam=np.zeros(3))
  maps = joins.prior_hints(source, directory)
  joins.check(maps, source, [0])
  with pytest.raises(errors.UserError) as caught:
    joins.check(maps, source, range(6))
  _write_prior(source, directory, 0, keys=(0, 2, 3))
  with pytest.raises(
    errors.UserError, match=r'a\.npz: a prior of the labels \[0, 2, 3\], expected'
  ):
    joins.check(maps, source, [0])
  for part in (
    f'5 maps in {directory} cannot be used',
    'b.npz: 6x5 px, but its image is 30x24',
    'c.npz: a prior of 4 classes, but the data set has 3',
    'd.npz: cut short or not a prior',
    'e.npz: cut short or not a prior',
    'f.npz: missing',
    'run it again',
  ):
    assert part in str(caught.value)
  for i, part in enumerate(('30', 'the image is', 'of 4 classes', 'cut short', 'not a prior')):
    if i:
      with pytest.raises(errors.UserError, match=rf'{source.ids[i]}\.npz.*{part}'):
        maps.read(i, size=source.size(i))


def test_pngs_that_do_not_fit_are_refused(source, red):
  directory = red.paths[0].parent
  broken = red.paths[1].read_bytes()
  red.paths[1].write_bytes(broken[:-60])
  images.write_png(red.paths[2], np.zeros((5, 6), np.uint8))
  images.write_png(red.paths[3], np.zeros((*source.size(3), 3), np.uint8))
  red.paths[4].write_bytes(b'GIF, rather')
  red.paths[5].unlink()
  with pytest.raises(errors.UserError) as caught:
    joins.check(red, source, range(6))
  for part in (
    f'5 maps in {directory}',
    'b.png: this PNG is cut short',
    'c.png: 6x5 px, but its image is 30x28',
    'd.png: a PNG of mode RGB, expected L',
    'e.png: this PNG cannot be read',
    'f.png: missing',
  ):
    assert part in str(caught.value)
  with pytest.raises(errors.UserError, match=r'b\.png'):
    red.read(1)
  with pytest.raises(errors.UserError, match=r'c\.png: 6x5 px, but its image is 30x28'):
    red.read(2, size=source.size(2))
  with pytest.raises(errors.UserError, match=r'saliency.train.[b-f]\.png'):
    _batches(source, target=joins.grey_maps(source, directory), count=6, batch_size=1)


def test_labels_of_another_class_list_are_refused(source, red):
  maps = joins.label_maps(source, red.paths[0].parent, num_classes=3)
  with pytest.raises(errors.UserError, match=r'a\.png: the map has the values .*expected 0 to 3'):
    maps.read(0)


def test_an_augmentation_that_moves_pixels_is_refused(source, red):
  with pytest.raises(errors.UserError, match='randaugment, which moves the image'):
    _batches(source, transforms.TransformConfig(), target=red)
