"""The command that plans and starts runs and writes tables: resumed, tried dry, refused."""

import copy
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pnoc_jax.engine import loop, settings
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, records
from pnoc_jax.paper import command, plan, rows, tables
from pnoc_jax.parallel import targets
from pnoc_jax.runs import graph, runner
from pnoc_jax.stages.common import stage
from tests.paper import recorded


def test_a_table_reads_what_another_one_has_made(tmp_path):
  (maps_run,) = recorded.planned(tmp_path, ('pnoc',))
  recorded.finish(maps_run.config, maps_run.directory)
  (walk,) = recorded.planned(tmp_path, ('pnoc_walk',), others=('poc', 'pnoc'))
  assert recorded.shared(walk) == {'generator': 'pnoc-0', 'priors': 'pnoc-0'}
  assert recorded.shared(recorded.planned(tmp_path, ('pnoc_ls_walk',), others=('pnoc',))[0]) == {
    'classifier': 'pnoc-0'
  }
  # A classifier of other settings serves nobody.
  longer = lambda words: settings.override(recorded.make(words), {'classifier.epochs': 9})  # noqa: E731
  of = {row.name: row for row in rows.ALL}
  changed = plan.runs([of['pnoc_walk']], (0,), longer, tmp_path, others=[of['pnoc']])
  assert recorded.shared(changed[0]) == {}


def test_a_target_without_a_dry_run_starts_nothing(tmp_path):
  flags = [
    '--table=1',
    f'--config={recorded.TINY}',
    f'--workdir={tmp_path / "x"}',
    '--target=h100:8',
  ]
  path = [sys.executable, str(recorded.ROOT / 'launch' / 'paper.py')]
  done = subprocess.run([*path, *flags], capture_output=True, text=True, check=False, cwd=tmp_path)
  assert done.returncode == 2 and '--target estimates times; give --dry_run' in done.stderr
  assert not (tmp_path / 'x').exists()


def test_a_table_of_what_is_there_says_how_many_runs_it_has(tmp_path):
  order = recorded.order(tmp_path, tables=('1',), rows=('poc', 'pnoc'))
  runs = command.plan_of(order, None)
  assert command.write(
    order, runs, command.Data(order.config.dataset, tmp_path)
  )  # Nothing is there yet.
  assert (tmp_path / 'table1.md').read_text().count('| - |') >= 2
  recorded.finish(runs[0].config, runs[0].directory, 40.0)
  command.write(order, runs, command.Data(order.config.dataset, tmp_path))
  text = (tmp_path / 'table1.md').read_text()
  assert '0 to 1 runs a row' in text and '| P-OC | 34.0 |' in text


def test_a_command_killed_twice_writes_the_tables_of_an_undisturbed_one(tmp_path, monkeypatch):
  """The runner is a stub that leaves records and dies where a real one may: between stages."""

  def command_line(workdir, deaths):
    order = recorded.order(workdir, tables=('1',), rows=('poc', 'pnoc'), seeds=2)
    made, left = [], list(deaths)

    def execute_all(runs, where, *, after):
      assert where == workdir
      for config, directory in runs:
        method, seed = directory.name.split('-')
        wanted = [x.name for x in stage.stages(config) if x.name in graph.needed(config)]
        for name in wanted:
          if getattr(config.inputs, name, '') or (directory / name / 'DONE').is_file():
            continue
          made.append(f'{directory.name}/{name}')
          if left and left[0] == made[-1]:
            left.pop(0)
            (directory / name).mkdir(parents=True, exist_ok=True)
            raise loop.Interrupted(1)
          shutil.rmtree(directory / name, ignore_errors=True)
          recorded.finish(config, directory, stages={name})
        recorded.finish(config, directory, recorded.IOU[method][int(seed)])
        after()

    monkeypatch.setattr(runner, 'execute_all', execute_all)
    for _ in deaths:
      with pytest.raises(loop.Interrupted):
        command.execute(order)
    command.execute(order)
    return made

  quiet = command_line(tmp_path / 'quiet', ())
  died = command_line(tmp_path / 'died', ('pnoc-0/generator', 'poc-1/priors'))
  # Nothing is made twice but the two stages that died.
  assert sorted(died) == sorted([*quiet, 'pnoc-0/generator', 'poc-1/priors'])
  assert len(set(quiet)) == len(quiet) and 'pnoc-0/classifier' not in quiet
  names = [path.name for path in sorted((tmp_path / 'quiet').glob('table*'))]
  assert len(names) == 4
  for name in names:
    assert (tmp_path / 'quiet' / name).read_bytes() == (tmp_path / 'died' / name).read_bytes()


def test_a_dry_run_tells_what_is_there_and_the_time(tmp_path):
  order = recorded.order(tmp_path, tables=('1',), rows=('poc', 'pnoc'), seeds=2)
  runs = command.plan_of(order, None)
  recorded.finish(runs[0].config, runs[0].directory)
  text = '\n'.join(command.preview(order, None))
  assert f'{tmp_path}/poc-0: P-OC, seed 0\n  classifier      done     60 s measured' in text
  assert f'classifier      shared   {tmp_path}/poc-0/classifier' in text
  assert '4 done, 10 to do, 2 shared' in text
  # The other seed takes as long; P-NOC's generator was not run yet.
  assert 'to do: 8.0 min measured\nno time is known of generator; --target=h100:8' in text
  assert sorted(path.name for path in tmp_path.iterdir()) == ['poc-0']


def test_a_dry_run_does_without_the_data_set(tmp_path):
  """What is there has the settings; of the rest, as many images are counted as were published."""

  voc = {'dataset.name': 'voc12', 'dataset.root': '', 'dataset.train_split': 'train_aug'}
  make = rows.maker(recorded.GIVEN._replace(fields=voc))
  order = command.Order(make(()), make, tmp_path, tables=('1',), rows=('vanilla',))
  (tmp_path / 'vanilla-0').mkdir()
  text = '\n'.join(command.preview(order, targets.parse('h100:8')))
  assert text.startswith('The data set is not here') and '3 to do' in text
  assert 'generator       to do' in text and 'at best on h100:8' in text
  assert 'no time is known of evaluation\n' in f'{text}\n'


def test_a_dry_run_says_that_nothing_can_be_scored_without_masks(tmp_path):
  order = recorded.order(tmp_path, tables=('1',), rows=('poc',))
  assert not any('no masks' in x for x in command.preview(order, None))
  root = tmp_path / 'own'
  for name in ('images', 'splits'):
    (root / name).mkdir(parents=True)
  (root / 'classes.txt').write_text('background\ncat\n')
  (root / 'image_labels.csv').write_text('id,labels\na,cat\nb,cat\n')
  for split, key in (('train', 'a'), ('val', 'b')):
    (root / 'splits' / f'{split}.txt').write_text(f'{key}\n')
    images.write_png(root / 'images' / f'{key}.png', np.zeros((8, 8, 3), np.uint8))
  folder = {'dataset.name': 'folder', 'dataset.root': str(root)}
  make = rows.maker(recorded.GIVEN._replace(fields=folder))
  order = command.Order(make(()), make, tmp_path, tables=('1',), rows=('poc',))
  assert next(iter(command.preview(order, None))).startswith('There are no masks of')


def test_a_dry_run_says_that_a_named_root_is_not_here(tmp_path):
  voc = {'dataset.name': 'voc12', 'dataset.root': '/not/here', 'dataset.train_split': 'train_aug'}
  make = rows.maker(recorded.GIVEN._replace(fields=voc))
  order = command.Order(make(()), make, tmp_path, tables=('1',), rows=('vanilla',))
  text = '\n'.join(command.preview(order, targets.parse('h100:8')))
  assert text.startswith('dataset.root is /not/here, which is not here: without this flag')
  assert 'no time is known of evaluation, generator, priors' in text
  assert 'is not here' not in '\n'.join(command.preview(order, None))


@pytest.mark.parametrize(
  ('what', 'message'),
  [
    ({}, 'say what is wanted'),
    ({'tables': ('9',)}, 'there is no table9; there are table1'),
    ({'figures': ('3',)}, 'there is no figure3.* figure2'),
    ({'tables': ('1',), 'rows': ('pnok',)}, 'no row pnok here.* did you mean pnoc'),
    ({'tables': ('1',), 'rows': ('pnoc_walk',)}, 'no row pnoc_walk'),
    ({'tables': ('1',), 'rows': ('vanilla_rs101',)}, 'no row vanilla_rs101'),
    ({'tables': ('1', '2'), 'rows': ('pnoc',)}, 'table2 has none of the rows pnoc; it has puzzle'),
  ],
)
def test_what_there_is_not_is_named(tmp_path, what, message):
  with pytest.raises(UserError, match=message):
    list(command.preview(recorded.order(tmp_path, **what), None))


def test_runs_of_other_settings_are_in_no_table_and_refused_before_work(tmp_path, monkeypatch):
  order = recorded.order(tmp_path, tables=('1',), rows=('poc', 'pnoc'), seeds=1)
  first, second = command.plan_of(order, None)
  longer = settings.override(copy.deepcopy(second.config), {'generator.epochs': 9})
  longer.inputs.classifier = ''
  recorded.finish(first.config, first.directory, 40.0)
  recorded.finish(longer, second.directory, 90.0)
  # As is a run that is not done, whatever it has scored.
  command.write(order, [first, second], command.Data(order.config.dataset, tmp_path))
  text = (tmp_path / 'table1.md').read_text()
  assert '| P-OC | 34.0 |' in text and '| P-NOC | - |' in text and '90.0' not in text
  monkeypatch.setattr(runner, 'execute_all', lambda *_, **__: pytest.fail('It has begun.'))
  with pytest.raises(
    UserError, match=r'pnoc-0/generator: generator\.epochs is 9 there and \d here'
  ):
    command.execute(order)


@pytest.mark.parametrize('dataset', [[], 'x', 7, None])
def test_records_of_another_form_are_refused_before_work(tmp_path, monkeypatch, dataset):
  order = recorded.order(tmp_path, tables=('1',), rows=('poc',), seeds=1)
  records.write_done(tmp_path / 'poc-0' / 'generator', {'dataset': dataset}, {}, {})
  monkeypatch.setattr(runner, 'execute_all', lambda *_, **__: pytest.fail('It has begun.'))
  with pytest.raises(UserError, match=r'(?s)holds other runs than these:.*dataset'):
    command.execute(order)


def test_a_table_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch, capsys):
  order = recorded.order(tmp_path, tables=('8',), rows=('vanilla', 'pnoc'), seeds=1)
  ran = []

  def execute_all(runs, where, *, after):
    for config, directory in runs:
      recorded.finish(config, directory)
      after()
      ran.append(directory.name)

  def broken(source):
    raise UserError('a.png cannot be read')

  monkeypatch.setattr(runner, 'execute_all', execute_all)
  monkeypatch.setattr(tables, 'class_statistics', broken)
  with pytest.raises(UserError, match=r'all is run, but not all is written: a\.png cannot be read'):
    command.execute(order)
  assert ran == ['vanilla-0', 'pnoc-0']
  assert capsys.readouterr().err.count('warning: nothing is written yet: a.png') == 2
