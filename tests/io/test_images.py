"""Images and masks survive the formats that people have."""

import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from pnoc_jax import errors
from pnoc_jax.io import images


def _gradient(height=6, width=9):
  y, x = np.mgrid[:height, :width]
  return np.stack([y * 20, x * 20, y + x], -1).astype(np.uint8)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'LA', '1', 'RGB'])
def test_every_mode_becomes_rgb(tmp_path, mode):
  picture = Image.fromarray(_gradient()).convert(mode)
  picture.save(tmp_path / 'x.png')
  image = images.read_image(tmp_path / 'x.png')
  assert image.dtype == np.uint8
  np.testing.assert_array_equal(image, np.asarray(picture.convert('RGB')))
  assert images.image_size(tmp_path / 'x.png') == (6, 9)


def test_cmyk_jpeg_becomes_rgb(tmp_path):
  Image.new('CMYK', (9, 6), (0, 255, 255, 0)).save(tmp_path / 'x.jpg')
  image = images.read_image(tmp_path / 'x.jpg')
  assert image.shape == (6, 9, 3)
  assert image[..., 0].min() > 200 and image[..., 1:].max() < 60


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
  Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16)).save(tmp_path / 'x.png')
  np.testing.assert_array_equal(images.read_image(tmp_path / 'x.png')[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
  exif = Image.Exif()
  exif[0x0112] = orientation
  stored = np.zeros((16, 32, 3), np.uint8)
  stored[:8, :8] = 255  # The stored top left corner.
  path = tmp_path / f'x.{suffix}'
  Image.fromarray(stored).save(path, exif=exif)
  image = images.read_image(path)
  # Where the stored first row and column are displayed, as the EXIF standard defines them.
  corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}
  corner |= {5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
  assert image[corner[orientation]].tolist() == [255] * 3
  assert (image[..., 0] == 255).sum() == 64
  assert image.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))
  assert images.image_size(path) == image.shape[:2]
  assert images.image_size(path, upright=False) == images.read_image(path, upright=False).shape[:2]


def test_mask_keeps_palette_indices(tmp_path):
  mask = np.array([[0, 1, 2], [255, 6, 0]], np.uint8)
  palette = np.array([[9, 9, 9]] * 7, np.uint8)  # Equal colours: only indices tell.
  images.write_png(tmp_path / 'p.png', mask, palette=palette)
  images.write_png(tmp_path / 'l.png', mask)
  assert Image.open(tmp_path / 'p.png').mode == 'P'
  np.testing.assert_array_equal(images.read_mask(tmp_path / 'p.png'), mask)
  np.testing.assert_array_equal(images.read_mask(tmp_path / 'l.png'), mask)


def test_color_mask_is_refused(tmp_path):
  images.write_png(tmp_path / 'rgb.png', _gradient())
  with pytest.raises(errors.UserError, match=r'rgb\.png.*mode RGB'):
    images.read_mask(tmp_path / 'rgb.png')


def test_broken_files_are_named(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  Image.fromarray(noise).save(tmp_path / 'whole.jpg')
  data = (tmp_path / 'whole.jpg').read_bytes()
  (tmp_path / 'cut.jpg').write_bytes(data[: len(data) // 2])
  (tmp_path / 'text.jpg').write_text('not an image')
  (tmp_path / 'empty.jpg').write_bytes(b'')
  for name in ('cut.jpg', 'text.jpg', 'empty.jpg', 'missing.jpg'):
    with pytest.raises(errors.UserError, match=name):
      images.read_image(tmp_path / name)
  np.testing.assert_array_equal(images.read_image(data), images.read_image(tmp_path / 'whole.jpg'))


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  old = _gradient()
  images.write_png(tmp_path / 'x.png', old)

  def fail(*_, **__):
    raise OSError('disk full')

  monkeypatch.setattr(Image.Image, 'save', fail)
  with pytest.raises(OSError, match='disk full'):
    images.write_png(tmp_path / 'x.png', old + 1)
  monkeypatch.undo()
  assert [x.name for x in tmp_path.iterdir()] == ['x.png']
  np.testing.assert_array_equal(images.read_image(tmp_path / 'x.png'), old)


@pytest.mark.parametrize('kind', ['EPS', 'PDF', 'ICO', 'SGI', 'TGA', 'JPEG2000'])
def test_only_the_formats_that_are_meant_are_decoded(tmp_path, monkeypatch, kind):
  monkeypatch.setattr(subprocess, 'Popen', lambda *_, **__: pytest.fail('a program was started'))
  path = tmp_path / 'x.png'  # Whatever it is called.
  Image.fromarray(_gradient(32, 32)).save(path, format=kind)
  for file in (path, path.read_bytes()):
    with pytest.raises(errors.UserError, match='of none of the formats JPEG, PNG, BMP'):
      images.read_image(file)
  with pytest.raises(errors.UserError, match=r'x\.png: this image'):
    images.image_size(path)


@pytest.mark.parametrize('kind', images.FORMATS)
def test_the_formats_that_are_meant_are_told_by_their_content(tmp_path, kind):
  path = tmp_path / 'x.jpg'
  Image.fromarray(_gradient(32, 32)).save(path, format=kind)
  assert images.read_image(path).shape == (32, 32, 3)


def test_a_small_file_that_claims_a_huge_image_is_damaged(tmp_path):
  images.write_png(tmp_path / 'x.png', np.zeros((8, 8), np.uint8))
  data = bytearray((tmp_path / 'x.png').read_bytes())
  data[16:24] = struct.pack('>II', 20_000, 20_000)
  data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
  for read in (images.read_image, images.read_mask):
    with pytest.raises(errors.UserError, match=r'claims 400 megapixels in \d+ bytes'):
      read(bytes(data))
