"""Masks that are there and are not used are named with a sample, in every reader."""

import os
import shutil

import pytest
from data import folders, miniatures

from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import survey
from pnoc_jax.data.inspect.findings import Severity


def _remarks(name, root, split='train'):
  source = sources.open_source(info.DatasetConfig(name=name, root=str(root)), split)
  assert not source.has_masks
  found = survey.judge(source, survey.look(source), trains=True)
  remarks = info.remarks(source)
  warnings = [x.what for x in found if x.level is Severity.WARNING]
  assert set(remarks) <= set(warnings)
  return remarks


@pytest.mark.parametrize(
  'place',
  [
    'masks/{}.PNG',
    'masks/{}.tif',
    'masks/{}_mask.png',
    'masks/mask_{}.png',
    'masks/train/{}.png',
    'Masks/{}.png',
    'SegmentationClass/{}.png',
    'labels/{}.bmp',
    'images/{}_mask.png',
  ],
)
def test_what_looks_like_masks_and_is_not_used_is_named(tmp_path, place):
  root = folders.write(tmp_path / 'animals')
  for path in sorted((root / 'masks').iterdir()):
    target = root / place.format(path.stem)
    target.parent.mkdir(exist_ok=True, parents=True)
    os.rename(path, target)
  (remark,) = _remarks('folder', root)
  assert f'{place.format("a")} looks like a mask' in remark and 'masks/<id>.png' in remark


def test_nothing_is_said_where_there_is_nothing_like_a_mask(tmp_path):
  root = folders.write(tmp_path / 'animals', masks=False)
  (root / 'masks' / 'readme.txt').write_text('none')
  shutil.copytree(root / 'images', root / 'thumbnails')
  shutil.copy(root / 'images' / 'a.png', root / 'images' / 'a_2.png')
  assert _remarks('folder', root) == ()
  source = sources.open_source(
    info.DatasetConfig(name='folder', root=str(folders.write(tmp_path / 'b'))), 'train'
  )
  assert info.remarks(source) == ()


def test_masks_of_a_part_of_a_split_are_named(tmp_path):
  root = miniatures.write_voc(tmp_path)
  home = root / 'VOCdevkit' / 'VOC2012'
  (home / 'SegmentationClassAug' / '2008_000004.png').unlink()
  lists = home / 'ImageSets' / 'Segmentation'
  (lists / 'mine.txt').write_text('2009_000005\n2008_000004\n')
  # The last image has objects beyond its size, which have a remark of their own.
  _, remark = _remarks('voc12', root, 'mine')
  assert '1 of 2 ids have no mask, the first is 2008_000004: the split counts as' in remark
  shutil.move(home / 'SegmentationClassAug', home / 'aug_masks')
  _, remark = _remarks('voc12', root, 'mine')
  assert 'aug_masks/2009_000005.png looks like a mask' in remark


def test_coco_says_that_it_paints_where_a_mask_is_missing(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  root = miniatures.write_coco(tmp_path / 'coco')
  (root / 'coco_seg_anno').mkdir()
  (root / 'coco_seg_anno' / '000000000009.png').write_bytes(b'')
  config = info.DatasetConfig(name='coco14', root=str(root))
  (remark,) = info.remarks(sources.open_source(config, 'train2014'))
  assert 'coco_seg_anno/: 2 of 3 ids have no mask' in remark and 'painted from' in remark


def test_the_masks_of_satellite_and_street_images_are_named(tmp_path):
  root = miniatures.write_deepglobe(tmp_path / 'globe')
  os.rename(root / 'SegmentationClassAug', root / 'SegmentationClass')
  (remark,) = _remarks('deepglobe', root, 'train75')
  assert 'SegmentationClass/119.png looks like a mask' in remark
  root = miniatures.write_cityscapes(tmp_path / 'streets')
  for path in root.glob('gtFine/train/*/*.png'):
    os.rename(path, path.with_name(path.name.replace('labelTrainIds', 'color')))
  remarks = _remarks('cityscapes', root)
  assert '_gtFine_color.png looks like a mask' in remarks[0]
