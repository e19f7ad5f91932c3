"""Each layout, as its tool writes it, becomes a folder that a run can read."""

import json
import zlib

import numpy as np
import pytest
from PIL import Image

from launch import new_dataset
from pnoc_jax.data.layouts import found, rows, sheet, splits, writer
from pnoc_jax.data.readers import folder
from pnoc_jax.errors import UserError
from pnoc_jax.io import images
from tests.data import miniatures


def draw(root, *names):
  """Writes a different picture under each name."""
  for name in names:
    miniatures.picture(root / name, (12, 16), seed=zlib.crc32(name.encode()))


def read(layout, path, **options):
  return rows.TABLE[layout].read(found.Request(path, **options))


def labels(layout):
  return {x.file.name: set(x.labels) for x in layout.examples}


def refused(match, layout, path, **options):
  with pytest.raises(UserError, match=match):
    read(layout, path, **options)


def test_directories_to_a_run_of_words(tmp_path, capsys):
  """Classes of several words, an image in two directories, images of no class."""
  root, output = tmp_path / 'photos', tmp_path / 'set'
  draw(root, *(f'golden retriever/{i}.jpg' for i in range(5)), *(f'cat/c{i}.png' for i in range(4)))
  draw(root, 'none/1.jpg', 'none/2.webp')
  (root / 'cat' / 'both.jpg').write_bytes((root / 'golden retriever' / '0.jpg').read_bytes())
  before = {x: x.read_bytes() for x in root.rglob('*.*')}
  arguments = ['--from=directories', f'--input={root}', f'--output={output}', '--negative=none']
  assert new_dataset.main(arguments) == 0
  printed = capsys.readouterr().out
  assert f'launch/run.py --config=configs/pnoc_folder.py --config.dataset.root={output}' in printed
  assert '1 file joined' in printed
  train, val = (folder.FolderSource(str(output), x) for x in ('train', 'val'))
  assert train.info.classes == ('cat', 'golden retriever')
  assert len(train) + len(val) == 11 and not set(train.ids) & set(val.ids)
  both = np.concatenate([train.labels, val.labels])
  np.testing.assert_array_equal(both.sum(axis=0), [5, 5])
  assert sorted(both.sum(axis=1)) == [0, 0, *[1] * 8, 2]
  assert train.labels.any(axis=0).all() and val.labels.any(axis=0).all()
  # Two images are called 1: each has its directory's name before its own.
  assert {'golden retriever_1', 'none_1', '2' if '2' in train.ids else 'none_2'} <= {
    *train.ids,
    *val.ids,
  }
  assert {x: x.read_bytes() for x in root.rglob('*.*')} == before
  assert (output / 'contact_sheet.png').stat().st_size > 5000
  assert new_dataset.main(arguments) == 2
  assert 'is there already' in capsys.readouterr().err


def test_directories_within_splits_keep_them(tmp_path):
  root = tmp_path / 'in'
  draw(root, 'train/cat/1.jpg', 'train/dog/2.jpg', 'valid/cat/3.jpg', 'test/dog/4.jpg')
  layout = read('directories', root)
  assert {x.file.name: x.split for x in layout.examples} == {
    '1.jpg': 'train',
    '2.jpg': 'train',
    '3.jpg': 'val',
    '4.jpg': 'test',
  }
  written = writer.write(layout, tmp_path / 'out', writer.Options(copy=True))
  assert written.totals == {'train': 2, 'val': 1, 'test': 1}
  assert any('dog' in x for x in written.remarks)
  assert not (tmp_path / 'out' / 'images' / '1.jpg').is_symlink()
  draw(root, 'train/loose.jpg')
  refused('no directory of a class', 'directories', root)


@pytest.mark.parametrize(
  ('text', 'options', 'expected'),
  [
    ('name;tags;who\na.jpg;cat|big dog;me\nb;;you\n', {}, ({'cat', 'big dog'}, set())),
    ('file,cat,big dog\na.jpg,1,1\nb.png,0,0\n', {}, ({'cat', 'big dog'}, set())),
    ('image,label\na.jpg,cat\na.jpg,dog\nb.png,dog\n', {}, ({'cat', 'dog'}, {'dog'})),
    ('f,x,y\na,cat,1\nb,dog,2\n', {'label_columns': ('x',)}, ({'cat'}, {'dog'})),
    ('i,label\na,cat dog\nb,cat\n', {'separator': ' '}, ({'cat', 'dog'}, {'cat'})),
    ('i,label\na,big dog\nb,cat\n', {}, ({'big dog'}, {'cat'})),
  ],
)
def test_tables(tmp_path, text, options, expected):
  draw(tmp_path, 'a.jpg', 'b.png')
  (tmp_path / 'labels.csv').write_text(text)
  layout = read('table', tmp_path / 'labels.csv', **options)
  assert labels(layout) == dict(zip(('a.jpg', 'b.png'), expected))


@pytest.mark.parametrize(
  ('text', 'match'),
  [
    ('f,x,y\na,cat,1\nb,dog,2\n', 'label_columns=x,y'),
    ('f,label\na,cat dog\nb,cat\nb,dog\n', "'cat dog' in the column label may be one class or 2"),
    ('f,label\na,cat\nc.jpg,dog\n', "line 3: there is no image 'c.jpg'"),
    ('f,g,label\na,a,cat\nb,b,dog\n', 'columns f, g name images; choose with --file_column'),
    ('f,label\nx,cat\n', 'no column names images'),
    ('f,label\na,cat,dog\n', 'line 2: 3 cells, but the header has 2'),
  ],
)
def test_ambiguous_tables_are_refused(tmp_path, text, match):
  draw(tmp_path, 'a.jpg', 'b.png')
  (tmp_path / 'labels.csv').write_text(text)
  refused(match, 'table', tmp_path / 'labels.csv')


def test_coco_of_own_categories_with_masks_of_a_turned_photograph(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  noise = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
  (tmp_path / 'images').mkdir()
  Image.fromarray(noise).save(tmp_path / 'images' / 'a.png', exif=exif)
  draw(tmp_path, 'images/b.jpg')
  outline = [0, 0, 4, 0, 4, 3, 0, 3]  # x, y
  content = {
    'categories': [{'id': 7, 'name': 'red kite'}, {'id': 3, 'name': 'owl'}],
    'images': [
      {'id': 1, 'file_name': 'a.png', 'height': 10, 'width': 20},
      {'id': 2, 'file_name': 'images/b.jpg', 'height': 12, 'width': 16},
    ],
    'annotations': [{'id': 1, 'image_id': 1, 'category_id': 7, 'segmentation': [outline]}],
  }
  (tmp_path / 'instances.json').write_text(json.dumps(content))
  layout = read('coco', tmp_path / 'instances.json', masks=True)
  assert layout.classes == ('owl', 'red kite')
  writer.write(layout, tmp_path / 'out', writer.Options(share=0.1))
  source = folder.FolderSource(str(tmp_path / 'out'), 'train')
  assert dict(zip(source.ids, source.labels.tolist())) == {'a': [0, 1], 'b': [0, 0]}
  place = source.ids.index('a')
  mask = source.mask(place)
  assert source.size(place) == mask.shape == (20, 10)
  # The outline's corner at the top left of the stored pixels is at the top right when turned.
  assert np.unique(mask[:4, -3:]) == [2] and mask.sum() == 2 * 12


@pytest.mark.parametrize('orientation', range(1, 9))
def test_masks_turn_as_images_do(tmp_path, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
  Image.fromarray(np.stack([mask] * 3, -1)).save(tmp_path / 'a.png', exif=exif)
  shown = images.read_image(tmp_path / 'a.png')[..., 0]
  np.testing.assert_array_equal(images.turn(mask, tmp_path / 'a.png'), shown)


def test_voc(tmp_path):
  home = miniatures.write_voc(tmp_path / 'data') / 'VOCdevkit' / 'VOC2012'
  layout = read('voc', home)
  assert labels(layout)['2008_000003.jpg'] == {'dog', 'tvmonitor'}
  (home / 'Annotations' / 'lost.xml').write_text('<annotation></annotation>')
  refused(r'lost\.xml has no image', 'voc', home)


def test_yolo(tmp_path):
  draw(tmp_path, 'images/train/a.jpg', 'images/train/b.jpg', 'images/val/c.jpg')
  for name, text in (('train/a', '0 .5 .5 .1 .1\n1 0 0 1 1\n'), ('val/c', '1 .5 .5 .2 .2\n')):
    path = tmp_path / 'labels' / f'{name}.txt'
    path.parent.mkdir(parents=True)
    path.write_text(text)
  refused('no list of classes', 'yolo', tmp_path)
  (tmp_path / 'data.yaml').write_text('names: {0: cat, 1: wild boar}\n')
  layout = read('yolo', tmp_path)
  assert labels(layout) == {'a.jpg': {'cat', 'wild boar'}, 'b.jpg': set(), 'c.jpg': {'wild boar'}}
  assert [x.split for x in layout.examples] == ['train', 'train', 'val']
  (tmp_path / 'labels' / 'val' / 'c.txt').write_text('2 .5 .5 .2 .2\n')
  refused(r"c\.txt, line 1: begins with '2'", 'yolo', tmp_path)


def choices(*names, cancelled=False):
  value = {'type': 'choices', 'value': {'choices': list(names)}}
  return {'result': [value] if names else [], 'was_cancelled': cancelled}


def test_label_studio(tmp_path):
  draw(tmp_path, 'img/a b.jpg', 'img/c.jpg', 'img/d.jpg')
  tasks = [
    {'data': {'image': '/data/upload/1/0a1b2c3d-a%20b.jpg'}, 'annotations': [choices('x', 'y z')]},
    {
      'data': {'image': '/data/local-files/?d=img/c.jpg'},
      'annotations': [choices(), choices('x', cancelled=True)],
    },
    {'data': {'image': 'http://host/d.jpg'}, 'annotations': []},
  ]
  path = tmp_path / 'export.json'
  path.write_text(json.dumps(tasks))
  layout = read('label_studio', path)
  assert labels(layout) == {'a b.jpg': {'x', 'y z'}, 'c.jpg': set()}
  assert '1 task without an annotation left out' in layout.remarks
  tasks[2]['annotations'] = [choices('x'), choices('y z')]
  path.write_text(json.dumps(tasks))
  refused('task 2 was answered in different ways, x and y z', 'label_studio', path)
  path.write_text(json.dumps([{'image': 'c.jpg', 'id': 4, 'choice': {'choices': ['x', 'w']}}]))
  assert labels(read('label_studio', path)) == {'c.jpg': {'x', 'w'}}


def test_cvat(tmp_path):
  draw(tmp_path, 'images/a.jpg', 'images/b.jpg')
  (tmp_path / 'annotations.xml').write_text(
    '<annotations><meta><task><labels><label><name>owl</name></label><label><name>red kite</name>'
    '</label></labels></task></meta><image id="0" name="a.jpg"><tag label="red kite"/>'
    '<box label="owl" xtl="0"/></image><image id="1" name="b.jpg"/></annotations>'
  )
  layout = read('cvat', tmp_path)
  assert labels(layout) == {'a.jpg': {'owl', 'red kite'}, 'b.jpg': set()}
  assert layout.classes == ('owl', 'red kite')


@pytest.mark.parametrize(
  ('names', 'match'),
  [
    (('red kite', 'Red_kite'), "'Red_kite' and 'red kite' have one name"),
    (('background', 'cat'), '--negative=background'),
    (('a\x07', 'cat'), 'a character that a name cannot have'),
  ],
)
def test_names_that_cannot_be_are_refused_and_leave_nothing(tmp_path, names, match):
  draw(tmp_path, 'in/1.jpg', 'in/2.jpg')
  files = sorted((tmp_path / 'in').iterdir())
  layout = found.Found([found.Example(x, frozenset({y})) for x, y in zip(files, names)])
  with pytest.raises(UserError, match=match):
    writer.write(layout, tmp_path / 'out', writer.Options())
  assert [x.name for x in tmp_path.iterdir()] == ['in']


def test_each_class_is_in_both_parts():
  rng = np.random.default_rng(1)
  many = rng.random((300, 12)) < np.linspace(0.01, 0.4, 12)
  for seed in range(5):
    chosen = splits.draw(many, 0.2, seed)
    assert 45 <= chosen.sum() <= 75
    counts = many.sum(axis=0)
    assert not splits.only_in_one(many[:, counts > 1], chosen, ['k'] * (counts > 1).sum())
    shares = many[chosen].sum(axis=0) / counts
    assert np.abs(shares - 0.2)[counts > 20].max() < 0.12
  assert not (splits.draw(many, 0.2, 0) == splits.draw(many, 0.2, 1)).all()


def test_the_contact_sheet_shows_any_name(tmp_path):
  draw(tmp_path, 'in/$\\frac{$/1.jpg', 'in/_b/2.jpg')
  layout = read('directories', tmp_path / 'in')
  writer.write(layout, tmp_path / 'out', writer.Options())
  sheet.write(folder.FolderSource(str(tmp_path / 'out'), 'train'), tmp_path / 'sheet.png')
  assert images.read_image(tmp_path / 'sheet.png').ndim == 3


def test_a_negative_name_holds_in_every_layout_and_must_be_there(tmp_path):
  home = miniatures.write_voc(tmp_path / 'data') / 'VOCdevkit' / 'VOC2012'
  layout = found.without(read('voc', home), ['dog'])
  assert labels(layout)['2008_000003.jpg'] == {'tvmonitor'}
  with pytest.raises(UserError, match='--negative names hound, which no image is labelled with'):
    found.without(layout, ['hound'])


@pytest.mark.parametrize(
  'words',
  [['--from=voc', '--separator=,'], ['--from=yolo', '--images=x'], ['--from=voc', '--masks']],
)
def test_flags_of_other_layouts_are_refused(words, capsys):
  with pytest.raises(SystemExit) as end:
    new_dataset.main([*words, '--input=x', '--output=y'])
  assert end.value.code == 2 and 'error: --' in capsys.readouterr().err
