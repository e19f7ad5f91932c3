"""What only has a file's name is refused, and nobody waits for the end of a pipe."""

import os
import pathlib

import pytest

from pnoc_jax.data.readers import coco_index, lists, voc
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, mat, products, records


@pytest.fixture(params=['pipe', 'directory', 'device'])
def path(request, tmp_path):
  path = tmp_path / 'x.png'
  if request.param == 'pipe':
    os.mkfifo(path)
  elif request.param == 'directory':
    path.mkdir()
  else:
    path.symlink_to('/dev/zero')
  return path


@pytest.mark.parametrize(
  'read',
  [
    images.read_image,
    images.read_mask,
    images.image_size,
    mat.read_segmentation,
    products.read_prior,
    records.read_json,
    records.read_jsonl,
  ],
)
def test_what_is_no_file_is_refused(path, read):
  with pytest.raises(UserError, match=r'x\.png'):
    read(path)


def test_readers_of_tables_collect_it(path):
  problems = []
  assert lists.read_lines(pathlib.Path(path), problems) == []
  assert problems == ['x.png: cannot be read (it is no file)']
  with pytest.raises(OSError, match='it is no file'):
    voc.read_annotation(path)
  assert not products.exists_complete(path)


def test_annotations_that_are_a_pipe_are_refused_at_once(path):
  with pytest.raises(UserError, match='it is no file'):
    coco_index.open_index(path, None)
