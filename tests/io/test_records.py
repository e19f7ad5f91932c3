import dataclasses
import enum
import os
import pathlib

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.io import atomic, records


class Colour(enum.Enum):
  RED = 'red'


@dataclasses.dataclass(slots=True)
class Config:
  rate: float = 0.1
  colour: Colour = Colour.RED
  shape: tuple[int, ...] = (1, 2)


def test_a_torn_last_line_is_left_out_and_then_written_over(tmp_path):
  path = tmp_path / 'a' / 'metrics.jsonl'
  with records.JsonLines(path) as lines:
    lines.write({'step': 1, 'loss': np.float32(0.5)})
  with path.open('a') as file:
    file.write('{"step": 2, "lo')
  assert records.read_jsonl(path) == [{'step': 1, 'loss': 0.5}]
  with records.JsonLines(path) as lines:
    lines.write({'step': 2})
  assert [line['step'] for line in records.read_jsonl(path)] == [1, 2]


def test_a_torn_line_in_the_middle_is_left_out_with_a_warning(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1}\n{"st\n\0\0\n{"step": 3}\n')
  with pytest.warns(UserWarning, match='2 lines are no JSON and left out, the first is line 2'):
    assert records.read_jsonl(path) == [{'step': 1}, {'step': 3}]
  assert records.read_jsonl(tmp_path / 'absent') == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'config.json'
  records.write_json(path, {'a': 1})
  monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('disk')))
  with pytest.raises(OSError, match='disk'):
    records.write_json(path, {'a': 2})
  assert records.read_json(path) == {'a': 1}
  assert [p.name for p in tmp_path.iterdir()] == ['config.json']
  (tmp_path / 'other').touch()
  assert path.stat().st_mode == (tmp_path / 'other').stat().st_mode


def test_what_a_killed_write_left_behind_is_ignored_and_swept(tmp_path):
  path, left = tmp_path / 'metrics.jsonl', tmp_path / '.metrics.jsonl.0123456789abcdef.tmp'
  for write in (
    lambda: records.write_json(path, {'step': 1}),
    lambda: records.keep_lines(path, lambda _: True),
  ):
    before = records.read_jsonl(path)
    left.write_text('{"step": 7, "lo')
    assert records.read_jsonl(path) == before
    write()
    atomic.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']
    path.write_text('{"step": 1}\n')


def test_fingerprints_are_of_the_value_and_not_of_its_form():
  same = {'shape': [1, 2], 'colour': 'red', 'rate': 0.1}
  assert records.fingerprint(Config()) == records.fingerprint(same)
  assert records.fingerprint(Config(rate=0.2)) != records.fingerprint(same)
  assert len({records.fingerprint(x) for x in ('a', '\ud800', '\udcff')}) == 3
  with pytest.raises(TypeError, match='object'):
    records.fingerprint({'a': object()})


def test_done_says_from_what_a_stage_was_made(tmp_path):
  assert records.read_done(tmp_path) is None
  inputs = {'classifier': 'abc'}
  written = records.write_done(tmp_path, Config(), inputs, {'weights': pathlib.Path('weights')})
  done = records.read_done(tmp_path)
  assert done == written
  assert done.products == {'weights': 'weights'}
  assert done.fingerprint == records.stage_fingerprint(Config(), inputs)
  assert done.fingerprint != records.stage_fingerprint(Config(), {'classifier': 'abd'})


def test_an_edited_done_is_an_error(tmp_path):
  records.write_done(tmp_path, Config(), {}, {})
  path = tmp_path / records.DONE
  path.write_text(path.read_text().replace('0.1', '0.2'))
  with pytest.raises(errors.UserError, match='by hand'):
    records.read_done(tmp_path)


def test_diff_names_the_fields():
  a = {'optim': {'lr': 0.1, 'rule': 'sgd'}, 'seed': 0}
  b = {'optim': {'lr': 0.2, 'rule': 'sgd', 'clip': 1.0}, 'seed': 0}
  assert records.diff(a, b) == [('optim.lr', 0.1, 0.2), ('optim.clip', records.ABSENT, 1.0)]
  assert records.diff(Config(), dataclasses.asdict(Config())) == []
