"""A work directory that somebody else made: links are not followed, wrong records are told."""

import contextlib
import json
import os
import pathlib
import re
import socket
import types

import numpy as np
import pytest
from report import toy_run

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine import health, log
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, checkpoints, records, weights
from pnoc_jax.report import build, files
from pnoc_jax.runs import changes, graph, lock, trained, written
from pnoc_jax.stages.common import lpcam, stage


@pytest.fixture
def mine(tmp_path):
  """A file of the reader's own, which must stay what it is."""
  path = tmp_path / 'mine'
  path.write_text('mine')
  yield path
  assert path.read_text() == 'mine'


def test_a_lock_that_is_a_link_is_not_followed(tmp_path, mine):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  for target in (mine, tmp_path / 'absent'):
    (workdir / '.lock').symlink_to(target)
    with pytest.raises(UserError, match=r'run/\.lock is a link'), lock.hold(workdir):
      pass
    assert 'is a link' in lock.trouble(workdir)
    (workdir / '.lock').unlink()
  assert not (tmp_path / 'absent').exists()
  os.link(mine, workdir / '.lock')
  with pytest.raises(UserError, match='has another name'), lock.hold(workdir):
    pass
  (workdir / '.lock').unlink()
  (workdir / '.lock.held').symlink_to('/dev/zero')
  assert lock.mark(workdir) == ''
  os.mkfifo(workdir / '.lock')  # Opening it would wait for ever.
  with pytest.raises((UserError, OSError)), lock.hold(workdir):
    pass


@pytest.mark.parametrize('pid', ['0', '1e999', '9' * 40, '-1', '"x"', '[' * 4000])
def test_a_mark_of_another_form_has_no_holder(tmp_path, pid):
  (tmp_path / 'mark').write_text(f'{{"host": "{socket.gethostname()}", "since": "", "pid": {pid}}}')
  assert lock._holder(tmp_path / 'mark') is None
  assert not lock._is_stale(tmp_path / 'mark')


def test_a_log_that_is_a_link_is_not_followed(tmp_path, mine):
  path = tmp_path / 'metrics.jsonl'
  path.symlink_to(mine)
  mine.write_text('{"step": 1}\n')
  with pytest.raises(UserError, match='is a link'):
    records.JsonLines(path)
  assert mine.read_text() == '{"step": 1}\n'
  mine.write_text('mine')


def test_a_product_replaces_a_link_and_not_what_it_leads_to(tmp_path, mine):
  path = tmp_path / 'a.png'
  path.symlink_to(mine)
  atomic.write(path, lambda file: file.write(b'new'))
  assert path.read_bytes() == b'new' and not path.is_symlink()


def test_temporary_files_are_new_and_have_names_that_nobody_knows_before(tmp_path, mine):
  seen = []

  def fill(file):
    seen.extend(x.name for x in tmp_path.iterdir() if x.name.startswith('.a.png'))
    file.write(b'x')

  # The names that were fixed before.
  (tmp_path / '.a.png.tmp').symlink_to(mine)
  for _ in range(2):
    atomic.write(tmp_path / 'a.png', fill)
  first, second = (x for x in seen if x != '.a.png.tmp')
  assert first != second
  with pytest.raises(FileExistsError):
    atomic.open_own(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path):
  kept = [tmp_path / x for x in ('.hidden.tmp', 'a.0123456789abcdef.tmp', '.0123456789abcdef')]
  left = [tmp_path / '.a.png.0123456789abcdef.tmp', tmp_path / 'b' / '.x.fedcba9876543210.tmp']
  (tmp_path / 'b').mkdir()
  for path in (*kept, *left):
    path.touch()
  atomic.sweep(tmp_path)
  assert all(x.exists() for x in kept) and not any(x.exists() for x in left)


WRONG = ['[]', '7', '"x"', 'null', '{}', '{"config": 1}', '[' * 100_000, '{"a":' * 900, '\xff']


@pytest.mark.parametrize('content', WRONG)
def test_records_of_another_form_are_told_with_their_name(tmp_path, content):
  for name, read in (
    (records.DONE, records.read_done),
    ('written.jsonl', written.Written),
    ('config.json', lambda x: records.read_object(x / 'config.json', {'settings': dict})),
    ('metrics.jsonl', lambda x: log.MetricWriter(x, total_steps=1, tensorboard=False)),
  ):
    (tmp_path / name).write_text(content + '\n', encoding='latin-1')
    with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
      read(tmp_path)


@pytest.mark.parametrize('content', [*WRONG, '{"of": [], "begun": 7}', '{"train": 7, "a": [1]}'])
def test_notes_of_another_form_end_no_run_with_a_traceback(tmp_path, content):
  entry = next(x for x in stage.stages(config_lib.PipelineConfig) if x.name == 'priors')
  item = graph.Planned(entry, tmp_path / 'priors', graph.Status.DONE, {}, {})
  item.directory.mkdir()
  changed = types.SimpleNamespace(images_then=lambda: {'train': 'old'}, stage=entry)
  for name, read in (
    ('rerun.json', lambda: graph._begun(config_lib.PipelineConfig(), tmp_path)),
    ('priors/config.json', item.images_then),
    ('images.json', lambda: changes.find(tmp_path, [changed], {'train': {'a.jpg': [1, 2]}})),
    ('files.json', lambda: checkpoints._damage(tmp_path)),
    ('health.json', lambda: health.keep(tmp_path, ['said'])),
  ):
    (tmp_path / name).write_text(content, encoding='latin-1')
    with contextlib.suppress(UserError):
      read()
    (tmp_path / name).unlink()


def test_a_report_is_made_whatever_the_records_hold(tmp_path):
  toy_run.write_run(tmp_path)
  records.write_json(tmp_path / files.REMARKS, {'train': ['said']})
  records.write_json(tmp_path / files.MADE, {'command': 'python run.py'})
  records.write_json(tmp_path / 'evaluation' / 'priors_proxy_test.json', toy_run.PROXY)
  records.write_done(tmp_path / 'priors', {}, {}, {'seconds': 'long', 'images_per_second': [1]})
  found = [x for x in sorted(tmp_path.rglob('*')) if x.suffix in ('.json', '.jsonl', '')]
  whole = {x: x.read_text() for x in found if x.is_file()}
  # Tables alone are quick to make: each field of each file is something else in turn.
  tried = 0
  for path, text in whole.items():
    for content in (*WRONG, *_mutants(text)):
      path.write_text(content)
      build.terminal_tables(tmp_path, toy_run.STAGES)
      tried += 1
    path.write_text(text)
  assert tried > 200
  for value in ([], 'x', 10**400):  # All at once, and with the charts.
    for path, text in whole.items():
      first = text.splitlines()[0] if path.suffix == '.jsonl' else text
      content = {k: x if k in ('miou', 'iou') else value for k, x in json.loads(first).items()}
      path.write_text(json.dumps(content | {'step': 1}) + '\n')
    page = build.build(tmp_path, toy_run.STAGES, open_source=toy_run.open_source, images=1)
    assert 'class="note"' in page.read_text()


def _mutants(text):
  """The JSON object of a file with each of its fields as something else."""
  try:
    content = json.loads(text)
  except ValueError:
    content = json.loads(text.splitlines()[0])
  for key in content:
    for value in ('x', [], {}, None, [[1]], 10**400):
      yield json.dumps({**content, key: value})


def test_another_run_s_config_is_read_with_care(tmp_path):
  (tmp_path / 'config.json').write_text('[]')
  with pytest.raises(UserError, match=r'config\.json does not hold a JSON object'):
    trained.load(tmp_path)
  for wrong in ([], {'name': 7}, {'shapes': 3}, {'source': 'x'}, {'lists': None}):
    with pytest.raises(UserError, match='does not describe a data set'):
      files.open_source({'dataset': wrong}, 'train')
  assert files.lookup({'a': {'b': 1}}, 'a.b', 'text') == 'text'
  assert pathlib.Path(tmp_path, 'config.json').exists()


@pytest.mark.parametrize(
  'change',
  [
    {'classes': ('a', '\x1b[2J')},
    {'palette': ((0, 0, 0),)},
    {'palette': ((0, 0, 0), (0, 0, 999), (0, 0, 0))},
    {'std': (0.0, 0.0, 0.0)},
    {'mean': ()},
    {'mean': (float('nan'),) * 3},
    {'std': (float('inf'),) * 3},
    {'classes': ('a', 'a')},
    {'name': 'x\n# y'},
  ],
)
def test_a_network_s_classes_are_looked_at(change):
  known = {
    'name': 'x',
    'classes': ('a', 'b'),
    'background': 'background',
    'palette': ((0, 0, 0), (1, 1, 1), (2, 2, 2)),
  }
  trained._check_dataset(info.DatasetInfo(**known))
  with pytest.raises(ValueError):
    trained._check_dataset(info.DatasetInfo(**known | change))


def test_prototypes_of_something_else_are_told(tmp_path):
  for tree in (
    {'0': {'x': {'chances': np.zeros(3)}}},
    {'a': np.zeros(3)},
    {'7': {'foreground': {'points': np.zeros(3)}}},
  ):
    file = weights.save(lpcam._share(tmp_path, 0), tree)
    with pytest.raises(UserError, match=re.escape(f'{file} holds no prototypes')):
      lpcam._join(tmp_path, 4, 2)


def test_a_log_that_is_a_pipe_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'metrics.jsonl')
  with pytest.raises(UserError, match='no file that a run can write to'):
    records.JsonLines(tmp_path / 'metrics.jsonl')
