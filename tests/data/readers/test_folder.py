"""A folder data set is read as written, and every mistake in it is said in a person's words."""

import pickle
import shutil

import numpy as np
import pytest
from data import folders

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.readers import folder


@pytest.fixture
def root(tmp_path):
  return folders.write(tmp_path / 'animals')


def _message(root, split='train'):
  with pytest.raises(errors.UserError) as caught:
    folder.FolderSource(str(root), split)
  return str(caught.value)


def test_reads_what_was_written(root):
  config = info.DatasetConfig(name='folder', root=str(root))
  source = sources.open_source(config, 'train')
  assert source.ids == ('a', 'b', 'c', 'd')
  assert source.info.classes == ('cat', 'dog', 'horse')
  assert source.info.background == 'background' and source.info.name == 'animals'
  assert source.info.palette[1] == (128, 0, 0) and len(source.info.palette) == 4
  np.testing.assert_array_equal(source.labels, [*np.eye(3), np.zeros(3)])
  example = source.example(1)
  assert example['image'].shape == (24, 30, 3) and example['index'] == 1
  assert source.size(1) == (24, 30)
  assert source.has_masks and (source.mask(2) == 2).all()
  assert [x.name for x in source.files(0)] == ['a.png', 'a.png']
  assert pickle.loads(pickle.dumps(source)).ids == source.ids


def test_crlf_byte_order_mark_and_blank_lines_are_tolerated(root):
  for path in ('classes.txt', 'image_labels.csv', 'splits/train.txt'):
    text = (root / path).read_text().replace('\n', '\r\n') + '\r\n'
    (root / path).write_bytes(b'\xef\xbb\xbf' + text.encode())
  assert folder.FolderSource(str(root), 'train').ids == ('a', 'b', 'c', 'd')


@pytest.mark.parametrize('listed', ['caf\u00e9', 'cafe\u0301'])
@pytest.mark.parametrize('stored', ['caf\u00e9', 'cafe\u0301'])
def test_accents_may_be_composed_or_not(root, listed, stored):
  for name in ('images', 'masks'):
    (root / name / 'a.png').rename(root / name / f'{stored}.png')
  folders.replace(root / 'image_labels.csv', 'a,cat', 'caf\u00e9,cat')
  folders.replace(root / 'splits/train.txt', 'a\n', f'{listed}\n')
  source = folder.FolderSource(str(root), 'train')
  assert source.ids[0] == 'caf\u00e9' and source.has_masks
  assert source.example(0)['image'].shape[:2] == source.mask(0).shape


def test_masks_are_optional(tmp_path):
  source = folder.FolderSource(str(folders.write(tmp_path / 'x', masks=False)), 'train')
  assert not source.has_masks and source.mask(0) is None and len(source.files(0)) == 1


def test_excluded_ids_are_not_looked_at(root):
  (root / 'images' / 'b.png').unlink()
  source = folder.FolderSource(str(root), 'train', exclude=frozenset('b'))
  assert source.ids == ('a', 'c', 'd') and source.labels[1].argmax() == 2


def test_all_problems_are_listed_at_once(root):
  folders.replace(root / 'image_labels.csv', 'a,cat', 'a,Kat')
  folders.replace(root / 'image_labels.csv', 'c,horse', 'c,background zebra')
  folders.replace(root / 'splits/train.txt', 'b\n', 'b\nb\nz\n')
  (root / 'images/c.png').unlink()
  shutil.copy(root / 'images/d.png', root / 'images/d.jpeg')
  message = _message(root)
  for part in (
    str(root),
    "'a' has the unknown class 'Kat'; did you mean 'cat'?",
    'line 2',
    "'background'; the background is no label",
    "'zebra'; known: cat dog horse",
    "'b' is given 2 times",
    "'z' has no row",
    "no image for the id 'z'",
    "no image for the id 'c'",
    'd.jpeg, d.png; keep one',
    'have no mask',
  ):
    assert part in message


def test_missing_things_are_named(root, tmp_path):
  assert 'dataset.root is empty' in _message('')
  assert 'no such folder' in _message(tmp_path / 'nowhere')
  assert 'splits/test.txt is missing (splits found: train)' in _message(root, 'test')
  (root / 'classes.txt').unlink()
  (root / 'image_labels.csv').unlink()
  message = _message(root)
  assert 'classes.txt is missing' in message and 'image_labels.csv is missing' in message


@pytest.mark.parametrize(
  'file, old, new, expected',
  [
    ('classes.txt', 'dog', 'cat', "'cat' is given 2 times"),
    ('classes.txt', 'dog', 'hot dog\nhot_dog', "'hot_dog' is written in labels as another"),
    ('image_labels.csv', 'id,labels', 'name,label', 'not "id,labels"'),
    ('image_labels.csv', 'a,cat', 'a,cat,dog', '3 columns'),
    ('image_labels.csv', 'b,dog', 'a,dog', 'has a row already'),
    ('splits/train.txt', 'a\nb\nc\nd\n', '\n', 'no ids'),
  ],
)
def test_mistakes_in_the_lists(root, file, old, new, expected):
  folders.replace(root / file, old, new)
  assert expected in _message(root)


def test_a_long_list_of_problems_is_cut(root):
  (root / 'splits/train.txt').write_text('\n'.join(f'x{i}' for i in range(50)))
  message = _message(root)
  assert '100 problems' in message and '... and 80 more' in message
