"""DeepGlobe is read from both of its layouts, by colour."""

import numpy as np
import pytest
from data import miniatures

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import checks
from pnoc_jax.data.readers import deepglobe
from pnoc_jax.io import images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def _open(root, split, **options):
  config = info.DatasetConfig(name='deepglobe', root=str(root), **options)
  return sources.open_source(config, split)


def _names(source):
  return [[source.info.classes[k] for k in np.flatnonzero(row)] for row in source.labels]


def test_the_reference_s_layout(tmp_path):
  root = miniatures.write_deepglobe(tmp_path / 'DGdevkit')
  source = _open(tmp_path, 'train75')
  assert source.ids == ('606', '119') and source.info.background == 'agriculture'
  assert _names(source) == [['unknown'], ['forest', 'water']]
  expected = miniatures.paint((16, 16), (3, 0, 0, 8, 8), (4, 8, 8, 12, 16))
  np.testing.assert_array_equal(source.mask(1), expected)
  assert checks.check_source(source) == []
  mask = _open(root, 'test').mask(0)
  np.testing.assert_array_equal(
    mask, miniatures.paint((16, 16), (1, 0, 0, 4, 16), (255, 12, 0, 16, 16))
  )
  # Masks saved as indices, 7 for void.
  path = root / 'SegmentationClassAug' / '266.png'
  images.write_png(path, np.where(mask == 255, 7, mask).astype(np.uint8))
  np.testing.assert_array_equal(_open(root, 'test').mask(0), mask)


def test_the_published_layout(tmp_path):
  root = miniatures.write_deepglobe(tmp_path / 'x', published=True)
  source = _open(root, 'train')
  assert source.ids == ('119', '266', '606')
  assert _names(source) == [['forest', 'water'], ['urban'], ['unknown']]
  (tmp_path / 'train75.txt').write_text('606\n')
  assert _open(root, 'train75', lists=str(tmp_path)).ids == ('606',)
  table = tmp_path / 'labels.csv'
  table.write_text('id,labels\n606,barren\n')
  assert _names(_open(root, 'train75', lists=str(tmp_path), labels=str(table))) == [['barren']]


def test_channels_are_cut_at_128():
  colors = np.array([[250, 251, 3], [4, 140, 127], [127, 127, 127], [200, 0, 0]], np.uint8)
  np.testing.assert_array_equal(deepglobe.decode(colors[None]), [[0, 3, 255, 255]])


def test_missing_things_are_named(tmp_path):
  root = miniatures.write_deepglobe(tmp_path / 'x')
  with pytest.raises(errors.UserError, match=r'train25\.txt is missing: put the list there'):
    _open(root, 'train25')
  (root / 'JPEGImages' / '119.jpg').unlink()
  (root / 'SegmentationClassAug' / '606.png').unlink()
  with pytest.raises(errors.UserError, match=r"(?s)no image of the id '119'.*1 of 2 ids have no m"):
    _open(root, 'train75')


def test_a_mask_that_labels_are_read_from_can_be_left_out(tmp_path):
  root = miniatures.write_deepglobe(tmp_path / 'x')
  whole = _open(root, 'train75')
  path = root / 'SegmentationClassAug' / f'{whole.ids[0]}.png'
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(errors.UserError, match=path.name):
    _open(root, 'train75')
  config = info.DatasetConfig(name='deepglobe', root=str(root), on_error=info.OnError.SKIP)
  with pytest.warns(UserWarning, match=rf'1 masks that labels are read from.*{path.name}'):
    source = sources.open_source(config, 'train75')
  assert not source.labels[0].any()
  np.testing.assert_array_equal(source.labels[1:], whole.labels[1:])
  left_out = checks.screen(
    source, on_error=info.OnError.SKIP, quarantine_path=tmp_path / 'quarantine.csv'
  )
  assert left_out == {whole.ids[0]}
  rest = sources.open_source(config, 'train75', exclude=left_out)
  np.testing.assert_array_equal(rest.labels, whole.labels[1:])
