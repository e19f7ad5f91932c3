"""Broken files are found before work starts, by name."""

import json
import os

import numpy as np
import pytest
from data import folders

from pnoc_jax import errors
from pnoc_jax.data import cache, info
from pnoc_jax.data.inspect import checks, findings, survey
from pnoc_jax.data.readers import folder, shapes
from pnoc_jax.io import images


@pytest.fixture
def broken(tmp_path):
  root = folders.write(tmp_path / 'animals', 5)
  path = root / 'images' / 'b.png'
  path.write_bytes(path.read_bytes()[:-400])
  images.write_png(root / 'masks' / 'c.png', np.zeros((7, 9), np.uint8))
  images.write_png(root / 'masks' / 'd.png', np.full((32, 30), 77, np.uint8))
  return root


def test_every_kind_of_problem_is_found(broken):
  source, seen = folder.FolderSource(str(broken), 'train'), []
  problems = checks.check_source(source, on_progress=lambda *x: seen.append(x), threads=2)
  assert [x.id for x in problems] == ['b', 'c', 'd']
  assert 'b.png' in problems[0].what and 'cannot be read' in problems[0].what
  assert 'the mask is 9x7 px, its image 30x28' in problems[1].what
  assert '[77], expected 0 to 3 and 255' in problems[2].what
  assert seen[-1] == (5, 5)


def test_strict_stops_and_skip_quarantines(broken, tmp_path):
  source = folder.FolderSource(str(broken), 'train')
  path = tmp_path / 'run' / 'quarantine.csv'
  with pytest.raises(errors.UserError, match=r'(?s)3 problems.*b\.png.*on_error=skip'):
    checks.screen(source, on_error=info.OnError.STRICT, quarantine_path=path)
  assert not path.exists()
  exclude = checks.screen(source, on_error=info.OnError.SKIP, quarantine_path=path)
  assert exclude == {'b', 'c', 'd'}
  assert path.read_text().splitlines()[0] == 'id,problem'
  assert [x.split(',')[0] for x in path.read_text().splitlines()[1:]] == ['b', 'c', 'd']
  rest = folder.FolderSource(str(broken), 'train', exclude=exclude)
  assert rest.ids == ('a', 'e') and checks.check_source(rest) == []


def test_ids_that_were_left_out_are_read_as_they_are(tmp_path):
  path, ids = tmp_path / 'quarantine_train.csv', ('-x=y', "'tis", 'a,b', '=1')
  checks.quarantine([checks.Problem(x, 'broken') for x in ids], path)
  assert checks.quarantined(path) == set(ids)
  for content in (b'', b'id\na\n', b'\xff', b'id,problem\n"a', b'x' * 300_000):
    path.write_bytes(content)
    try:
      assert checks.quarantined(path) <= {'a'}
    except errors.UserError as error:
      assert str(path) in str(error)
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(errors.UserError, match='it is no file'):
    checks.quarantined(path)


def test_a_list_that_is_a_pipe_ends_no_look_at_the_data(tmp_path):
  root = folders.write(tmp_path / 'animals')
  (root / 'classes.txt').unlink()
  os.mkfifo(root / 'classes.txt')
  config = info.DatasetConfig(name='folder', root=str(root))
  assert survey.line_ends(config, ('train',)) == []


def test_a_good_check_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
  root = folders.write(tmp_path / 'animals')
  source, stamp = folder.FolderSource(str(root), 'train'), tmp_path / 'stamp.json'
  reads = []
  read = source.example
  monkeypatch.setattr(source, 'example', lambda i: reads.append(i) or read(i))
  for expected in (4, 4):  # The second check reads nothing.
    assert checks.check_source(source, stamp=stamp) == []
    assert len(reads) == expected
  (root / 'images' / 'a.png').write_bytes(b'broken')
  assert [x.id for x in checks.check_source(source, stamp=stamp)] == ['a']
  assert [x.id for x in checks.check_source(source, stamp=stamp)] == ['a']


@pytest.mark.parametrize('process', [0, 1])
def test_processes_share_the_check_and_each_file_is_asked_for_once(
  broken, tmp_path, monkeypatch, process
):
  source, stamp = folder.FolderSource(str(broken), 'train'), tmp_path / 'stamp.json'
  alone, told, reads, stats, seen = checks.check_source(source), [], [], [], {}
  others = [[], [[x, 'theirs'] for x in (0, 2)]][process]  # Of process 1, or of process 0.

  def exchange(text):
    told.append(json.loads(text))
    theirs = json.dumps(False if len(told) == 1 else others)
    return [text, theirs] if process == 0 else [theirs, text]

  read, size_and_time = source.example, cache.size_and_time
  monkeypatch.setattr(source, 'example', lambda i: reads.append(i) or read(i))
  spy = lambda path, known: stats.append(path) or size_and_time(path, known)  # noqa: E731
  monkeypatch.setattr(cache, 'size_and_time', spy)
  crew = checks.Crew(process, 2, exchange)
  problems = checks.check_source(source, stamp=stamp, seen=seen, crew=crew)
  mine = [0, 2, 4] if process == 0 else [1, 3]
  assert sorted(reads) == mine and not stamp.exists()
  own = [x for x in alone if source.ids.index(x.id) in mine]
  assert problems == sorted([*own, *(checks.Problem(source.ids[i], x) for i, x in others)],
                            key=lambda x: x.id)  # fmt: skip
  # Only the process that keeps the stamp looks at all files.
  assert len(stats) == len(seen) == (10 if process == 0 else 0)


def test_what_the_first_process_remembers_holds_for_all(tmp_path, monkeypatch):
  source = folder.FolderSource(str(folders.write(tmp_path / 'animals')), 'train')
  monkeypatch.setattr(source, 'example', lambda i: pytest.fail('it is read'))
  crew = checks.Crew(1, 2, lambda text: ['true', text])
  assert checks.check_source(source, stamp=tmp_path / 'none.json', crew=crew) == []


def test_a_size_that_is_not_the_images_is_a_problem(tmp_path, monkeypatch):
  source = folder.FolderSource(str(folders.write(tmp_path / 'animals')), 'train')
  monkeypatch.setattr(source, 'size', lambda i: (9, 8) if i == 1 else (28, 30))
  sizes = {source.example(i)['image'].shape[:2] for i in range(len(source))}
  problems = checks.check_source(source)
  assert any(x.id == 'b' and 'and said to be 8x9' in x.what for x in problems), (problems, sizes)


def test_a_link_to_nowhere_is_a_problem_and_no_crash(tmp_path):
  root = folders.write(tmp_path / 'animals')
  path = root / 'images' / 'b.png'
  path.unlink()
  path.symlink_to(tmp_path / 'gone.png')
  source, stamp = folder.FolderSource(str(root), 'train'), tmp_path / 'stamp.json'
  problems = checks.check_source(source, stamp=stamp)
  assert [x.id for x in problems] == ['b'] and 'b.png: no such image' in problems[0].what
  assert not stamp.exists()


def test_synthetic_data_needs_no_check():
  assert checks.check_source(shapes.ShapesSource(info.ShapesConfig(train=3), 'train')) == []


@pytest.mark.parametrize(('last', 'told'), [('horse dog', True), ('horse', False), ('', False)])
def test_a_class_that_every_image_shows_is_told(tmp_path, last, told):
  root = folders.write(tmp_path / 'animals', masks=False)
  table = ('id,labels', 'a,cat dog', 'b,dog', 'c,dog horse', f'd,{last}')
  (root / 'image_labels.csv').write_text('\n'.join(table))
  source = folder.FolderSource(str(root), 'train')
  said = [x for x in survey.judge(source, survey.look(source), trains=True) if 'every' in x.what]
  assert [x.level for x in said] == [findings.Severity.WARNING] * told
  assert not told or 'every image has the class dog' in said[0].what
