"""COCO 2014 is read from its annotations, or from files made of these."""

import json
import pickle
import shutil

import numpy as np
import pytest
from data import folders, miniatures

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import checks
from pnoc_jax.data.readers import coco, coco_index
from pnoc_jax.io import images

TRAIN = tuple(f'COCO_train2014_{n:012d}' for n in (9, 25, 77))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'pnoc_jax' / 'data' / 'coco'


@pytest.fixture
def root(tmp_path):
  return miniatures.write_coco(tmp_path / 'coco')


def _open(root, split='train2014', **options):
  exclude = options.pop('exclude', frozenset())
  config = info.DatasetConfig(name='coco14', root=str(root), **options)
  return sources.open_source(config, split, exclude=exclude)


def _message(root, split='train2014', **options):
  with pytest.raises(errors.UserError) as caught:
    _open(root, split, **options)
  return str(caught.value)


def _names(source):
  return [[source.info.classes[k] for k in np.flatnonzero(row)] for row in source.labels]


def _expected():
  """The first image: table below hot dog, crowd at the bottom, the triangle's own pixels."""
  values = {name: i + 1 for i, name in enumerate(coco.CLASSES)}
  return miniatures.paint(
    miniatures.COCO_SIZE,
    (values['person'], 15, 0, 20, 30),
    (values['dining table'], 4, 4, 14, 16),
    (values['hot dog'], 6, 6, 10, 10),
  )


def test_sizes_come_from_the_annotations_and_not_from_headers(root, monkeypatch):
  source = _open(root)
  expected = [images.image_size(source.files(i)[0]) for i in range(len(source))]
  monkeypatch.setattr(images, 'image_size', lambda *_, **__: pytest.fail('a header is read'))
  assert [source.size(i) for i in range(len(source))] == expected
  # A process that loads data is handed over a copy.
  copied = pickle.loads(pickle.dumps(source))
  assert copied.ids == source.ids and copied.size(1) == expected[1]
  np.testing.assert_array_equal(copied.labels, source.labels)
  np.testing.assert_array_equal(copied.mask(0), source.mask(0))


def test_labels_and_masks_come_from_the_annotations(root):
  source = _open(root)
  assert source.ids == TRAIN and source.info.num_classes == 80
  # Labels of all annotations, crowds too; categories without gaps.
  assert _names(source) == [['person', 'hot dog', 'dining table'], [], ['toothbrush']]
  mask, expected = source.mask(0), _expected()
  assert mask.dtype == np.uint8 and (mask[:, :17] == expected[:, :17]).all()
  assert (mask[15:] == expected[15:]).all()
  assert set(np.unique(mask[:15, 17:])) == {0, coco.CLASSES.index('hot dog') + 1}
  assert not source.mask(1).any()
  np.testing.assert_array_equal(
    source.mask(2), miniatures.paint(miniatures.COCO_SIZE, (80, 0, 0, 2, 2))
  )
  assert source.size(0) == miniatures.COCO_SIZE
  assert [x.name for x in source.files(0)] == [f'{TRAIN[0]}.jpg', 'instances_train2014.json']
  assert checks.check_source(source) == []
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy.mask(0), mask)
  assert _names(_open(root, 'val2014')) == [['dog']]


def test_both_lists_of_the_field(root):
  assert _open(root, 'train2014_labelled').ids == (TRAIN[0], TRAIN[2])
  assert _open(root, exclude=frozenset(TRAIN[:1])).ids == TRAIN[1:]


def test_annotations_are_read_once(root, cache, monkeypatch):
  first = _open(root)
  assert len(list(cache.iterdir())) == 1
  monkeypatch.setattr(coco_index, '_read', None)
  again = _open(root)
  np.testing.assert_array_equal(again.labels, first.labels)
  np.testing.assert_array_equal(again.mask(0), first.mask(0))
  monkeypatch.undo()
  monkeypatch.setenv('XDG_CACHE_HOME', str(cache.parents[2]))
  path = root / 'annotations' / 'instances_train2014.json'
  content = json.loads(path.read_text())
  content['annotations'].pop()
  path.write_text(json.dumps(content))
  assert not _open(root).labels[2].any()


def test_mask_folders_are_by_id_or_by_number(root, tmp_path):
  painted = np.full(miniatures.COCO_SIZE, 255, np.uint8)
  for folder, name in (('coco_seg_anno', '{:012d}'), ('mine', 'COCO_train2014_{:012d}')):
    (root / folder).mkdir()
    for number in (9, 25, 77):
      painted[0, 0] = 3 if folder == 'mine' else 2
      images.write_png(root / folder / f'{name.format(number)}.png', painted)
  assert _open(root).mask(0)[0, 0] == 2
  assert _open(root, masks=str(root / 'mine')).mask(2)[0, 0] == 3
  (root / 'mine' / f'{TRAIN[1]}.png').unlink()
  message = _message(root, masks=str(root / 'mine'))
  assert 'lacks the masks of 1 of 3 ids' in message
  # Not all there: the annotations tell.
  (root / 'coco_seg_anno' / '000000000025.png').unlink()
  np.testing.assert_array_equal(_open(root).mask(0)[:15, :17], _expected()[:15, :17])


def test_without_annotations_a_table_is_enough(root, tmp_path):
  shutil.rmtree(root / 'annotations')
  assert 'instances_train2014.json is missing' in _message(root)
  table = tmp_path / 'labels.csv'
  table.write_text('id,labels\n' + ''.join(f'{x},hot_dog person\n' for x in TRAIN))
  source = _open(root, labels=str(table))
  assert source.ids == TRAIN and not source.has_masks
  assert _names(source) == [['person', 'hot dog']] * 3
  folders.replace(table, f'{TRAIN[1]},hot_dog person', f'{TRAIN[1]},hotdog')
  message = _message(root, labels=str(table))
  assert "unknown class 'hotdog'; did you mean 'hot_dog'?" in message


def test_lists_name_files_or_numbers(root, tmp_path):
  (tmp_path / 'trainlet.txt').write_bytes(b'77\r\nCOCO_train2014_000000000009.jpg\r\n')
  source = _open(root, 'trainlet', lists=str(tmp_path))
  assert source.ids == (TRAIN[2], TRAIN[0]) and _names(source)[0] == ['toothbrush']
  assert source.mask(0)[1, 1] == 80
  (tmp_path / 'more.txt').write_text('5\n')
  message = _message(root, 'more', lists=str(tmp_path))
  assert 'the annotations lack 1 of 1 ids' in message and '000000000005.jpg is missing' in message


def test_images_in_a_folder_of_their_own(root):
  (root / 'images').mkdir()
  shutil.move(root / 'val2014', root / 'images' / 'val2014')
  assert len(_open(root, 'val2014')) == 1


@pytest.mark.parametrize(
  'old, new, part',
  [
    ('"toothbrush"', '"tooth"', "its 80 categories are not the 80 of this data set, e.g. ['tooth"),
    ('"image_id": 77', '"image_id": 78', 'annotation 3 has the image_id 78, which the file does'),
    ('"category_id": 90', '"category_id": 12', 'annotation 3 has the category_id 12, which the'),
    ('"image_id": 77', '"image": 77', 'annotations[3] (id 3) has no image_id'),
    ('"annotations"', '"notes"', "it has no list 'annotations'"),
    (
      '"id": 25, "f',
      '"id": 9, "f',
      'images: the id 9 is of COCO_train2014_000000000009.jpg and of',
    ),
    ('"id": 90', '"id": 1', '2 categories have the id 1'),
    ('000025.jpg', '000009.jpg', '000009.jpg is listed under the ids 25 and 9; join'),
    ('[[4.0, 4.0', '[[3.5e8, 4.0', 'annotation 1 has an outline that is not near its image of 20x'),
    ('[[4.0, 4.0', '[[NaN, 4.0', 'annotation 1 has an outline that is not near its image of 20x'),
    ('[[4.0, 4.0', '[[1%s, 4.0' % ('0' * 400), 'annotation 1: int too large'),
    ('[[4.0, 4.0', '[["a", 4.0', 'annotation 1: could not convert string'),
    ('14.0, 4.0, 14.0]]', '14.0, 4.0, 14.0]', 'cannot be read as COCO annotations (JSONDecodeErr'),
    ('"size": [20, 30]', '"size": [30, 20]', 'annotation 2 has run lengths of 30x20 px, but its'),
    ('"size": [20, 30]', '"size": 20', 'annotation 2 has no region (TypeError'),
    ('"counts"', '"count"', "annotation 2 has no region (KeyError('counts'))"),
    ('{"info"', '["info"', 'cannot be read as COCO annotations'),
    ('"height": 20', '"height": 21', 'annotation 2 has run lengths of 20x30 px, but its'),
    ('16.0, 14.0, 4.0, 14.0]', '16.0, 14.0, 4.0]', 'annotation 1 has an outline of 7 numbers'),
    ('[[4.0, 4.0', '[4.0, [4.0', 'annotation 1 has an outline that is no list'),
    ('"segmentation": [[4.0', '"segmentation": "x", "x": [[4.0', "a segmentation is 'x'"),
    ('"height": 20', '"height": 0', 'image 9 has a size of 0x30 px'),
  ],
)
def test_broken_annotations_are_named(root, cache, old, new, part):
  path = root / 'annotations' / 'instances_train2014.json'
  path.write_text(path.read_text().replace(old, new))
  message = _message(root)
  assert 'instances_train2014.json' in message and part in message
  assert not cache.exists() or not list(cache.iterdir())


def test_a_flat_polygon_is_an_error_that_says_how_one_is_written(root):
  path = root / 'annotations' / 'instances_train2014.json'
  content = json.loads(path.read_text())
  content['annotations'][1]['segmentation'] = content['annotations'][1]['segmentation'][0]
  path.write_text(json.dumps(content))
  message = _message(root)
  assert 'annotation 1 has an outline that is no list of numbers' in message
  assert f'[[x, y, x, y, ...], ...]; mend or remove this annotation of {TRAIN[0]}.jpg' in message


def test_all_problems_of_the_annotations_are_told_at_once(root):
  path = root / 'annotations' / 'instances_train2014.json'
  path.write_text(path.read_text().replace('14.0', 'NaN').replace('"size": [20', '"size": [21'))
  message = _message(root)
  assert 'has 3 problems' in message and 'annotation 1 has' in message
  assert 'annotation 2 has run lengths of 21x30 px' in message


def test_missing_things_are_named(root, tmp_path):
  (root / 'train2014' / f'{TRAIN[0]}.jpg').unlink()
  assert f'{TRAIN[0]}.jpg is missing' in _message(root)
  assert "no split 'train2017'" in _message(root, 'train2017')
  assert 'train2014 or images/train2014 not found' in _message(root / 'annotations')
