"""VOC 2012 is read from its own layout: labels by the rules, masks of both origins."""

import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
import scipy.io
from data import folders, miniatures

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import checks
from pnoc_jax.data.readers import packing, voc
from pnoc_jax.io import images

AUG = ('2007_000001', '2007_000002', '2008_000004', '2009_000005')


@pytest.fixture
def root(tmp_path):
  return miniatures.write_voc(tmp_path)


@pytest.fixture
def home(root):
  return root / 'VOCdevkit' / 'VOC2012'


def _open(root, split, **options):
  exclude = options.pop('exclude', frozenset())
  config = info.DatasetConfig(name='voc12', root=str(root), **options)
  return sources.open_source(config, split, exclude=exclude)


def _message(root, split='train', **options):
  with pytest.raises(errors.UserError) as caught:
    _open(root, split, **options)
  return str(caught.value)


def _names(source):
  return [[source.info.classes[k] for k in np.flatnonzero(row)] for row in source.labels]


def test_reads_images_labels_and_masks(root, home):
  source = _open(root, 'train')
  assert source.ids == ('2007_000001', '2007_000002') and len(source) == 2
  assert source.info.num_classes == 20 and source.info.classes[19] == 'tvmonitor'
  assert source.labels.dtype == np.float32 and _names(source) == [['cat'], ['person']]
  image = source.example(1)['image']
  np.testing.assert_array_equal(image, miniatures.picture(home / 'again.jpg', (20, 30), 1))
  assert source.size(1) == (20, 30)
  mask = miniatures.paint((20, 30), (255, 4, 4, 12, 12), (15, 5, 5, 11, 11))
  np.testing.assert_array_equal(source.mask(1), mask)
  assert [x.name for x in source.files(0)] == ['2007_000001.jpg', '2007_000001.png']
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy.mask(1), mask)
  assert checks.check_source(source) == []


@pytest.mark.parametrize('place', ['', 'VOCdevkit', 'VOCdevkit/VOC2012'])
def test_the_root_may_stand_above(root, place):
  assert _open(root / place, 'val').ids == ('2008_000003',)


def test_parts_and_boxes_without_area_are_no_labels(root):
  source = _open(root, 'train_aug')
  assert _names(source)[2] == ['boat', 'sheep']


@pytest.mark.parametrize('aug_colors', [False, True])
def test_train_aug_is_derived_from_the_masks(tmp_path, aug_colors):
  root = miniatures.write_voc(tmp_path / 'x', aug_colors=aug_colors)
  source = _open(root, 'train_aug')
  assert source.ids == AUG and source.has_masks
  assert set(np.unique(source.mask(0))) == {0, 8, 255}  # VOC's own mask, with void.
  np.testing.assert_array_equal(source.mask(2), miniatures.paint((20, 30), (17, 4, 4, 12, 12)))
  assert checks.check_source(source) == []
  assert _open(root, 'trainval_aug').ids == (*AUG[:2], '2008_000003', *AUG[2:])


def test_train_aug_is_derived_from_sbd_lists_or_merged_masks(root, home):
  merged = home / 'SegmentationClass'
  shutil.move(home / 'SegmentationClassAug', root / 'aug')
  assert 'cannot be derived' in _message(root, 'train_aug')
  sbd = root / 'SBD' / 'dataset'
  sbd.mkdir(parents=True)
  (sbd / 'train.txt').write_text('2008_000003\r\n2008_000004\r\n')
  (sbd / 'val.txt').write_text('2009_000005\r\n')
  source = _open(root, 'train_aug')
  assert source.ids == AUG and not source.has_masks and source.mask(0) is None
  shutil.rmtree(sbd)
  for path in (root / 'aug').iterdir():
    if not (merged / path.name).exists():
      shutil.copy(path, merged)
  assert _open(root, 'train_aug').ids == AUG


def _write_mat(path, mask, **names):
  path.parent.mkdir(parents=True, exist_ok=True)
  fields = {'Boundaries': np.zeros((20, 1)), 'Segmentation': mask, 'CategoriesPresent': [17]}
  scipy.io.savemat(path, {'GTcls': fields} | names, do_compression=True)


@pytest.mark.parametrize('place', ['benchmark_RELEASE', '../../SBD'])
def test_the_masks_of_sbd_itself_take_the_place_of_its_pngs(root, home, place):
  shutil.rmtree(home / 'SegmentationClassAug')
  sbd = home / place / 'dataset'
  mask = miniatures.paint((20, 30), (17, 4, 4, 12, 12))
  for key in AUG:
    _write_mat(sbd / 'cls' / f'{key}.mat', mask)
  (sbd / 'train.txt').write_text('2008_000004\n')
  (sbd / 'val.txt').write_text('2009_000005\n')
  source = _open(root, 'train_aug')
  assert source.ids == AUG and source.has_masks
  assert [source.files(i)[1].suffix for i in range(4)] == ['.png', '.png', '.mat', '.mat']
  assert source.mask(2).dtype == np.uint8
  np.testing.assert_array_equal(source.mask(2), mask)
  assert set(np.unique(source.mask(0))) == {0, 8, 255}  # VOC's own mask, with void.
  assert checks.check_source(source) == []
  stored = packing.contents(source, 2)[1]
  np.testing.assert_array_equal(images.read_mask(stored), mask)


def test_a_broken_mask_of_sbd_is_named(root, home):
  (home / 'SegmentationClassAug' / '2009_000005.png').unlink()
  path = home / 'SBD' / 'dataset' / 'cls' / '2009_000005.mat'
  mask = miniatures.paint((20, 30), (17, 4, 4, 12, 12))
  _write_mat(path, mask)
  (home / 'ImageSets' / 'Segmentation' / 'mine.txt').write_text('2008_000004\n2009_000005\n')
  source = _open(root, 'mine')
  assert source.mask(1).shape == (20, 30)
  whole = path.read_bytes()
  for spoil, match in (
    (lambda: path.write_bytes(whole[: len(whole) // 2]), 'cannot be read'),
    (lambda: path.write_bytes(b''), 'cannot be read'),
    (lambda: _write_mat(path, mask.astype(float)), r'float64\[20, 30\], expected uint8'),
    (lambda: _write_mat(path, mask, GTcls={'Boundaries': 1}), r'no GTcls\.Segmentation'),
    (lambda: _write_mat(path, mask, GTcls=mask), r'no GTcls\.Segmentation'),
    (lambda: scipy.io.savemat(path, {'GTinst': mask}), r'no GTcls\.Segmentation'),
    (path.unlink, 'no such mask'),
  ):
    spoil()
    with pytest.raises(errors.UserError, match=rf'2009_000005\.mat: .*{match}'):
      source.mask(1)
    assert [x.id for x in checks.check_source(source)] == ['2009_000005']


def test_lists_of_the_field_are_read(root, home):
  path = home / 'ImageSets' / 'Segmentation' / 'train_aug.txt'
  path.write_bytes(
    b'\xef\xbb\xbf/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png\r\n'
    b'2009_000005 \r\n\r\n'
  )
  assert _open(root, 'train_aug').ids == ('2007_000001', '2009_000005')
  excluded = _open(root, 'train_aug', exclude=frozenset({'2009_000005'}))
  assert excluded.ids == ('2007_000001',)


def test_own_lists_labels_and_masks_take_the_place(root, tmp_path):
  (tmp_path / 'lists').mkdir()
  (tmp_path / 'lists' / 'mine.txt').write_text('2009_000005\n2007_000001\n')
  (tmp_path / 'labels.csv').write_text(
    'id,labels\n2007_000001,cow horse\n2009_000005,\n2007_000002,car\n'
  )
  source = _open(
    root,
    'mine',
    lists=str(tmp_path / 'lists'),
    labels=str(tmp_path / 'labels.csv'),
    masks=str(root / 'VOCdevkit/VOC2012/SegmentationClassAug'),
  )
  assert source.ids == ('2009_000005', '2007_000001')
  assert _names(source) == [[], ['cow', 'horse']]
  assert set(np.unique(source.mask(1))) == {0, 8}  # No void: SBD's.


def test_test_has_neither_labels_nor_masks(root, home):
  (home / 'ImageSets' / 'Segmentation' / 'test.txt').write_text('2010_000009\n')
  miniatures.picture(home / 'JPEGImages' / '2010_000009.jpg', (20, 30))
  source = _open(root, 'test')
  assert not source.labels.any() and not source.has_masks


def test_problems_are_listed_at_once(root, home):
  annotations = home / 'Annotations'
  folders.replace(annotations / '2007_000001.xml', '<name>cat<', '<name>Cat<')
  (annotations / '2007_000002.xml').write_text('<annotation><object>')
  (home / 'JPEGImages' / '2007_000002.jpg').unlink()
  message = _message(root)
  for part in (
    '3 problems',
    "2007_000001.xml has the unknown class 'Cat'; did you mean 'cat'?",
    '2007_000002.xml cannot be read',
    '2007_000002.jpg is missing',
  ):
    assert part in message
  (annotations / '2008_000003.xml').unlink()
  assert '2008_000003.xml is missing' in _message(root, 'val')
  assert 'nowhere.txt is missing (splits found: train, val)' in _message(root, 'nowhere')
  options = {'lists': 'x', 'labels': 'y.csv', 'masks': 'z'}
  message = _message(root, 'val', **options)
  assert 'val.txt is missing (dataset.lists)' in message and 'y.csv is missing' in message
  assert '(dataset.masks) lacks the masks of 1 of 1 ids' in _message(root, 'val', masks='z')
  assert 'dataset.root is empty' in _message('')
  assert 'JPEGImages not found in ./, VOC2012/' in _message(home / 'Annotations')


@pytest.mark.parametrize('size', ['0', '', '-1'])
def test_an_annotation_without_a_size_keeps_its_labels(root, home, size):
  path = home / 'Annotations' / '2007_000001.xml'
  folders.replace(path, '<width>30</width>', f'<width>{size}</width>')
  folders.replace(path, '<height>20</height>', f'<height>{size}</height>')
  assert _names(_open(root, 'train')) == [['cat'], ['person']]


@pytest.mark.parametrize(
  'old, new, part',
  [
    ('<xmin>5<', '<xmin>25<', "the box of 'cat' has xmin 25 and xmax 20"),
    ('<ymin>5<', '<ymin>19<', "the box of 'cat' has ymin 19 and ymax 18"),
    ('<xmin>5<', '<xmin>nan<', 'xmin is nan, which is no number'),
    ('<xmin>5<', '<xmin>five<', "could not convert string to float: 'five'"),
    ('<annotation>', '<?xml version="1.0" encoding="utf-9"?><annotation>', 'unknown encoding'),
    ('<annotation>', '<?xml version="1.0" encoding="gbk"?><annotation>', 'encoding'),
    ('annotation>', 'html>', 'its outermost element is <html>, not <annotation>'),
    ('<name>cat<', '<name><', "has the unknown class ''"),
  ],
)
def test_an_annotation_whose_labels_would_vanish_is_an_error(root, home, old, new, part):
  path = home / 'Annotations' / '2007_000001.xml'
  path.write_text(path.read_text().replace(old, new))
  message = _message(root)
  assert 'Annotations/: 2007_000001.xml' in message and part in message


def test_objects_beyond_the_stated_size_are_counted(root, home):
  path = home / 'Annotations' / '2007_000001.xml'
  folders.replace(path, '<width>30</width>', '<width>4</width>')
  for _ in range(2):  # Parsed, and from the cache.
    source = _open(root, 'train')
    assert _names(source)[0] == []
    (said,) = [x for x in source.remarks if 'objects' in x]
    assert '1 annotations have no pixel' in said and 'Annotations/2007_000001.xml' in said


def test_a_mask_of_foreign_colours_is_refused(tmp_path):
  root = miniatures.write_voc(tmp_path, aug_colors=True)
  path = root / 'VOCdevkit/VOC2012/SegmentationClassAug/2009_000005.png'
  miniatures.picture(path, (20, 30))
  source = _open(root, 'train_aug')
  with pytest.raises(errors.UserError, match=r'2009_000005\.png: \d+ pixels .* colours of no cla'):
    source.mask(3)
  assert [x.id for x in checks.check_source(source)] == ['2009_000005']


def test_the_classes_are_alphabetical():
  assert len(voc.CLASSES) == 20 and list(voc.CLASSES) == sorted(voc.CLASSES)
  assert voc.IMAGES['train_aug'] + voc.IMAGES['val'] == voc.IMAGES['trainval_aug']


def test_annotations_are_parsed_once(root, home, monkeypatch):
  first, parsed = _open(root, 'train_aug'), []
  parse = voc.read_annotation
  monkeypatch.setattr(voc, 'read_annotation', lambda path: parsed.append(path.stem) or parse(path))
  np.testing.assert_array_equal(_open(root, 'train_aug').labels, first.labels)
  assert not parsed
  path = home / 'Annotations' / f'{AUG[0]}.xml'
  folders.replace(path, 'cat', 'dog')
  os.utime(path, ns=(1, 1))  # The size is that of before, and a clock may be slow.
  assert _names(_open(root, 'train_aug'))[0] == ['dog'] and tuple(parsed) == AUG
  # What is wrong is told each time.
  folders.replace(path, 'dog', 'dgo')
  for _ in range(2):
    assert f"{AUG[0]}.xml has the unknown class 'dgo'; did you mean 'dog'?" in _message(root)
  parsed.clear()
  _message(root)
  assert not parsed


def test_without_a_cache_annotations_are_parsed_each_time(root, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))  # No directory can be made there.
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('default')
    for split in ('train', 'train', 'val'):
      source = pickle.loads(pickle.dumps(_open(root, split)))
  assert _names(source) == [['dog', 'tvmonitor']]
  (warning,) = caught
  assert 'set XDG_CACHE_HOME to a directory that can be written' in str(warning.message)
