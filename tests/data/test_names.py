"""Ids, classes and splits of every source are fit for names of files, or the source is refused."""

import dataclasses

import pytest
from data import folders

from pnoc_jax.data import info, names, sources
from pnoc_jax.errors import UserError


@pytest.mark.parametrize(
  'name, why',
  [
    ('', 'is empty'),
    (' ', 'is empty'),
    ('/etc/passwd', 'leads to another folder'),
    ('../classifier/weights', 'leads to another folder'),
    ('a/b', 'leads to another folder'),
    (r'..\a', 'leads to another folder'),
    ('..', 'means a folder'),
    ('a\nb', 'has a control character'),
    ('\x1b[2J', 'has a control character'),
    ('\x9b2J', 'has a control character'),
    ('a\u202egnp.b', 'has a control character'),
    ('\ud800', 'is no text in UTF-8'),
    ('br\udcf6ken', 'is no text in UTF-8'),
    ('x' * 252, 'has 252 bytes, more than 251'),
    (None, 'is no text'),
  ],
)
def test_an_id_that_is_no_file_name_is_refused(toy, name, why):
  row, source = toy
  source.ids = (name, 'b')
  with pytest.raises(UserError, match=why) as caught:
    sources.open_source(info.DatasetConfig(name=row), 'train')
  assert str(caught.value).isprintable() or '\n' in str(caught.value)
  assert '\x1b' not in str(caught.value)


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """The name of a row that opens a source, and that source."""
  source = sources.open_source(
    info.DatasetConfig(name='folder', root=str(folders.write(tmp_path, 2))), 'train'
  )
  monkeypatch.setitem(sources.TABLE, 'toy', sources.Row('toy', lambda *_: source))
  return 'toy', source


@pytest.mark.parametrize(
  'classes, why',
  [
    (('cat', 'x' * 151), 'has 151 bytes'),
    (('cat', '\x1b]0;x\x07'), r"the class '\\x1b\]0;x\\x07' has a control character"),
    (('cat', 'cat'), "the class 'cat' is given 2 times"),
    ((), '0 classes'),
  ],
)
def test_a_class_that_cannot_be_shown_is_refused(toy, classes, why):
  row, source = toy
  source.info = dataclasses.replace(source.info, classes=classes)
  with pytest.raises(UserError, match=why):
    sources.open_source(info.DatasetConfig(name=row), 'train')


def test_names_that_are_only_unusual_are_taken(toy):
  row, source = toy
  source.ids = ('名前 (1)', '-x=y', 'क्\u200dष')
  source.info = dataclasses.replace(source.info, classes=('TV/monitor', "d'œuvre", '<b>'))
  assert sources.open_source(info.DatasetConfig(name=row), 'train') is source


def test_two_images_of_one_id_are_refused(toy):
  row, source = toy
  source.ids = ('a', 'a')
  with pytest.raises(UserError, match="the id 'a' is given 2 times"):
    sources.open_source(info.DatasetConfig(name=row), 'train')


@pytest.mark.parametrize('split', ['../splits/train', '/train', '', 'a\tb', '..'])
@pytest.mark.parametrize('storage', info.Storage)
def test_a_split_is_looked_at_before_a_file_is_looked_for(tmp_path, split, storage):
  config = info.DatasetConfig(name='folder', root=str(tmp_path / 'none'), source=storage)
  with pytest.raises(UserError, match=r'the split .* name it otherwise'):
    sources.open_source(config, split)


def test_every_row_of_the_table_comes_through_this_door():
  for row in sources.TABLE:
    with pytest.raises(UserError, match='leads to another folder'):
      sources.open_source(info.DatasetConfig(name=row), 'a/b')
  assert names.path_fault('train_aug') == ''
