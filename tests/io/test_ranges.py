"""Images of more than 8 bits are read in the range that their data set has."""

import struct
import zlib

import numpy as np
import pytest
from data import folders, miniatures
from PIL import Image

from pnoc_jax import errors
from pnoc_jax.data import deep, info, sources
from pnoc_jax.data.readers import packing
from pnoc_jax.io import images, ranges

RAMP = np.linspace(0, 1, 30 * 20).reshape(20, 30)
EIGHT = np.rint(RAMP * 255)


def _png(path, values):
  """Writes u16[H, W] or u16[H, W, 3] as a PNG of 16 bits, which Pillow cannot write in colour."""
  height, width = values.shape[:2]
  lines = b''.join(b'\0' + line.astype('>u2').tobytes() for line in values)

  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = struct.pack('>IIBBBBB', width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
  parts = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(lines)) + chunk(b'IEND', b'')
  path.write_bytes(b'\x89PNG\r\n\x1a\n' + parts)


def _write(path, values):
  if values.dtype == np.uint16:
    _png(path, values)
  else:
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
  'values, suffix',
  [
    (RAMP.astype(np.float32), 'tif'),
    ((RAMP * 255).astype(np.float32), 'tif'),
    ((RAMP * 65535).astype(np.float32), 'tif'),
    (EIGHT.astype(np.int32), 'tif'),
    ((RAMP * 65535).astype(np.int32), 'tif'),
    (EIGHT.astype(np.uint16), 'png'),
    ((RAMP * 1023).astype(np.uint16), 'png'),
    ((RAMP * 4095).astype(np.uint16), 'png'),
    ((RAMP * 16383).astype(np.uint16), 'png'),
    ((RAMP * 65535).astype(np.uint16), 'png'),
  ],
)
def test_the_range_is_told_from_format_and_data(tmp_path, values, suffix):
  _write(tmp_path / f'x.{suffix}', values)
  image = images.read_image(tmp_path / f'x.{suffix}')
  assert np.abs(image.astype(int) - EIGHT[..., None]).max() <= 1
  assert image.min() == 0 and image.max() == 255


@pytest.mark.parametrize(
  'value, dtype',
  [(np.nan, np.float32), (-3, np.float32), (1e6, np.float32), (-1, np.int32), (70000, np.int32)],
)
def test_values_of_no_range_are_an_error_that_names_the_file(tmp_path, value, dtype):
  Image.fromarray(np.full((4, 5), value, dtype)).save(tmp_path / 'x.tif')
  with pytest.raises(errors.UserError, match=r'x\.tif: this image has values from .* 8 bits'):
    images.read_image(tmp_path / 'x.tif')


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return folders.write(tmp_path / 'animals', masks=False)


def _open(root, split='train'):
  return sources.open_source(info.DatasetConfig(name='folder', root=str(root)), split)


def test_one_range_is_of_all_images_of_a_data_set_and_is_said(root):
  for i, name in enumerate('abcd'):
    _png(root / 'images' / f'{name}.png', np.full((20, 30), (4000, 200, 900, 7)[i], np.uint16))
  (root / 'splits' / 'dark.txt').write_text('b\nd\n')
  for split in ('train', 'dark'):
    source = _open(root, split)
    dark = source.example(source.ids.index('b'))['image']
    assert (dark == 200 >> 4).all()
    (said,) = info.remarks(source)
    assert '4 images of more than 8 bits hold whole numbers of up to 4000, e.g. a.png: 4095' in said
  metadata = packing.metadata(source, upright=True)
  assert metadata['white'] == [4095, 1.0] and metadata['remarks'] == [said]


def test_nothing_is_said_of_images_of_8_bits(root):
  source = _open(root)
  assert info.remarks(source) == () and source.white is None


def test_16_bit_colours_that_would_be_black_are_an_error(root):
  for name in 'abcd':
    _png(root / 'images' / f'{name}.png', np.full((20, 30, 3), 4095, np.uint16))
  with pytest.raises(errors.UserError, match=r'a\.png: 4 images have 16-bit colours that stay bel'):
    _open(root)
  _png(root / 'images' / 'b.png', np.full((20, 30, 3), 60000, np.uint16))
  assert info.remarks(_open(root)) == ()


def test_channels_of_cells_have_one_range(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  root = miniatures.write_hpa(tmp_path / 'hpa')
  _png(root / 'train' / 'cell00_red.png', np.full((16, 16), 4000, np.uint16))
  _png(root / 'train' / 'cell01_red.png', np.full((16, 16), 100, np.uint16))
  source = sources.open_source(info.DatasetConfig(name='hpa', root=str(root)), 'train')
  index = source.ids.index('cell01')
  assert source.example(index)['image'][0, 0].tolist() == [100 >> 4, 11, 12, 13]
  assert 'up to 4000' in info.remarks(source)[0]


def test_a_range_holds_what_resampling_overshoots():
  assert ranges.choose([ranges.Extent(True, -0.001, 1.004)]) == ranges.Range()
  assert ranges.to_bytes(np.array([[-0.001, 1.004]]), ranges.Range()).tolist() == [[0, 255]]
  assert deep.describe([], []) == (None, [])
