"""The doctor finds every planted fault, and nothing on a sound data set."""

import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from data import folders, miniatures
from PIL import Image

from configs import tiny
from pnoc_jax import config as config_lib
from pnoc_jax.data import info, sources
from pnoc_jax.data.inspect import findings
from pnoc_jax.io import images, records
from pnoc_jax.parallel import targets
from pnoc_jax.runs import disk, doctor, estimates, graph
from pnoc_jax.stages.common import stage

ROOT = pathlib.Path(__file__).parents[2]
FAULT, WARNING, FACT = findings.Severity.FAULT, findings.Severity.WARNING, findings.Severity.FACT
_CLASSES = ('cat', 'dog', 'horse')
_SIZE = (24, 32)


def write(root: pathlib.Path) -> pathlib.Path:
  """A sound folder: 15 images to train and 3 to validate, a class each, JPEG, with masks."""
  rows = ['id,labels']
  (root / 'classes.txt').parent.mkdir(parents=True)
  (root / 'classes.txt').write_text('\n'.join(('background', *_CLASSES)) + '\n')
  for i in range(18):
    miniatures.picture(root / 'images' / f'p{i:02d}.jpg', _SIZE, i)
    _mask(root, f'p{i:02d}', (i % 3 + 1, 4, 4, 16, 20), (255, 16, 4, 18, 20))
    rows.append(f'p{i:02d},{_CLASSES[i % 3]}')
  (root / 'image_labels.csv').write_text('\n'.join(rows) + '\n')
  (root / 'splits').mkdir()
  for split, numbers in (('train', range(15)), ('val', range(15, 18))):
    (root / 'splits' / f'{split}.txt').write_text(''.join(f'p{i:02d}\n' for i in numbers))
  return root


def _mask(root, key, *boxes, size=_SIZE):
  path = root / 'masks' / f'{key}.png'
  path.parent.mkdir(exist_ok=True)
  palette = np.array(info.color_map(4), np.uint8)
  images.write_png(path, miniatures.paint(size, *boxes), palette=palette)


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  return write(tmp_path_factory.mktemp('data') / 'pets')


@pytest.fixture
def root(sound, tmp_path):
  return shutil.copytree(sound, tmp_path / 'pets')


def _config(root, name='folder'):
  config = tiny.get_config()
  config.dataset.name, config.dataset.root = name, str(root)
  config.evaluation.of, config.evaluation.crf_splits = ('priors',), ()
  return config


def _examine(config, workdir):
  return doctor.examine(config, workdir)


def test_nothing_is_found_on_a_sound_set(root, tmp_path):
  report = _examine(_config(root), tmp_path / 'runs' / 'a')
  assert report.of(FAULT) == report.of(WARNING) == [] and report.exit_code == 0
  text = report.text()
  assert '15 images, 24x32 to 24x32 px (height x width), with masks' in text
  row = next(line for line in text.splitlines() if line.split()[:1] == ['dog'])
  assert row.split() == ['dog', '5', '25.0', '0.0', '1.00']  # 12 x 16 of 24 x 32 px.
  for about in ('installation', 'stage generator', 'memory of generator', 'disk', 'run'):
    assert f'  {about}: ' in text
  assert text.splitlines()[-1] == '0 faults, 0 warnings: nothing stands against a run'
  assert not (tmp_path / 'runs').exists()


def _swap(root):
  one, other = root / 'masks' / 'p00.png', root / 'masks' / 'p01.png'
  first = one.read_bytes()
  one.write_bytes(other.read_bytes())
  other.write_bytes(first)


def _colors(root):
  images.write_png(root / 'masks' / 'p02.png', np.full((*_SIZE, 3), 77, np.uint8))


def _cut(path, count):
  path.write_bytes(path.read_bytes()[:-count])


def _table(root, old, new):
  folders.replace(root / 'image_labels.csv', old, new)


def _list(root, old, new, split='train'):
  folders.replace(root / 'splits' / f'{split}.txt', old, new)


def _ghost(root):
  _list(root, 'p04\n', 'ghost\n')


def _grey(root):
  Image.new('L', _SIZE[::-1], 9).save(root / 'images' / 'p00.jpg')
  Image.new('CMYK', _SIZE[::-1], 9).save(root / 'images' / 'p01.jpg')


def _crlf(root):
  path = root / 'splits' / 'train.txt'
  path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n'))


@pytest.mark.parametrize(
  ('plant', 'level', 'about', 'what'),
  [
    (lambda r: (r / 'images' / 'p03.jpg').unlink(), FAULT, 'split train', "no image .* 'p03'"),
    (_swap, FAULT, 'split train', 'p00: its label is cat, its mask shows dog: is it the mask'),
    (_colors, FAULT, 'split train', r'p02: .*p02\.png: a mask of mode RGB'),
    (lambda r: _mask(r, 'p04', size=(9, 7)), FAULT, 'split train', 'p04: .* 7x9 px, its image'),
    (lambda r: [_list(r, f'p{i:02d}\n', '') for i in range(2, 15, 3)], FAULT,
     'split train', 'no image has the class horse'),
    (lambda r: _list(r, 'p16\n', '', 'val'), WARNING, 'split val', 'no image has the class dog'),
    (lambda r: _table(r, 'p04,dog', 'p04,'), FAULT, 'split train', 'p04: its label is empty'),
    (lambda r: _list(r, 'p04\n', 'p04\np04\n'), FAULT, 'split train', "'p04' is given 2 times"),
    (_crlf, FACT, 'lists', r'train\.txt has CRLF line ends, which is no fault'),
    (lambda r: _cut(r / 'images' / 'p05.jpg', 200), FAULT, 'split train', r'p05\.jpg: .*truncated'),
    (lambda r: _cut(r / 'masks' / 'p06.png', 60), FAULT, 'split train', r'p06\.png: .*Truncated'),
    (_ghost, FAULT, 'split train', "the id 'ghost' has no row"),
    (lambda r: _table(r, 'p04,dog', 'p04,dgo'), FAULT, 'split train', "class 'dgo'; .* 'dog'"),
    (lambda r: _mask(r, 'p07', (9, 0, 0, 2, 2)), FAULT, 'split train', r'p07: .*the values \[9\]'),
    (_grey, FACT, 'split train', '1 images are CMYK, and are read as RGB: p01'),
    (lambda r: _list(r, 'p15\n', 'p00\np15\n', 'val'), FAULT, 'splits train and val',
     '1 images are in both: p00'),
    (lambda r: _table(r, 'p04,dog', 'p04,dog cat'), WARNING, 'split train',
     r'1 images \(6.7%\) have a class in the label that is not in the mask; .* p04 \(cat\)'),
    (lambda r: _mask(r, 'p04', (2, 0, 0, 9, 9), (3, 9, 9, 12, 12)), WARNING, 'split train',
     r'have a class in the mask that is not in the label; .* p04 \(horse\)'),
  ],
)  # fmt: skip
def test_a_planted_fault_is_found(plant, level, about, what, root, tmp_path):
  plant(root)
  report = _examine(_config(root), tmp_path / 'run')
  matching = [x for x in report.findings if x.about == about and re.search(what, x.what)]
  assert [x.level for x in matching] == [level], report.text()
  worse = [x for x in (*report.of(FAULT), *report.of(WARNING)) if x not in matching]
  # Both of a swapped pair are named; a ghost has neither label nor image nor mask.
  assert len(worse) == {'swap': 1, 'ghost': 2}.get(plant.__name__.strip('_'), 0), report.text()
  assert report.exit_code == {FAULT: 2, WARNING: 1, FACT: 0}[level]


def test_voc_is_counted_and_its_colours_known(tmp_path, monkeypatch):
  miniatures.write_voc(tmp_path / 'voc', aug_colors=True)
  config = _config(tmp_path / 'voc', 'voc12')
  report = _examine(config, tmp_path / 'run')
  about = {x.about for x in report.of(FAULT) if 'published are' in x.what}
  assert about == {'split train', 'split val'}
  assert '2 images, 20x30 to 20x30 px' in report.text() and 'are 1464: -1462' in report.text()

  row = dataclasses.replace(sources.row('voc12'), images={'train': 2, 'val': 1})
  monkeypatch.setitem(sources.TABLE, 'voc12', row)
  path = tmp_path / 'voc/VOCdevkit/VOC2012/SegmentationClass/2007_000001.png'
  mask = images.read_mask(path)
  images.write_png(path, miniatures.colored(mask, [(1, 2, 3)] * 21, miniatures.VOC_VOID))
  (tmp_path / 'voc/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt').write_bytes(
    b'2008_000003\r\n'
  )
  report = _examine(config, tmp_path / 'run')
  assert 'as many as published' in report.text()
  broken = [x.what for x in report.of(FAULT) if '2007_000001' in x.what]
  assert len(broken) == 1 and 'colours of no class, the first is (1, 2, 3)' in broken[0]
  assert [x.what for x in report.of(FACT) if 'val.txt has CRLF' in x.what]


def test_broken_files_that_are_left_out_are_warnings(root, tmp_path):
  _cut(root / 'images' / 'p05.jpg', 200)
  config = _config(root)
  config.dataset.on_error = info.OnError.SKIP
  config.generator.batch_size = config.classifier.batch_size = 8
  report = _examine(config, tmp_path / 'run')
  assert report.exit_code == 1 and len(report.of(WARNING)) == 1


def test_a_run_that_cannot_be_is_explained(root, tmp_path, monkeypatch):
  config = _config(root)
  config.generator.batch_size = 22  # Of 8 devices.
  config.generator.transform.crop = 24
  monkeypatch.setattr(doctor.memory, 'device_bytes', lambda: 1 << 20)
  monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=1 << 18))
  report = _examine(config, tmp_path / 'run')
  told = {x.about: x.what for x in report.of(FAULT)}
  assert set(told) == {'config', 'stage generator', 'disk'}
  assert 'puzzle tiles' in told['config'] and 'free are 256 KiB' in told['disk']
  assert 'which the 8 devices cannot share' in told['stage generator']
  assert {x.about for x in report.of(WARNING)} == {'memory of generator'}
  config.classifier.init = str(tmp_path / 'none.safetensors')
  assert 'none.safetensors' in _examine(config, tmp_path / 'run').text()


@pytest.mark.parametrize('scales', [(1e9,), (float('nan'),), ('a',)])
def test_scales_that_cannot_be_are_a_fault(root, tmp_path, scales):
  config = _config(root)
  config.priors.scales = scales
  told = {x.about: x.what for x in _examine(config, tmp_path / 'run').of(FAULT)}
  assert 'priors.scales' in told['config']


def test_a_network_that_cannot_be_built_is_a_fault_among_others(root, tmp_path):
  config = _config(root)
  config.generator.model.backbone = 'vit_tiny_patch16_224'  # At the output stride 8.
  _cut(root / 'images' / 'p05.jpg', 200)
  report = _examine(config, tmp_path / 'run')
  told = {x.about: x.what for x in report.of(FAULT)}
  assert {'split train', 'stage generator'} <= set(told), report.text()
  assert 'it must be 16 (--config.STAGE.model.output_stride)' in told['stage generator']


def test_a_network_that_starts_from_another_one_s_weights_is_a_fault_before_these_are_made(
  root, tmp_path
):
  config = _config(root)
  config.generator.model.backbone = 'vit_tiny_patch16_224'
  config.generator.model.output_stride, config.generator.method = 16, 'vanilla'
  # Networks that are no part of the run start from nothing.
  assert not _examine(config, tmp_path / 'run').of(FAULT)
  config.evaluation.of = config_lib.SCORED
  told = {x.about: x.what for x in _examine(config, tmp_path / 'run').of(FAULT)}
  assert (
    'affinity.start is "generator", but affinity.model is resnest_tiny to layer1 and'
    in (told['stage affinity'])
  )
  assert '--config.c2am.model.backbone=vit_tiny_patch16_224' in told['stage c2am']
  # The classifier has the network of what starts from it.
  assert not set(told) & {'stage segmentation', 'stage saliency'}
  # More of a backbone than there will be.
  config = _config(root)
  config.evaluation.of = config_lib.SCORED
  config.segmentation.model.last_stage = 'layer2'
  told = {x.about: x.what for x in _examine(config, tmp_path / 'run').of(FAULT)}
  assert 'segmentation.model is resnest_tiny to layer2' in told['stage segmentation']


def test_what_a_run_would_write_is_not_told_where_it_is_not_planned(root, tmp_path):
  (root / 'splits' / 'train.txt').unlink()
  report = _examine(_config(root), tmp_path / 'run')
  assert report.of(FAULT) and 'disk' not in {x.about for x in report.findings}


def test_splits_that_the_run_does_not_open_are_not_looked_at(root, tmp_path):
  config = _config(root)
  config.priors.splits, config.predictions.splits = ('train',), ('nowhere',)
  report = _examine(config, tmp_path / 'run')
  assert report.exit_code == 0, report.text()
  assert not [x for x in report.findings if x.about in ('split val', 'split nowhere')]


def test_a_directory_of_another_run_is_named(root, tmp_path):
  workdir = tmp_path / 'old'
  (workdir / 'classifier').mkdir(parents=True)
  records.write_done(workdir / 'classifier', {'seed': 7}, {}, {})
  config = _config(root)
  report = _examine(config, workdir)
  assert 'classifier: seed is 7 there and 0 here' in [x.what for x in report.of(FAULT)]
  before = sorted(workdir.rglob('*'))
  with open(workdir / '.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    report = _examine(config, workdir)
  assert any('another run is at work' in x.what for x in report.of(WARNING))
  assert sorted(set(workdir.rglob('*')) - {workdir / '.lock'}) == before


def test_scored_priors_stand_beside_the_statistics(root, tmp_path):
  iou = {'background': 80.0, 'cat': 50.0, 'dog': 60.0, 'horse': None}
  records.write_json(tmp_path / 'run' / 'evaluation' / 'priors_train.json', {'iou': iou})
  table = next(
    x.what
    for x in _examine(_config(root), tmp_path / 'run').findings
    if x.about == 'classes of train'
  )
  rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[2:]}
  assert rows['dog'][-1] == '60.0' and rows['horse'][-1] == '-' and rows['100'][0] == 'r'


def test_room_on_the_disk_counts_maps_of_the_splits_that_have_them(tmp_path):
  stages = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}
  labels, sizes = np.array([[1, 1, 0], [0, 0, 1]]), np.array([[10, 20], [30, 10]])
  maps = 2 * 200 + 300
  expected = {
    'priors': int(maps * (2 * 0.25 + 0.25 * 0.6)),
    'saliency_priors': int(500 * 0.28),
    'affinity_labels': int(500 * 0.03),
    'random_walk': int(maps * (0.25 * 0.75 + 0.01) + 500 * 0.05),
    'pseudo_masks': int(500 * 0.03),
    'predictions': int(500 * 0.03),
    'classifier': 0,
  }
  images = disk.Images(labels, sizes)
  found = {name: disk.product_bytes(stages[name], images) for name in expected}
  assert found == expected
  # All but two have the splits of the priors; none has a third one that was looked at.
  split = types.SimpleNamespace(labels=labels), types.SimpleNamespace(sizes=sizes)
  looked = dict.fromkeys(('train', 'val', 'test'), split)
  plan = [
    graph.Planned(stages[name], tmp_path / name, graph.Status.RUN, {}, {}) for name in expected
  ]
  report = findings.Report()
  doctor._disk(tiny.get_config(), tmp_path, plan, looked, {}, report)
  (finding,) = report.findings
  once = ('affinity_labels', 'predictions')
  rooms = {name: size * (1 if name in once else 2) for name, size in expected.items() if size}
  parts = ', '.join(f'{name} {estimates.readable(size)}' for name, size in rooms.items())
  assert f'about {estimates.readable(sum(rooms.values()))} for products' in finding.what
  assert f'({parts})' in finding.what


def test_bytes_are_written_for_people():
  assert [estimates.readable(x) for x in (900, 1536, 5 << 30, 3e12)] == [
    '900 bytes', '1.5 KiB', '5 GiB', '2.73 TiB'
  ]  # fmt: skip


def test_the_launcher_tells_and_exits_by_what_it_found(root, tmp_path):
  (root / 'images' / 'p03.jpg').unlink()
  result = subprocess.run(
    [sys.executable, str(ROOT / 'launch/doctor.py'),
     f'--config={ROOT / "tests/configs/tiny.py"}', '--config.dataset.name=folder',
     f'--config.dataset.root={root}', '--workdir=run'],
    cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=240, check=False,
  )  # fmt: skip
  assert result.returncode == 2, result.stderr[-3000:]
  assert result.stdout.startswith('faults (1)\n  split train: images/: no image for the id')
  assert result.stdout.splitlines()[-1] == '1 fault, 0 warnings: a run would not work'
  assert not (tmp_path / 'run').exists()


def test_shared_memory_that_is_too_small_is_named(root, tmp_path, monkeypatch):
  config = _config(root)
  config.runtime.workers = 2
  usage = types.SimpleNamespace(free=1 << 40, total=1 << 40)
  small = types.SimpleNamespace(free=1 << 12, total=1 << 12)
  monkeypatch.setattr(
    doctor.shutil, 'disk_usage', lambda path: small if path == disk.SHARED else usage
  )
  (told,) = [x for x in _examine(config, tmp_path / 'run').of(WARNING) if x.about == 'memory']
  assert '/dev/shm, which has 4 KiB' in told.what and 'config.runtime.workers' in told.what
  config.runtime.workers = 0
  assert not [x for x in _examine(config, tmp_path / 'run').of(WARNING) if x.about == 'memory']


def test_other_devices_are_asked_about(root, tmp_path):
  """The memory and the least time of each stage there, from the data sheet."""
  config, target = _config(root), targets.parse('h100:8')
  config.only, config.classifier.transform.crop = 'classifier', 2**14
  report = doctor.examine(config, tmp_path / 'runs' / 'a', target=target)
  text = report.text()
  assert re.search(r'time of classifier: .* on h100:8 at best, estimated from shapes', text)
  assert 'benchmarks/aot.py --target=h100:8 compiles what is estimated' in text
  assert 'memory of classifier: about' in text and 'no GPU' not in text
  assert 'there are 74.5 GiB. Lower classifier.batch_size' in text
