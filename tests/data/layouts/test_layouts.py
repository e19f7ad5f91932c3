"""Each layout, as its tool writes it, becomes a folder that a run can read."""

import json
import os
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
    # As spreadsheets write it: lines within a cell, and empty rows at the end.
    ('i,note,label\na,"two\nlines",cat\n\nb,,dog\n,,\n', {}, ({'cat'}, {'dog'})),
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
    ('f,label\n\n\na,cat\nc.jpg,dog\n', "line 5: there is no image 'c.jpg'"),
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


def test_label_studio_has_its_images_elsewhere(tmp_path):
  draw(tmp_path, 'photos/a.jpg')
  path = tmp_path / 'export' / 'project-1.json'
  path.parent.mkdir()
  task = {'data': {'image': '/data/upload/1/0a1b2c3d-a.jpg'}, 'annotations': [choices('x')]}
  path.write_text(json.dumps([task]))
  refused(
    'holds no image.*Name the directory of the images with --images=DIR', 'label_studio', path
  )
  refused('is a directory; give the JSON file of the export', 'label_studio', path.parent)
  assert labels(read('label_studio', path, images=tmp_path / 'photos')) == {'a.jpg': {'x'}}
  draw(tmp_path, 'export/other.jpg')
  refused('none of its values names an image below .*--images', 'label_studio', path)


def test_label_studio_finds_what_it_renamed_when_it_was_uploaded(tmp_path):
  draw(tmp_path, 'my cat (1).jpg', 'ünï.jpg', 'my_cat_2.jpg', 'my cat 2.jpg')
  tasks = [
    {'data': {'image': f'/data/upload/1/0a1b2c3d-{x}'}, 'annotations': [choices('x')]}
    for x in ('my_cat_1.jpg', '%C3%BCn%C3%AF.jpg', 'my_cat_2.jpg')
  ]
  path = tmp_path / 'export.json'
  path.write_text(json.dumps(tasks))
  # A name as it is goes before one that would have become it.
  assert set(labels(read('label_studio', path))) == {'my cat (1).jpg', 'ünï.jpg', 'my_cat_2.jpg'}


def test_answers_of_json_min_have_the_names_of_the_questions(tmp_path):
  draw(tmp_path, 'a.jpg', 'b.jpg')
  path = tmp_path / 'min.json'
  about = {'annotator': 1, 'created_at': '2026-01-02T03:04:05Z', 'lead_time': 2.5}
  one = [{'image': 'a.jpg', 'id': 1, 'animal': 'cat', **about}]
  path.write_text(json.dumps(one))
  assert labels(read('label_studio', path)) == {'a.jpg': {'cat'}}
  draw(tmp_path, 'cat.jpg')  # An answer is no name of an image.
  two = {'image': 'b.jpg', 'id': 2, 'animal': {'choices': ['cat', 'dog']}, 'place': 'home', **about}
  path.write_text(json.dumps([*one, two]))
  assert labels(read('label_studio', path)) == {'a.jpg': {'cat'}, 'b.jpg': {'cat', 'dog'}}
  (tmp_path / 'cat.jpg').unlink()
  path.write_text(json.dumps([{**one[0], 'place': 'home'}]))
  refused('each of the fields animal, place may be the answer', 'label_studio', path)


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
    (('a\x07', 'cat'), 'has a control character; rename it'),
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
  [
    ['--from=voc', '--separator=,'],
    ['--from=yolo', '--images=x'],
    ['--from=voc', '--masks'],
    ['--from=voc', '--seed=-1'],
    ['--from=voc', '--val=many'],
  ],
)
def test_flags_that_cannot_be_are_refused(words, capsys):
  with pytest.raises(SystemExit) as end:
    new_dataset.main([*words, '--input=x', '--output=y'])
  said = capsys.readouterr().err
  assert end.value.code == 2 and 'error: ' in said and f'{words[1].partition("=")[0]}' in said
  assert '_share' not in said


def test_an_output_among_the_photographs_is_refused(tmp_path, capsys):
  draw(tmp_path / 'in', 'cat/1.jpg', 'dog/2.jpg')
  flags = ['--from=directories', f'--input={tmp_path / "in"}']
  assert new_dataset.main([*flags, f'--output={tmp_path / "in" / "set"}']) == 2
  assert 'lies in the input' in capsys.readouterr().err
  assert not (tmp_path / 'in' / 'set').exists()


def make(tmp_path, *names, place='in'):
  """Draws images into directories of classes and makes a data set; returns the exit code."""
  draw(tmp_path / place, *names)
  return new_dataset.main(
    ['--from=directories', f'--input={tmp_path / place}', f'--output={tmp_path / "out"}']
  )


def test_accents_that_macos_writes_apart_are_one_letter(tmp_path):
  apart, together = 'cafe\u0301', 'caf\u00e9'
  assert make(tmp_path, *(f'{apart}/{i}.jpg' for i in range(3)), *(f'b/{i}.jpg' for i in '45')) == 0
  train = folder.FolderSource(str(tmp_path / 'out'), 'train')
  assert train.info.classes == ('b', together) and train.labels.any(axis=1).all()
  layout = read('directories', tmp_path / 'in')
  assert found.without(layout, [together]).examples[-1].labels == frozenset()


def test_two_names_that_lists_cannot_tell_apart_are_refused(tmp_path, capsys):
  assert make(tmp_path, 'cafe\u0301/1.jpg', 'caf\u00e9/1.jpg', 'b/2.jpg') == 2
  said = capsys.readouterr().err
  assert 'rename one of them' in said and 'Traceback' not in said
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kind', ['link', 'text', 'empty', 'pipe'])
def test_what_is_no_image_is_refused_by_its_own_name_and_leaves_nothing(tmp_path, capsys, kind):
  file = tmp_path / 'in' / 'cat' / 'wrong.jpg'
  draw(tmp_path / 'in', 'cat/1.jpg', 'dog/2.jpg')
  if kind == 'link':
    file.symlink_to(tmp_path / 'nowhere.jpg')
  elif kind == 'pipe':
    os.mkfifo(file)
  else:
    file.write_text('no image' if kind == 'text' else '')
  assert make(tmp_path) == 2
  said = capsys.readouterr().err
  assert f'{file}: ' in said and 'mend or remove' in said
  assert [x.name for x in tmp_path.iterdir()] == ['in']


def test_an_image_that_is_cut_short_is_told_and_its_place_stays_empty(tmp_path, capsys):
  draw(tmp_path / 'in', 'cat/1.jpg', 'dog/2.jpg')
  file = tmp_path / 'in' / 'cat' / '1.jpg'
  file.write_bytes(file.read_bytes()[:-120])
  assert make(tmp_path) == 0
  said = capsys.readouterr().out
  assert 'cannot be read' in said and 'the doctor decodes every image' in said
  assert str(tmp_path / 'out' / 'images') in said  # Not the name that it had while it was made.
  assert (tmp_path / 'out' / 'contact_sheet.png').is_file()


def test_photographs_of_unread_formats_are_told(tmp_path, capsys):
  draw(tmp_path / 'in', 'cat/1.jpg', 'dog/2.jpg')
  (tmp_path / 'in' / 'cat' / 'IMG_1.HEIC').write_bytes(b'x')
  assert make(tmp_path) == 0
  assert '1 file of other formats left out, the first is IMG_1.HEIC' in capsys.readouterr().out
  (tmp_path / 'none').mkdir()
  (tmp_path / 'none' / 'IMG_2.HEIC').write_bytes(b'x')
  refused('convert IMG_2.HEIC', 'directories', tmp_path / 'none')


def test_directories_that_are_no_classes_are_refused(tmp_path):
  root = tmp_path / 'in'
  draw(root, 'train/cat/1.jpg', 'val/cat/2.jpg', 'unsorted/3.jpg')
  refused('directories of splits and others beside them, unsorted', 'directories', root)
  draw(tmp_path / 'above', 'animals/cat/1.jpg', 'animals/dog/2.jpg')
  refused('holds one directory, animals', 'directories', tmp_path / 'above')
  # Kinds of one class, photographs of the class beside them.
  draw(tmp_path / 'above', 'animals/3.jpg')
  assert set().union(*labels(read('directories', tmp_path / 'above')).values()) == {'animals'}


def test_names_that_are_too_long_are_refused(tmp_path, capsys):
  long = 'x' * 160
  assert make(tmp_path, f'{"a" * 100}/{long}.jpg', f'{"b" * 100}/{long}.jpg') == 2
  assert 'rename this file' in capsys.readouterr().err
  assert make(tmp_path, f'{long}/1.jpg', 'dog/2.jpg', place='classes') == 2
  assert 'has 160 bytes, more than 150; rename it' in capsys.readouterr().err


def test_a_class_that_every_image_shows_is_told(tmp_path, capsys):
  assert make(tmp_path, 'cat/1.jpg', 'cat/2.jpg', 'cat/3.jpg') == 0
  assert 'every image to train on shows cat' in capsys.readouterr().out


def test_an_output_that_cannot_be_made_is_an_error(tmp_path, capsys):
  (tmp_path / 'out').symlink_to(tmp_path / 'nowhere')
  assert make(tmp_path, 'cat/1.jpg', 'dog/2.jpg') == 2
  assert 'is there already' in capsys.readouterr().err
  (tmp_path / 'file').write_text('')
  layout = read('directories', tmp_path / 'in')
  with pytest.raises(UserError, match='cannot be made'):
    writer.write(layout, tmp_path / 'file' / 'out', writer.Options())


def test_commands_that_come_next_are_fit_for_a_shell(tmp_path, capsys):
  draw(tmp_path / 'in', 'cat/1.jpg', 'dog/2.jpg')
  output = tmp_path / 'my; set'
  assert (
    new_dataset.main(['--from=directories', f'--input={tmp_path / "in"}', f'--output={output}'])
    == 0
  )
  assert f"--config.dataset.root='{output}'" in capsys.readouterr().out


def test_an_export_that_is_a_pipe_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'export')
  for layout in ('label_studio', 'cvat'):
    refused('it is no file', layout, tmp_path / 'export')


def test_an_export_that_is_nested_too_deeply_is_refused(tmp_path):
  draw(tmp_path, '1.jpg')
  text = '["x"]'
  for _ in range(600):
    text = f'{{"choices": {text}}}'
  (tmp_path / 'export.json').write_text(f'[{{"image": "1.jpg", "choice": {text}}}]')
  refused('too deeply', 'label_studio', tmp_path / 'export.json')


def test_names_in_yaml_are_the_texts_that_stand_there(tmp_path):
  """By YAML's usual rules `no` is false and 010 is 8: classes of other names would be learnt."""
  draw(tmp_path, 'images/1.jpg')
  names = ('no', 'on', 'null', '010', '2020-01-01', '1.50')
  (tmp_path / 'labels').mkdir()
  (tmp_path / 'labels' / '1.txt').write_text('0 .5 .5 .1 .1')
  numbered = '\n'.join(f'  {i}: {x}' for i, x in enumerate(names))
  for text in (f'names: [{", ".join(names)}]\n', f'names:\n{numbered}\n'):
    (tmp_path / 'data.yaml').write_text(text)
    assert read('yolo', tmp_path).classes == names
  (tmp_path / 'data.yaml').write_text('names: [cat, {a: b}]\n')
  refused('name 1 of the list', 'yolo', tmp_path)


def test_a_yaml_that_grows_without_end_is_refused(tmp_path):
  draw(tmp_path, 'images/1.jpg')
  lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
  lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 12)]
  (tmp_path / 'data.yaml').write_text('\n'.join([*lines, 'names: [cat, *a11]']))
  refused('name 1 of', 'yolo', tmp_path)
