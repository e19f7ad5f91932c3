"""Cityscapes is read from its folders; the ubiquitous classes are background."""

import shutil

import numpy as np
import pytest
from data import miniatures

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import checks
from pnoc_jax.data.readers import files
from pnoc_jax.io import images

TRAIN = ('aachen_000000_000001', 'aachen_000000_000002', 'bochum_000000_000001')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def root(tmp_path):
  return miniatures.write_cityscapes(tmp_path / 'cityscapes')


def _open(root, split='train', **options):
  config = info.DatasetConfig(name='cityscapes', root=str(root), **options)
  return sources.open_source(config, split)


def _names(source):
  return [[source.info.classes[k] for k in np.flatnonzero(row)] for row in source.labels]


def test_masks_are_renumbered_and_tell_the_labels(root, monkeypatch):
  source = _open(root)
  assert source.ids == TRAIN and source.info.num_classes == 13
  assert len(source.info.palette) == 14
  assert _names(source) == [['car'], [], ['wall', 'bicycle']]
  size = miniatures.CITYSCAPES_SIZE
  # trainIds 13, 0 and 255: car is the 8th class, road background.
  expected = miniatures.paint(size, (8, 4, 4, 8, 8), (0, 8, 0, 16, 32), (255, 0, 0, 2, 2))
  np.testing.assert_array_equal(source.mask(0), expected)
  assert set(np.unique(source.mask(2))) == {0, 1, 13}
  assert source.example(0)['image'].shape == (*size, 3) and source.size(0) == size
  assert checks.check_source(source) == []
  # The labels were kept: no mask is read again.
  monkeypatch.setattr(files.MaskFiles, 'read', None)
  assert _names(_open(root)) == _names(source)


def test_hidden_files_are_no_images_and_links_to_nowhere_are_named(root, tmp_path):
  folder = root / 'leftImg8bit/train/aachen'
  (folder / f'._{TRAIN[0]}_leftImg8bit.png').write_bytes(b'of a Mac')
  assert _open(root).ids == TRAIN
  path = root / f'gtFine/train/bochum/{TRAIN[2]}_gtFine_labelTrainIds.png'
  path.unlink()
  path.symlink_to(tmp_path / 'gone.png')
  with pytest.raises(errors.UserError, match=r'bochum.*TrainIds\.png: there is no such file'):
    _open(root)


def test_the_34_labels_are_as_good(root):
  expected = _open(root, 'val').mask(0)
  path = next(root.glob('gtFine/val/*/*.png'))
  mask = images.read_mask(path)
  path.unlink()
  table = np.arange(256, dtype=np.uint8)
  table[[0, 11]] = 7, 24  # road and person
  images.write_png(path.with_name(path.name.replace('TrainIds', 'Ids')), table[mask])
  source = _open(root, 'val')
  np.testing.assert_array_equal(source.mask(0), expected)
  assert _names(source) == [['person']]


def test_the_test_split_has_neither_masks_nor_labels(root):
  source = _open(root, 'test')
  assert len(source) == 1 and not source.has_masks and not source.labels.any()


def test_lists_may_carry_labels(root, tmp_path):
  path = tmp_path / 'train.txt'
  path.write_bytes(f'{TRAIN[2]},0|1|13|18\r\n{TRAIN[0]},10\r\n'.encode())
  source = _open(root, lists=str(tmp_path))
  assert source.ids == (TRAIN[2], TRAIN[0])
  assert _names(source) == [['car', 'bicycle'], []] and source.has_masks
  path.write_text(f'{TRAIN[2]}\n{TRAIN[0]}\n')
  assert _names(_open(root, lists=str(tmp_path))) == [['wall', 'bicycle'], ['car']]
  path.write_text(f'{TRAIN[2]},19\n{TRAIN[0]}\nbonn_1,\n')
  with pytest.raises(errors.UserError) as caught:
    _open(root, lists=str(tmp_path))
  for part in ("has the label '19', expected 0 to 18", '1 of 3 lines', 'bonn_1_leftImg8bit.png is'):
    assert part in str(caught.value)


def test_hidden_folders_are_left_out(root):
  for place in ('leftImg8bit', 'gtFine'):
    cities = root / place / 'train'
    shutil.copytree(cities / 'aachen', cities / '.ipynb_checkpoints')
    for path in (cities / '.ipynb_checkpoints').iterdir():
      path.rename(path.with_name(path.name.replace('aachen', 'hidden')))
  assert _open(root).ids == TRAIN


def test_an_id_with_labels_on_two_lines_is_named(root, tmp_path):
  (tmp_path / 'train.txt').write_text(f'{TRAIN[2]},0\n{TRAIN[0]},10\n{TRAIN[2]},1\n')
  with pytest.raises(errors.UserError, match=rf"'{TRAIN[2]}' has labels on two lines"):
    _open(root, lists=str(tmp_path))


def test_missing_things_are_named(root, tmp_path):
  next(root.glob('gtFine/train/bochum/*')).unlink()
  with pytest.raises(errors.UserError, match=f'1 of 3 ids have no mask, the first is {TRAIN[2]}'):
    _open(root)
  with pytest.raises(errors.UserError, match='leftImg8bit/demo/ has no images'):
    _open(root, 'demo')
  with pytest.raises(errors.UserError, match='leftImg8bit not found'):
    _open(tmp_path / 'cityscapes' / 'gtFine')
