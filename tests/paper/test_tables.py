"""The paper's tables of the records of finished runs."""

import copy
import csv
import dataclasses
import io
import json
import shutil
import xml.etree.ElementTree

import numpy as np
import pytest

from pnoc_jax.data.inspect import checks
from pnoc_jax.engine import settings
from pnoc_jax.io import records
from pnoc_jax.paper import command, plan, rows, sheets, tables
from pnoc_jax.runs import graph, runner
from pnoc_jax.stages.common import stage
from tests.paper import recorded
from tests.report import toy_run


def test_the_table_has_mean_and_spread_of_what_the_runs_recorded(tmp_path):
  order = recorded.order(tmp_path, tables=('1', '7'), rows=('vanilla', 'poc', 'pnoc'))
  recorded.finish_all(order)
  runs = command.plan_of(order, None)
  written = command.write(order, runs, command.Data(order.config.dataset, tmp_path))
  assert {path.name for path in written} == {
    f'table{n}.{kind}' for n in (1, 7) for kind in ('md', 'csv', 'tex', 'svg')
  }
  lines = (tmp_path / 'table1.md').read_text().splitlines()
  assert lines[2] == '| method | E1 | E3 | E4 | TTA train | FP | FN | threshold | TTA val |'
  assert lines[5] == (
    '| P-OC | 44.0 ± 10.0 | 48.0 ± 10.0 | 50.0 ± 10.0 | 50.0 ± 10.0 | 1.0 ± 0.0 | 2.0 ± 0.0 | '
    '0.25 ± 0.00 | 50.0 ± 10.0 |'
  )
  assert '**57.0 ± 2.6**' in lines[6] and '3 run(s) a row' in (tmp_path / 'table1.md').read_text()
  table = list(csv.DictReader((tmp_path / 'table7.csv').open()))
  (cell,) = [x for x in table if (x['method'], x['column']) == ('P-NOC', 'TTA train')]
  assert (float(cell['mean']), int(cell['runs'])) == (57.0, 3)
  assert float(cell['deviation']) == pytest.approx(np.std(recorded.IOU['pnoc'], ddof=1))
  assert [float(cell[f'run {i}']) for i in range(3)] == list(recorded.IOU['pnoc'])
  tex = (tmp_path / 'table1.tex').read_text()
  assert r'\textbf{57.0 $\pm$ 2.6}' in tex and tex.count(r'\\') == 4
  sheet = sheets.Sheet(
    'a', 'b', ('c',), (('d', (sheets.column([-3.0]),)), ('e', (sheets.column([]),)))
  )
  absent = sheets.Sheet('a', 'b', ('c',), (('d', (sheets.column([float('nan'), 2.0]),)),))
  assert sheets.comma_separated(absent).splitlines()[1] == 'd,c,2.0,,1,,2.0'
  assert 'd & $-$3.0 ' in sheets.latex(sheet) and 'e & - ' in sheets.latex(sheet)
  assert '<svg' in (tmp_path / 'table1.svg').read_text()


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
  'name',
  [
    '=1+1',
    '$\\frac{',
    'a\x1b[2J',
    '<script>x</script>',
    'a|b\n# x\n\n\\end{table}',
    '猫',
    '\ud800',
  ],
)
def test_names_are_text_in_every_form_of_a_table(tmp_path, name):
  cells = (sheets.column([1.0, 2.0]), sheets.column([3.0]))
  sheet = sheets.Sheet(f'of {name}', 'class', ('a', name), ((name, cells),), (name,), (), (name,))
  written = {x.suffix: x.read_text() for x in sheets.write(sheet, tmp_path, 't')}
  assert not any('\x1b' in text for text in written.values())
  assert '<script' not in written['.md'] and '<script' not in written['.svg']
  (row, _) = list(csv.DictReader(io.StringIO(written['.csv'])))
  assert not row['class'].startswith('=') and row['mean'] == '1.5'
  table = [x for x in written['.md'].splitlines() if x.startswith('|')]
  assert len(table) == 3 and all(x.replace(r'\|', '').count('|') == 4 for x in table)
  assert '\n\n' not in written['.tex'] and written['.tex'].count('\n\\end{table}\n') == 1
  xml.etree.ElementTree.fromstring(written['.svg'])


def test_a_generator_that_another_run_has_trained_has_its_log(tmp_path):
  (walk,) = recorded.planned(tmp_path, ('pnoc_walk',))
  recorded.finish(walk.config, walk.directory, 50.0)
  order = recorded.order(tmp_path, tables=('1',), rows=('pnoc',), seeds=1)
  (run,) = command.plan_of(order, None)
  assert recorded.shared(run) == {'priors': 'pnoc_walk-0'}
  recorded.finish(run.config, run.directory, 50.0)
  records.write_json(run.directory / 'config.json', settings.as_dict(run.config))
  shutil.rmtree(run.directory / 'generator')
  command.write(order, [run], command.Data(order.config.dataset, tmp_path))
  assert '| P-NOC | 44.0 | 48.0 | 50.0 | 50.0 |' in (tmp_path / 'table1.md').read_text()


def test_runs_that_name_each_other_have_no_log_of_a_generator(tmp_path):
  for ours, other in (('a', 'b'), ('b', 'a')):
    config = {'inputs': {'generator': str(tmp_path / other / 'generator')}}
    records.write_json(tmp_path / ours / 'config.json', config)
  run = command.files.read_run(tmp_path / 'a', stage.stages(recorded.make(())))
  assert command._with_log(run, stage.stages(recorded.make(()))) is run


def _published(dataset, number, names, column, **changes):
  """Of each row what stands in a column of the authors' numbers."""
  of = {row.name: row for row in rows.ALL}
  config = settings.override(recorded.make(()), {'dataset.name': dataset, **changes})
  found = []
  for name in names:
    method = dict(word.split('=') for word in of[name].words)['method']
    fields = {'generator.smoothing': 0.1, **dict(of[name].fields), 'generator.method': method}
    found.append((of[name], settings.override(copy.deepcopy(config), fields), []))
  look = tables.Look(config, found, pytest.fail, pytest.fail)
  sheet = tables.TABLES[number].fill(tables.TABLES[number], look)
  if f'{column}, published' not in sheet.columns:
    return [None] * len(names)
  index = sheet.columns.index(f'{column}, published')
  return [cells[index].mean for _, cells in sheet.lines]


def test_the_authors_numbers_stand_beside_those_of_their_data_set():
  names = ('vanilla', 'poc', 'poc_ls', 'pnoc', 'pnoc_ls')
  numbers = [53.7, 61.5, 61.9, 62.9, 63.7]
  assert _published('voc12', 1, names, 'TTA train') == numbers
  assert _published('shapes', 1, names, 'TTA train') == [None] * 5
  # Theirs are of the training split.
  split = {'evaluation.splits': ('val',)}
  assert _published('voc12', 1, names, 'TTA val', **split) == [None] * 5


def test_the_authors_numbers_after_the_maps_are_of_the_maps_that_they_had():
  """The README lists what each was made from: on VOC P-NOC with smoothing, on COCO without."""
  walks = ('poc_h_walk', 'pnoc_walk', 'pnoc_h_walk', 'pnoc_ls_walk', 'pnoc_ls_h_walk')
  for dataset, expected in (
    ('voc12', [None, None, None, None, 75.5]),
    ('coco14', [None, None, 47.7, None, None]),
  ):
    assert _published(dataset, 2, walks, 'walk and CRF train') == expected
  segmentations = tuple(row.name for row in rows.SEGMENTATIONS)
  val = {'predictions.splits': ('val',)}
  assert _published('voc12', 4, segmentations, 'val', **val) == [71.4, None, None, 73.8, 80.6]
  assert _published('coco14', 4, segmentations, 'val', **val) == [None, None, 48.1, None, None]
  # They published none of another split.
  assert _published('voc12', 4, segmentations, 'test', **{'predictions.splits': ('test',)}) == (
    [None] * 5
  )
  saliency = ('pnoc_c2am', 'poc_ls_h', 'pnoc_h', 'pnoc_ls_h')
  assert _published('voc12', 3, saliency, 'R., GT') == [None, None, None, 70.8]


def test_table_8_has_groups_and_correlations(tmp_path):
  order = recorded.order(tmp_path, tables=('8',), rows=('pnoc',), seeds=1)
  (run,) = command.plan_of(order, None)
  recorded.finish(run.config, run.directory)
  path, source = run.directory / 'evaluation' / 'priors_train.json', recorded.source()
  result = json.loads(path.read_text())
  result['iou'] = dict(zip(result['iou'], range(10, 90, 10), strict=False))
  path.write_text(json.dumps(result))
  command.write(order, [run], command.Data(order.config.dataset, tmp_path))
  found = {x['class']: x for x in csv.DictReader((tmp_path / 'table8.csv').open())
           if x['column'] == 'P-NOC'}  # fmt: skip
  size = {x['class']: x for x in csv.DictReader((tmp_path / 'table8.csv').open())
          if x['column'] == '%S'}  # fmt: skip
  classes = source.info.classes
  shares = np.array([float(size[name]['mean']) for name in classes])
  ious = np.array([float(found[name]['mean']) for name in classes])
  expected = 100 * np.corrcoef(shares, ious)[0, 1]
  assert float(found['100 r with %S']['mean']) == pytest.approx(expected)
  small = np.argsort(shares)[: len(classes) // 3]
  assert float(found['small (2)']['mean']) == pytest.approx(ious[small].mean())


def test_table_8_tells_a_class_called_mean_from_the_mean(tmp_path, monkeypatch):
  order = recorded.order(tmp_path, tables=('8',), rows=('pnoc',), seeds=1)
  (run,) = command.plan_of(order, None)
  recorded.finish(run.config, run.directory)
  data = command.Data(order.config.dataset, tmp_path)
  source = data.open('train')
  renamed = dataclasses.replace(source.info, classes=('mean', *source.info.classes[1:]))
  monkeypatch.setattr(source, 'info', renamed)
  path = run.directory / 'evaluation' / 'priors_train.json'
  result = json.loads(path.read_text())
  result['iou'] = dict.fromkeys(('background', *renamed.classes), 10.0) | {'mean': 99.0}
  result['miou'] = 42.0
  path.write_text(json.dumps(result))
  command.write(order, [run], data)
  with (tmp_path / 'table8.csv').open() as file:
    lines = [x for x in csv.DictReader(file) if x['class'] == 'mean']
  ious = [float(x['mean']) for x in lines if x['column'] == 'P-NOC']
  sizes = [float(x['mean']) for x in lines if x['column'] == '%S']
  assert ious == [99.0, 42.0]
  assert sizes[0] == pytest.approx(data.statistics('train').size[1], abs=0.05)
  assert sizes[0] != sizes[1]


def test_groups_of_voc_are_those_of_the_paper():
  names = (*tables._SIZE['small'], *tables._SIZE['medium'], *tables._SIZE['large'])
  dataset = type(recorded.source().info)('voc12', names, 'background', ((0, 0, 0),) * 21)
  found = tables.groups(dataset, np.arange(20.0))
  assert list(found) == [*tables._SIZE, *tables._CONTEXT]
  assert sum(len(found[x]) for x in ('small', 'medium', 'large')) == 20


def test_tables_2_to_6_read_their_scores(tmp_path):
  """The columns of the later tables, from the toy run's records."""
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  run = command.files.read_run(tmp_path, toy_run.STAGES)
  config = recorded.make(())
  config.predictions.splits = ('train',)

  def text(number):
    row = tables.TABLES[number].rows[0]
    look = tables.Look(config, [(row, config, [run])], recorded.toy, pytest.fail)
    return sheets.markdown(tables.TABLES[number].fill(tables.TABLES[number], look))

  best = run.score('random_walk', 'train')['miou']
  assert f'| {best:.1f} |' in text(2)
  assert '| C2AM | 81.8 | 77.2 | 92.5 | 81.8 | 77.2 | 92.5 |' in text(3)
  miou = run.score('predictions', 'train')['miou']
  assert f'| P-OC + C2AM-H | {miou:.1f} | {miou:.1f} |' in text(4)
  assert f'| mean | {miou:.1f} |' in text(6) and '| cat |' in text(6)


def test_a_data_set_with_masks_of_one_split_has_columns_of_that_split(tmp_path):
  order = recorded.order(tmp_path, tables=('1',), rows=('poc', 'pnoc'), seeds=1)
  recorded.finish_all(order)
  for path in tmp_path.glob('*/evaluation/priors_train.json'):
    path.unlink()
  runs = command.plan_of(order, None)
  written = command.write(order, runs, command.Data(order.config.dataset, tmp_path))
  lines = (tmp_path / 'table1.md').read_text().splitlines()
  assert lines[2] == '| method | E1 | E3 | E4 | TTA val | FP | FN | threshold |'
  assert '| P-OC | 34.0 | 38.0 | 40.0 | 40.0 | 1.0 |' in lines[4]
  assert (tmp_path / 'table1.svg') in written


def test_images_that_runs_left_out_are_in_no_statistics_and_part_no_products(tmp_path):
  config = recorded.make(()).dataset
  data = command.Data(config, tmp_path)
  whole, lost = data.open('train'), data.open('train').ids[0]
  checks.quarantine([checks.Problem(lost, 'broken, it seems')], tmp_path / 'quarantine_train.csv')
  (tmp_path / 'pnoc-0').mkdir()
  (tmp_path / 'quarantine_train.csv').rename(tmp_path / 'pnoc-0' / 'quarantine_train.csv')
  kept = data.open('train')
  assert data.open('train') is kept and set(whole.ids) - set(kept.ids) == {lost}
  assert data.statistics('train').images.sum() == kept.labels.sum() < whole.labels.sum()
  (run,) = recorded.planned(tmp_path, ('pnoc',))
  for item in graph.make_plan(
    run.config, run.directory, {x: data.open(x) for x in ('train', 'val')}
  ):
    item.directory.mkdir(parents=True)
    graph.finish(item, {})
  row = next(row for row in rows.ALL if row.name == 'pnoc_walk')
  others = [run.row]
  found = plan.runs([row], (0,), recorded.make, tmp_path, others=others, open_source=data.open)
  assert recorded.shared(found[0]) == {'generator': 'pnoc-0', 'priors': 'pnoc-0'}


def test_columns_of_epochs_are_of_what_was_measured(tmp_path):
  def columns(epochs, every, run=None):
    fields = {'generator.epochs': epochs, 'generator.eval_every': every}
    config = settings.override(recorded.make(()), fields)
    look = tables.Look(config, [(rows.MAPS[0], config, [run])], pytest.fail, pytest.fail)
    sheet = tables.TABLES[1].fill(tables.TABLES[1], look)
    return [x for x in sheet.columns if x.startswith('E')]

  assert columns(15, 1) == ['E1', 'E5', 'E10', 'E15']
  assert columns(4, 2) == ['E2', 'E4'] and columns(15, 2) == ['E2', 'E6', 'E10', 'E14']
  # A set of few images is shown in more epochs than the config has.
  toy_run.write_run(tmp_path)
  run = command.files.read_run(tmp_path, toy_run.STAGES)
  assert columns(2, 1, run) == ['E1', 'E2', 'E3', 'E5']
  assert columns(4, 0) == []


def test_a_table_says_by_what_code_its_runs_were_made(tmp_path, monkeypatch):
  order = recorded.order(tmp_path, tables=('1',), rows=('vanilla', 'pnoc'), seeds=1)
  first, second = command.plan_of(order, None)
  recorded.finish(first.config, first.directory)

  def execute_all(runs, where, *, after):
    recorded.finish(second.config, second.directory)
    after()

  monkeypatch.setattr(runner, 'execute_all', execute_all)
  monkeypatch.setattr(command.report, '_commit', lambda: 'abc123')
  command.execute(order)
  text = (tmp_path / 'table1.md').read_text()
  assert 'Runs were made by different code or machines.' in text
  assert '1 run(s): code that left no record.' in text and '1 run(s): commit abc123 on ' in text
