"""Products on disk: exact, repeatable, whole, and refused with a reason when they are not."""

import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.io import npz, products
from pnoc_jax.ops import resize


def _prior(seed=0, size=(9, 14)):
  generator = np.random.default_rng(seed)
  low = -(-size[0] // 4), -(-size[1] // 4)
  return products.Prior(
    np.array([0, 2, 5], np.int32),
    generator.random((2, *low), np.float32),
    generator.random((2, *size)).astype(np.float16),
    generator.normal(size=6).astype(np.float32),
  )


def test_a_prior_comes_back_as_it_was(tmp_path):
  path, prior = tmp_path / 'train' / 'a.npz', _prior()
  assert not products.exists_complete(path)
  products.write_prior(path, *prior)
  assert products.exists_complete(path)
  found = products.read_prior(path, size=(9, 14), num_classes=6)
  for x, y in zip(found, prior, strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)
  assert [p.name for p in path.parent.iterdir()] == ['a.npz']


def test_same_arrays_give_the_same_bytes(tmp_path):
  for name in ('a.npz', 'b.npz'):
    products.write_prior(tmp_path / name, *_prior())
  assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()
  with zipfile.ZipFile(tmp_path / 'a.npz') as file:
    assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'keys': np.array([0, 5, 2], np.int32)}, 'ascending'),
    ({'keys': np.array([1, 2, 5], np.int32)}, 'expected 0 and then'),
    ({'keys': np.array([0], np.int32)}, 'one or more'),
    ({'keys': np.array([0, 2], np.int32)}, '`high` is'),
    ({'keys': np.array([0, 2, 5])}, 'int64, expected int32'),
    ({'low': np.zeros((2, 3, 3), np.float32)}, '`low` is'),
    ({'logits': np.zeros(4, np.float32)}, '`logits` is'),
    ({'high': np.full((2, 9, 14), np.nan, np.float16)}, 'NaN'),
  ],
)
def test_a_wrong_prior_is_neither_written_nor_read(tmp_path, change, match):
  arrays = {**_prior()._asdict(), **change}
  path = tmp_path / 'x.npz'
  with pytest.raises(ValueError, match=match):
    products.write_prior(path, **arrays)
  assert not path.exists()
  np.savez_compressed(path, **arrays)
  with pytest.raises(errors.UserError, match=match) as error:
    products.read_prior(path)
  assert str(path) in str(error.value)


def test_a_prior_of_another_image_or_data_set_is_refused(tmp_path):
  path = tmp_path / 'x.npz'
  products.write_prior(path, *_prior())
  with pytest.raises(errors.UserError, match='but the image is'):
    products.read_prior(path, size=(14, 9))
  with pytest.raises(errors.UserError, match='of 6 classes, but the data set has 4'):
    products.read_prior(path, num_classes=4)


def test_missing_truncated_and_foreign_files_are_named(tmp_path):
  with pytest.raises(errors.UserError, match='no such prior'):
    products.read_prior(tmp_path / 'none.npz')
  path = tmp_path / 'x.npz'
  products.write_prior(path, *_prior(size=(60, 80)))
  whole = path.read_bytes()
  for keep in (0, 10, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:keep])
    assert not products.exists_complete(path)
    with pytest.raises(errors.UserError, match=r'x\.npz'):
      products.read_prior(path)
  broken = bytearray(whole)
  broken[len(whole) // 2] ^= 0xFF
  path.write_bytes(broken)
  with pytest.raises(errors.UserError, match='cut short or not a prior'):
    products.read_prior(path)
  np.savez(path, other=np.zeros(3))
  assert not products.exists_complete(path)
  with pytest.raises(errors.UserError, match='not a prior'):
    products.read_prior(path)


def test_pickles_are_never_opened(tmp_path):
  path = tmp_path / 'x.npz'
  path.write_bytes(pickle.dumps({'keys': [0, 1]}))
  with pytest.raises(errors.UserError, match='not a prior'):
    products.read_prior(path)
  arrays = _prior()._asdict() | {'keys': np.array([0, 'a'], object)}
  np.savez(path, **arrays)
  with pytest.raises(errors.UserError, match='not a prior'):
    products.read_prior(path)


def _walk(size=(9, 14)):
  walk = np.random.default_rng(1).random((2, *size)).astype(np.float16)
  return products.Walk(np.array([0, 2, 5], np.int32), walk)


def test_a_walk_comes_back_as_it_was_and_has_the_same_bytes(tmp_path):
  path, walk = tmp_path / 'train' / 'a.npz', _walk()
  assert not products.exists_walk(path)
  products.write_walk(path, *walk)
  products.write_walk(path.with_name('b.npz'), *walk)
  assert path.read_bytes() == path.with_name('b.npz').read_bytes()
  assert products.exists_walk(path) and not products.exists_complete(path)
  found = products.read_walk(path, size=(9, 14), num_classes=5)
  for x, y in zip(found, walk, strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('size', [(24, 32), (22, 29), (3, 5)])
def test_a_walk_that_comes_of_cells_is_the_same_in_a_smaller_file(tmp_path, size):
  cells = np.random.default_rng(0).random((2, *(-(-n // 4) for n in size)), np.float32)
  walk = np.moveaxis(
    np.asarray(resize.bilinear(np.moveaxis(cells, 0, -1), [4 * n for n in cells.shape[1:]])), -1, 0
  )[:, : size[0], : size[1]].astype(np.float16)
  other = np.random.default_rng(1).random(walk.shape).astype(np.float16)  # Any walk comes back.
  keys, sizes = np.array([0, 2, 5], np.int32), []
  for given, beside in ((walk, None), (walk, cells), (other, cells)):
    path = tmp_path / 'a.npz'
    products.write_walk(path, keys, given, beside)
    sizes.append(path.stat().st_size)
    assert products.exists_walk(path)
    found = products.read_walk(path, size=size, num_classes=5)
    np.testing.assert_array_equal(found.walk, given, strict=True)
    assert np.isnan(products.read_walk(path, size=size, arrays=()).walk).all()
  assert size == (3, 5) or sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize('shape', [(1, 6, 8), (2, 6, 33), (2, 0, 8), (2, 6)])
def test_cells_of_another_walk_are_refused(tmp_path, shape):
  walk, path = np.zeros((2, 24, 32), np.float16), tmp_path / 'a.npz'
  keys, cells = np.array([0, 2, 5], np.int32), np.zeros(shape, np.float32)
  with pytest.raises(ValueError, match='`cells` is float32'):
    products.write_walk(path, keys, walk, cells)
  assert not path.exists()
  np.savez(path, keys=keys, walk=npz.encode(walk), cells=cells)
  with pytest.raises(errors.UserError, match=r'a\.npz: cut short or not a walk.*`cells` is'):
    products.read_walk(path)


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'keys': np.array([0, 5, 2], np.int32)}, 'ascending'),
    ({'keys': np.array([0, 2], np.int32)}, '`walk` is'),
    ({'walk': np.zeros((2, 9, 14), np.float32)}, 'float32, expected float16'),
    ({'walk': np.full((2, 9, 14), np.inf, np.float16)}, 'infinity'),
  ],
)
def test_a_wrong_walk_is_neither_written_nor_read(tmp_path, change, match):
  arrays = {**_walk()._asdict(), **change}
  path = tmp_path / 'x.npz'
  with pytest.raises(ValueError, match=match):
    products.write_walk(path, **arrays)
  assert not path.exists()
  np.savez_compressed(path, **arrays)
  with pytest.raises(errors.UserError, match=match):
    products.read_walk(path)


def test_foreign_truncated_and_other_images_walks_are_refused(tmp_path):
  path = tmp_path / 'x.npz'
  with pytest.raises(errors.UserError, match='no such walk; run the stage `random_walk`'):
    products.read_walk(path)
  products.write_prior(path, *_prior())
  with pytest.raises(errors.UserError, match=r'x\.npz: holds .*not a walk'):
    products.read_walk(path)
  products.write_walk(path, *_walk())
  with pytest.raises(errors.UserError, match='but the image is'):
    products.read_walk(path, size=(14, 9))
  with pytest.raises(errors.UserError, match='`keys` holds 5, but the data set has 4'):
    products.read_walk(path, num_classes=4)
  path.write_bytes(path.read_bytes()[:-10])
  assert not products.exists_walk(path)
  with pytest.raises(errors.UserError, match='cut short or not a walk'):
    products.read_walk(path)


def test_files_of_a_version_that_did_not_code_maps_are_read(tmp_path):
  prior, walk = _prior(), _walk()
  np.savez_compressed(tmp_path / 'p.npz', **prior._asdict())
  np.savez_compressed(tmp_path / 'w.npz', **walk._asdict())
  assert products.exists_complete(tmp_path / 'p.npz') and products.exists_walk(tmp_path / 'w.npz')
  found = (*products.read_prior(tmp_path / 'p.npz'), *products.read_walk(tmp_path / 'w.npz'))
  for x, y in zip(found, (*prior, *walk), strict=True):
    np.testing.assert_array_equal(x, y, strict=True)


def test_arrays_that_are_not_asked_for_stay_compressed(tmp_path):
  path, prior = tmp_path / 'x.npz', _prior(size=(64, 96))
  products.write_prior(path, *prior)
  found = products.read_prior(path, size=(64, 96), num_classes=6, arrays=('low',))
  np.testing.assert_array_equal(found.low, prior.low)
  np.testing.assert_array_equal(found.keys, prior.keys)
  assert (found.high.shape, found.high.dtype) == (prior.high.shape, prior.high.dtype)
  assert np.isnan(found.high).all() and np.isnan(found.logits).all()
  with pytest.raises(errors.UserError, match='but the image is'):
    products.read_prior(path, size=(96, 64), arrays=())
  with pytest.raises(ValueError, match='maps'):
    products.read_prior(path, arrays=('maps',))
  # What is not read may be broken: nobody looks at it.
  with zipfile.ZipFile(path) as file:
    high = file.getinfo('high.npy')
  broken = bytearray(path.read_bytes())
  broken[high.header_offset + high.compress_size // 2] ^= 0xFF
  path.write_bytes(broken)
  np.testing.assert_array_equal(products.read_prior(path, arrays=('low',)).low, prior.low)
  with pytest.raises(errors.UserError, match='cut short'):
    products.read_prior(path, arrays=('high',))
  products.write_walk(path, *_walk())
  np.testing.assert_array_equal(products.read_walk(path, arrays=()).keys, [0, 2, 5])


def test_a_prior_that_is_far_larger_than_its_image_is_refused_before_it_is_unpacked(tmp_path):
  path = tmp_path / 'a.npz'
  high = np.zeros((1, 4000, 4000), np.float16)  # 32 MB in 32 kB.
  arrays = {'keys': np.array([0, 1], np.int32), 'low': np.zeros((1, 1000, 1000), np.float32)}
  np.savez_compressed(path, **arrays, high=high, logits=np.zeros(4, np.float32))
  tracemalloc.start()
  with pytest.raises(errors.UserError, match='but the image is'):
    products.read_prior(path, size=(16, 16), num_classes=4)
  assert tracemalloc.get_traced_memory()[1] < 1 << 20
  tracemalloc.stop()
