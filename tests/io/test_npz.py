import ast
import hashlib
import pickle
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from pnoc_jax.io import npz
from pnoc_jax.ops import resize


def test_arrays_are_those_of_numpy_and_no_header_is_parsed_by_ast(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  arrays = {
    'scalar': np.float32(3.5),
    'line': np.arange(5, dtype=np.int32),
    'empty': np.zeros((0, 4), np.float16),
    'map': rng.normal(size=(2, 3, 4)).astype(np.float16),
    'fortran': np.asfortranarray(rng.normal(size=(3, 4))),
    'swapped': rng.integers(0, 9, 4).astype('>i8'),
  }
  np.savez_compressed(tmp_path / 'x.npz', **arrays)

  def fail(*_):
    raise SystemError('AST constructor recursion depth mismatch')

  monkeypatch.setattr(ast, 'literal_eval', fail)
  with zipfile.ZipFile(tmp_path / 'x.npz') as file:
    for name, expected in arrays.items():
      found = npz.read_array(file, name)
      assert found.dtype == expected.dtype
      np.testing.assert_array_equal(found, expected, strict=name != 'scalar')
      assert npz.read_header(file, name) == (np.asarray(expected).dtype, np.shape(expected))
      if found.ndim:
        found[...] = 0  # It is the caller's own.
    with pytest.raises(KeyError):
      npz.read_array(file, 'other')


def test_objects_and_parts_of_arrays_are_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as file:
    with file.open('pickle.npy', 'w') as member:
      np.lib.format.write_array(member, np.array([{}, None]), allow_pickle=True)
    file.writestr('raw.npy', pickle.dumps([1, 2]))
    with file.open('cut.npy', 'w') as member:
      np.lib.format.write_array_header_1_0(
        member, {'descr': '<f4', 'fortran_order': False, 'shape': (3,)}
      )
      member.write(bytes(8))
  with zipfile.ZipFile(tmp_path / 'x.npz') as file:
    for name in ('pickle', 'raw', 'cut'):
      with pytest.raises(ValueError):
        npz.read_array(file, name)
    with pytest.raises(ValueError):
      npz.read_header(file, 'raw')


def _write(path, shape, content, dtype='<f2'):
  """An archive of one array whose header claims a shape."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file, file.open('x.npy', 'w') as member:
    header = {'descr': dtype, 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(member, header)
    member.write(content)


@pytest.mark.parametrize('shape', [(1 << 40,), (1 << 31, 1 << 31), (10**30,)])
def test_an_array_that_claims_gigabytes_takes_no_memory(tmp_path, shape):
  _write(tmp_path / 'x.npz', shape, bytes(100))
  tracemalloc.start()
  with zipfile.ZipFile(tmp_path / 'x.npz') as file, pytest.raises(ValueError, match='claims'):
    npz.read_array(file, 'x')
  assert tracemalloc.get_traced_memory()[1] < 1 << 20
  tracemalloc.stop()


@pytest.mark.parametrize('dtype', ['|O', '<i7', '|V99999999', '<U' + '9' * 30])
def test_an_array_of_another_type_is_refused(tmp_path, dtype):
  _write(tmp_path / 'x.npz', (1,), bytes(8), dtype)
  with zipfile.ZipFile(tmp_path / 'x.npz') as file, pytest.raises(ValueError):
    npz.read_array(file, 'x')


@pytest.mark.parametrize('dtype', [np.float16, np.float32])
@pytest.mark.parametrize('shape', [(3, 7, 9), (1, 1, 5), (2, 5, 1)])
def test_coded_maps_come_back_bit_by_bit(dtype, shape):
  rng, size = np.random.default_rng(0), np.dtype(dtype).itemsize
  maps = rng.integers(0, 256, (*shape, size), np.uint8).view(dtype)[..., 0]  # NaN and -0, too.
  coded = npz.encode(maps)
  assert coded.dtype == np.uint8 and coded.shape == (size, *shape)
  found = npz.decode(coded, dtype)
  assert found.dtype == dtype and found.tobytes() == maps.tobytes()
  turned = np.ascontiguousarray(np.moveaxis(maps, 0, -1))
  assert npz.encode(np.moveaxis(turned, -1, 0)).tobytes() == coded.tobytes()


def test_coded_smooth_maps_take_half_of_the_room():
  cells = np.random.default_rng(0).random((8, 8))  # Enlarged linearly, as the maps of a network.
  for _ in range(2):
    cells = np.array([np.interp(np.arange(320) / 40, np.arange(8), row) for row in cells]).T
  maps = cells[None].astype(np.float16)
  plain, coded = (len(zlib.compress(a.tobytes(), 1)) for a in (maps, npz.encode(maps)))
  assert coded < plain / 2


@pytest.mark.parametrize('side', [1, 2, 4, 8])
def test_cells_are_enlarged_as_the_networks_maps_are(side):
  cells = np.random.default_rng(0).random((2, 3, 5), np.float32)
  size = 3 * side, 5 * side - side // 2
  expected = np.moveaxis(
    np.asarray(resize.bilinear(np.moveaxis(cells, 0, -1), (3 * side, 5 * side))), -1, 0
  )
  found = npz.enlarged(cells, size)
  assert found.dtype == np.float16
  np.testing.assert_allclose(found, expected[:, : size[0], : size[1]], rtol=1e-3)


def test_files_are_read_with_the_bits_that_they_were_written_with():
  cells = (np.arange(420) * 37 % 101).astype(np.float32).reshape(3, 10, 14) / np.float32(101)
  digest = hashlib.sha256(npz.enlarged(cells, (38, 55)).tobytes()).hexdigest()
  assert digest.startswith('6a5eda69624e33e3')  # Another one cannot read the walks that are there.
