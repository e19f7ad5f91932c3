"""Files of any names are found, each once and under a name of its own."""

import numpy as np
import pytest
from PIL import Image

from pnoc_jax.data import info
from pnoc_jax.data.readers import loose
from pnoc_jax.errors import UserError
from pnoc_jax.io import images

NAMES = ('a.jpg', 'a.png', 'b.png', 'b.png.jpg', 'c/a.jpg', 'd.JPG')


def test_every_file_has_a_name_of_its_own(tmp_path):
  for name in (*NAMES, '.e.jpg', 'c/._a.jpg', 'f.txt'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'')
  found = loose.find(tmp_path)
  assert [name for name, _ in found] == ['a.jpg', 'a.png', 'b', 'b.png.jpg', 'c/a', 'd']
  assert [file.relative_to(tmp_path).as_posix() for _, file in found] == list(NAMES)


def test_hidden_folders_are_left_out_and_linked_ones_searched(tmp_path):
  for name in ('in/a.jpg', 'in/.ipynb_checkpoints/a.jpg', 'in/b/.git/c.jpg', 'far/d.jpg'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  (tmp_path / 'in' / 'link').symlink_to(tmp_path / 'far')
  (tmp_path / 'far' / 'back').symlink_to(tmp_path / 'in')  # A circle.
  assert [name for name, _ in loose.find(tmp_path / 'in')] == ['a', 'link/d']


def test_an_image_of_180_megapixels_is_reduced(tmp_path, monkeypatch):
  Image.new('1', (15_000, 12_000), 1).save(tmp_path / 'a.png')
  dataset = info.DatasetInfo('x', ('cat',), 'background', info.color_map(2))
  source = loose.LooseImages(loose.find(tmp_path), dataset, max_side=50)
  assert source.original_size(0) == (12_000, 15_000) and source.size(0) == (40, 50)
  assert (source.example(0)['image'] == 255).all()
  monkeypatch.setattr(images, 'LARGEST', 10**8)
  with pytest.raises(UserError, match=r'a\.png: this image has 180 megapixels, .* reduce it'):
    source.example(0)


def test_a_turned_tiff_is_reduced_in_its_own_proportions(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  stored = np.random.default_rng(0).integers(0, 256, (12, 24, 3), dtype=np.uint8)
  Image.fromarray(stored).save(tmp_path / 'a.tif', exif=exif)
  dataset = info.DatasetInfo('x', ('cat',), 'background', info.color_map(2))
  source = loose.LooseImages(loose.find(tmp_path), dataset, max_side=12)
  assert source.original_size(0) == source.original(0).shape[:2] == (24, 12)
  assert source.size(0) == source.example(0)['image'].shape[:2] == (12, 6)
  expected = images.resize_bicubic(np.rot90(stored, -1), (12, 6))
  np.testing.assert_array_equal(source.example(0)['image'], expected)
