"""A packed data set reads back as its files do: same ids, bytes, labels and masks."""

import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from data import folders, miniatures

from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.readers import tfds
from pnoc_jax.data.streams import pipeline
from pnoc_jax.io import images
from pnoc_jax.runs import graph, lock

ROOT = pathlib.Path(__file__).parents[2]

# TensorFlow cannot be found in this process, installed or not.
_BLOCKED = """
import importlib.machinery, json, runpy, sys
found = importlib.machinery.PathFinder.find_spec
def find(cls, name, path=None, target=None):
  hidden = name.partition('.')[0] == 'tensorflow'
  return None if hidden else found(name, path, target)
importlib.machinery.PathFinder.find_spec = classmethod(find)
try:
  import tensorflow
  raise SystemExit('TensorFlow was found')
except ModuleNotFoundError:
  pass
sys.path[:0] = [ROOT, ROOT + '/tests']
"""
_PACK = """
from launch import prepare
for arguments in json.loads(sys.argv[1]):
  assert prepare.main(arguments) == 0
assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules
"""
_READ = """
from launch import test_prepare
test_prepare.print_facts(json.loads(sys.argv[1]))
assert 'tensorflow' not in sys.modules
"""


def _run(code, argument, cwd):
  code = _BLOCKED.replace('ROOT', repr(str(ROOT))) + code
  result = subprocess.run(
    [sys.executable, '-c', code, json.dumps(argument)],
    cwd=cwd,
    env=os.environ | {'XDG_CACHE_HOME': str(cwd / 'cache')},
    capture_output=True,
    text=True,
    timeout=240,
    check=False,
  )
  assert result.returncode == 0, result.stderr[-4000:]
  return result.stdout


def _sets(root):
  """{kind: (directory, splits)} of generated data sets."""
  folder = folders.write(root / 'folder')
  (folder / 'splits' / 'val.txt').write_text('b\na\n')
  return {
    'folder': (folder, ('train', 'val')),
    'voc12': (miniatures.write_voc(root / 'voc', aug_colors=True), ('train', 'train_aug', 'val')),
    'coco14': (miniatures.write_coco(root / 'coco'), ('train2014',)),
    'cityscapes': (miniatures.write_cityscapes(root / 'cityscapes'), ('train', 'test')),
    'deepglobe': (miniatures.write_deepglobe(root / 'deepglobe'), ('train75',)),
    'hpa': (miniatures.write_hpa(root / 'hpa'), ('val',)),
    'shapes': ('', ('val',)),
  }


def _facts(source):
  """What a source gives, as plain values."""

  def digest(array):
    return None if array is None else [list(array.shape), hashlib.sha256(array).hexdigest()]

  count = range(min(len(source), 12))
  return {
    'info': repr(source.info),
    'ids': list(source.ids),
    'labels': source.labels.tolist(),
    'sizes': [list(source.size(i)) for i in count],
    'images': [digest(np.ascontiguousarray(source.example(i)['image'])) for i in count],
    'masks': [digest(source.mask(i)) for i in count],
  }


def print_facts(asked):
  """Prints the facts of packed splits: [(kind, root, split)]."""
  found = []
  for kind, root, split in asked:
    config = info.DatasetConfig(kind, root, info.Storage.TFDS)
    found.append(_facts(pickle.loads(pickle.dumps(sources.open_source(config, split)))))
  print(json.dumps(found))


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
  """Packs all kinds of data sets in a process without TensorFlow."""
  root = tmp_path_factory.mktemp('packed')
  sets = _sets(root)
  calls = [
    [
      f'--dataset={kind}',
      f'--root={place}',
      f'--output={root / "output"}',
      f'--splits={",".join(splits)}',
    ]
    for kind, (place, splits) in sets.items()
  ]
  said = _run(_PACK, calls, root)
  assert said.count('packed') == sum(len(splits) for _, splits in sets.values())
  return root, sets, calls


def test_every_kind_of_data_set_reads_back_the_same(packed):
  root, sets, _ = packed
  asked = [(kind, str(root / 'output'), x) for kind, (_, splits) in sets.items() for x in splits]
  found = json.loads(_run(_READ, asked, root).splitlines()[-1])
  for (kind, _, split), facts in zip(asked, found, strict=True):
    config = info.DatasetConfig(kind, str(sets[kind][0]))
    assert facts == json.loads(json.dumps(_facts(sources.open_source(config, split)))), kind


def _open(root, kind, split, **options):
  config = info.DatasetConfig(kind, str(root / 'output'), info.Storage.TFDS)
  return sources.open_source(config, split, **options)


def test_the_bytes_are_those_of_the_files(packed):
  root, sets, _ = packed
  for kind, split, same_mask in (
    ('voc12', 'val', True),
    ('folder', 'train', True),
    ('cityscapes', 'train', False),  # The file has trainIds.
    ('deepglobe', 'train75', False),  # Colours.
    ('coco14', 'train2014', False),  # Painted from annotations.
    ('hpa', 'val', None),
  ):
    config = info.DatasetConfig(kind, str(sets[kind][0]))
    theirs, ours = sources.open_source(config, split), _open(root, kind, split)
    for i in range(len(theirs)):
      there = [] if kind == 'coco14' else theirs.files(i)[1 if kind != 'hpa' else 4 :]
      paths = theirs.files(i)[:1] if kind != 'hpa' else theirs.files(i)
      stored, mask = ours.contents(i)
      assert stored == [path.read_bytes() for path in paths]
      if same_mask is not None:
        assert (mask in [path.read_bytes() for path in there]) == same_mask
        assert (images.read_mask(mask) == theirs.mask(i)).all()
      else:
        assert mask == b''


def test_ids_are_left_out_and_missing_splits_explained(packed):
  root, _, _ = packed
  whole, part = (
    _open(root, 'voc12', 'train_aug'),
    _open(root, 'voc12', 'train_aug', exclude=frozenset(['2007_000001'])),
  )
  assert part.ids == whole.ids[1:]
  assert (part.example(0)['image'] == whole.example(1)['image']).all()
  assert info.place(part, 0) == f'{part.path}, {whole.ids[1]}'
  assert (part.mask(0) == whole.mask(1)).all() and part.size(0) == whole.size(1)
  with pytest.raises(errors.UserError, match=r'prepare\.py --dataset=voc12 .*--splits=test'):
    _open(root, 'voc12', 'test')
  config = info.DatasetConfig('voc12', str(root), info.Storage.TFDS, masks='x')
  with pytest.raises(errors.UserError, match='what is packed has its own masks'):
    sources.open_source(config, 'val')


@pytest.fixture
def theirs(packed, tmp_path):
  """A copy of a packed split, as somebody else may have changed it, and its root."""
  place = tmp_path / 'output' / 'folder' / 'train'
  shutil.copytree(packed[0] / 'output' / 'folder' / 'train', place)
  return place / '1.0.0', tmp_path


def _edit(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_ids_of_a_packed_split_write_nowhere_else(theirs):
  place, root = theirs
  _edit(place / 'metadata.json', lambda x: x['ids'].__setitem__(1, '../../other/weights'))
  with pytest.raises(errors.UserError, match=r"'\.\./\.\./other/weights' leads to another folder"):
    _open(root, 'folder', 'train')


@pytest.mark.parametrize(
  'change, wrong',
  [
    (lambda x: x['labels'].__setitem__(0, [3]), 'wrong are `labels`'),
    (lambda x: x['labels'].pop(), 'wrong are `labels`'),
    (lambda x: x['sizes'].__setitem__(0, [1 << 20, 1 << 20]), 'wrong are `sizes`'),
    (lambda x: x['info'].update(palette=[['0)"><script>', 0, 0]] * 4), 'wrong are `palette`'),
    (lambda x: x['info'].update(std=[0, 0, 0], name=7), 'wrong are `name`, `std`'),
    (lambda x: x['info'].update(more=1), r"unknown fields \['more'\]"),
    (lambda x: x.update(info=[], ids={}), '`info` is no JSON object'),
    (lambda x: x.update(white=['a', 1]), 'wrong are `white`'),
    (lambda x: x.clear(), 'not of launch/prepare'),
  ],
)
def test_a_packed_split_of_another_form_is_refused(theirs, change, wrong):
  place, root = theirs
  _edit(place / 'metadata.json', change)
  with pytest.raises(errors.UserError, match=wrong):
    _open(root, 'folder', 'train')


@pytest.mark.parametrize('key', ['pythonClassName', 'python_class_name', 'type'])
def test_a_packed_split_imports_no_module_that_it_names(theirs, monkeypatch, key):
  place, root = theirs
  (root / 'evil_module.py').write_text('raise SystemExit("was imported")')
  monkeypatch.syspath_prepend(root)
  features = json.loads((place / 'features.json').read_text())
  mask = features['featuresDict']['features']['mask']
  del mask['pythonClassName']
  mask |= {key: 'evil_module.Feature', 'content': {}}
  (place / 'features.json').write_text(json.dumps(features))
  with pytest.raises(errors.UserError, match=r"names the class 'evil_module\.Feature'"):
    _open(root, 'folder', 'train')


@pytest.mark.parametrize('file', ['features.json', 'dataset_info.json', 'metadata.json'])
@pytest.mark.parametrize('content', [b'{', b'[' * 100_000, b'\xff', b'7'])
def test_a_damaged_packed_split_is_told(theirs, file, content):
  place, root = theirs
  (place / file).write_bytes(content)
  with pytest.raises(errors.UserError, match=re.escape(str(place))):
    _open(root, 'folder', 'train')


def test_a_bucket_gets_a_copy_of_what_is_packed_here(packed, monkeypatch):
  root, sets, _ = packed
  config = info.DatasetConfig('folder', str(sets['folder'][0]))
  source, bucket = sources.open_source(config, 'train'), root / 'bucket'
  monkeypatch.setattr(tfds, '_is_remote', lambda path: True)
  assert tfds.pack(source, config.name, str(bucket))
  config = info.DatasetConfig('folder', str(bucket), info.Storage.TFDS)
  copy = sources.open_source(config, 'train')
  assert _facts(copy) == _facts(source)
  assert not list(bucket.rglob('incomplete*'))
  assert not tfds.pack(source, 'folder', str(bucket))


def test_batches_and_fingerprints_are_those_of_the_files(packed):
  root, sets, _ = packed
  config = info.DatasetConfig('voc12', str(sets['voc12'][0]))
  theirs, ours = sources.open_source(config, 'train'), _open(root, 'voc12', 'train')
  transform = transforms.TransformConfig(min_size=16, max_size=24, crop=16)
  batches = [
    next(pipeline.train_batches(pipeline.Examples(x), transform, batch_size=2, seed=3))
    for x in (theirs, ours)
  ]
  for name, array in batches[0].items():
    np.testing.assert_array_equal(array, batches[1][name])
  # A run that was begun on files goes on from packed ones.
  packed_config = dataclasses.replace(config, source=info.Storage.TFDS, root='elsewhere')
  settings = [
    graph.dataset_settings(x, {'train': y}) for x, y in ((config, theirs), (packed_config, ours))
  ]
  assert settings[0] == settings[1]


def test_nothing_is_packed_before_every_split_was_checked(tmp_path, capsys):
  from launch import prepare

  root = folders.write(tmp_path / 'folder')
  (root / 'splits' / 'train.txt').write_text('a\nb\n')
  (root / 'splits' / 'val.txt').write_text('c\n')
  (root / 'images' / 'c.png').write_bytes(b'no image')
  output = tmp_path / 'output'
  arguments = ['--dataset=folder', f'--root={root}', f'--output={output}', '--splits=train,val']
  assert prepare.main(arguments) == 2
  assert 'c.png' in capsys.readouterr().err
  assert not output.exists()


def test_the_same_command_goes_on_and_another_data_set_is_refused(packed, capsys, monkeypatch):
  root, sets, calls = packed
  from launch import prepare

  place = root / 'output' / 'folder' / 'val'
  left = place / 'incomplete.ABCDEF_1.0.0'
  (place / '1.0.0').rename(left)  # As a killed call leaves it.
  monkeypatch.setenv('XDG_CACHE_HOME', str(root / 'cache'))
  assert prepare.main(calls[0]) == 0
  out = capsys.readouterr().out
  assert 'train: 4 images with masks, there already' in out
  assert 'val: 2 images with masks, packed' in out
  assert [x.name for x in place.iterdir()] == ['1.0.0']
  assert _open(root, 'folder', 'val').ids == ('b', 'a')

  with lock.hold(root / 'output', 'launch/prepare.py'):
    assert prepare.main(calls[0]) == 2
  assert 'another launch/prepare.py is at work in' in capsys.readouterr().err

  listed = sets['folder'][0] / 'splits' / 'val.txt'
  listed.write_text('a\nb\n')
  assert prepare.main(calls[0]) == 2
  assert 'of other images' in capsys.readouterr().err
  path = sets['folder'][0] / 'images' / 'a.png'
  path.write_bytes(path.read_bytes()[:-300])
  assert prepare.main(calls[0]) == 2
  assert 'a.png' in capsys.readouterr().err
