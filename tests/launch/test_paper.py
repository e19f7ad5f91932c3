"""Tables and figures from records: which runs are planned, and what is written of finished ones."""

import copy
import csv
import dataclasses
import functools
import io
import json
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax import config_flags
from pnoc_jax.data import sources
from pnoc_jax.data.inspect import checks
from pnoc_jax.engine import loop, settings
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, records
from pnoc_jax.paper import command, figures, plan, rows, sheets, tables
from pnoc_jax.parallel import targets
from pnoc_jax.report import examples
from pnoc_jax.runs import graph, runner
from pnoc_jax.stages.common import judge_history, maps, stage
from tests.report import toy_run

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / 'tests' / 'configs' / 'tiny.py'
IOU = {'poc': (40.0, 50.0, 60.0), 'pnoc': (55.0, 56.0, 60.0), 'vanilla': (30.0, 31.0, 32.0)}


@functools.cache
def _source(split='train'):
  return sources.open_source(_make(()).dataset, split)


_GIVEN = config_flags.Given(str(TINY), '', {'generator.eval_every': 1})
_make = rows.maker(_GIVEN)


def _order(workdir, **what):
  return command.Order(_make(()), _make, workdir, **{'seeds': 3, **what})


def _plan(workdir, names, seeds=(0,), others=()):
  known = {row.name: row for row in rows.ALL}
  return plan.runs(
    [known[x] for x in names], seeds, _make, workdir, others=[known[x] for x in others]
  )


def _toy(split):
  return toy_run.Source()


def _shared(run):
  """{stage: the directory of another run from which it comes}."""
  found = {name: getattr(run.config.inputs, name, '') for name in graph.needed(run.config)}
  return {name: pathlib.Path(path).parent.name for name, path in found.items() if path}


def _finish(config, workdir, miou=50.0, stages=None):
  """Leaves what a run of a config leaves, as far as plans and tables read it."""
  known = {split: _source(split) for split in ('train', 'val')}
  for item in graph.make_plan(config, workdir, known):
    if item.runs and (stages is None or item.stage.name in stages):
      item.directory.mkdir(parents=True)
      graph.finish(item, {'seconds': 60.0})
  if stages is not None:
    return
  with records.JsonLines(workdir / 'generator' / 'metrics.jsonl') as file:
    for epoch in range(1, config.generator.epochs + 1):
      file.write({'step': epoch, 'epoch': float(epoch), 'eval/miou': miou - 8 + 2 * epoch})
  iou = dict.fromkeys(('background', *known['train'].info.classes), miou)
  result = {'iou': iou, 'miou': miou, 'fp': 1.0, 'fn': 2.0, 'threshold': 0.25}
  result |= {'thresholds': [0.2, 0.25], 'mious': [miou - 5, miou]}
  for split in ('train', 'val'):
    records.write_json(workdir / 'evaluation' / f'priors_{split}.json', result)


def _finish_all(order):
  for run in command.plan_of(order, None):
    _finish(run.config, run.directory, IOU[run.row.name][run.seed])


def test_what_rows_have_alike_is_made_once(tmp_path):
  judged = _plan(tmp_path, ('vanilla', 'occse', 'poc', 'pnoc'), (0, 1))
  assert [run.directory.name for run in judged[:5]] == [
    'vanilla-0', 'occse-0', 'poc-0', 'pnoc-0', 'vanilla-1'
  ]  # fmt: skip
  assert 'classifier' not in {entry.name for entry in judged[0].stages()}
  assert [_shared(run) for run in judged] == [
    {},
    {},
    {'classifier': 'occse-0'},
    {'classifier': 'occse-0'},
    {},
    {},
    {'classifier': 'occse-1'},
    {'classifier': 'occse-1'},
  ]
  # What makes the maps is no part of a run that reads them; C2AM starts from the generator.
  walk, saliency = _plan(tmp_path, ('pnoc_walk', 'pnoc_h_walk'))
  assert walk.config.affinity_labels.saliency is maps.Saliency.NONE
  assert _shared(walk) == {}
  assert _shared(saliency) == {'generator': 'pnoc_walk-0', 'priors': 'pnoc_walk-0'}
  assert {'classifier', 'affinity_labels'} <= {entry.name for entry in walk.stages()}
  assert {'c2am', 'saliency', 'pseudo_masks'} <= {entry.name for entry in saliency.stages()}


@pytest.mark.parametrize('config', ['configs/pnoc_folder.py', 'configs/pnoc_shapes.py', str(TINY)])
def test_a_row_has_its_method_whether_the_config_has_a_word_for_it_or_not(config, tmp_path):
  """The first config has one, the second refuses it, and the third does not look at words."""
  path = str(ROOT / config)
  make = rows.maker(config_flags.Given(path, 'method=occse' if 'folder' in path else '', {}))
  of = {row.name: row for row in rows.ALL}
  runs = plan.runs([of[x] for x in ('vanilla', 'poc', 'pnoc')], (0,), make, tmp_path)
  assert [run.config.generator.method for run in runs] == ['vanilla', 'poc', 'pnoc']
  assert not any(run.config.inputs.generator for run in runs)


def test_a_flag_of_the_config_counts_for_every_row():
  make = rows.maker(config_flags.Given(str(TINY), '', {'generator.epochs': 7, 'seed': 5}))
  made = rows.MAPS[0].config(make, 1)
  assert (made.generator.epochs, made.seed) == (7, 1)
  with pytest.raises(UserError, match='no word for the network resnest101'):
    rows.NETWORKS[0].config(make, 1)


def test_a_table_reads_what_another_one_has_made(tmp_path):
  (maps_run,) = _plan(tmp_path, ('pnoc',))
  _finish(maps_run.config, maps_run.directory)
  (walk,) = _plan(tmp_path, ('pnoc_walk',), others=('poc', 'pnoc'))
  assert _shared(walk) == {'generator': 'pnoc-0', 'priors': 'pnoc-0'}
  assert _shared(_plan(tmp_path, ('pnoc_ls_walk',), others=('pnoc',))[0]) == {
    'classifier': 'pnoc-0'
  }
  # A classifier of other settings serves nobody.
  longer = lambda words: settings.override(_make(words), {'classifier.epochs': 9})  # noqa: E731
  of = {row.name: row for row in rows.ALL}
  changed = plan.runs([of['pnoc_walk']], (0,), longer, tmp_path, others=[of['pnoc']])
  assert _shared(changed[0]) == {}


def test_products_of_other_data_are_not_reused(tmp_path):
  (run,) = _plan(tmp_path, ('pnoc',))
  _finish(run.config, run.directory)
  row = next(row for row in rows.ALL if row.name == 'pnoc_ls')
  same = plan.runs([row], (0,), _make, tmp_path, others=[run.row], open_source=_source)
  assert _shared(same[0]) == {'classifier': 'pnoc-0'}
  config = copy.deepcopy(run.config.dataset)
  config.shapes.train += 8
  other = functools.partial(sources.open_source, config)
  changed = plan.runs([row], (0,), _make, tmp_path, others=[run.row], open_source=other)
  assert _shared(changed[0]) == {}


def test_the_table_has_mean_and_spread_of_what_the_runs_recorded(tmp_path):
  order = _order(tmp_path, tables=('1', '7'), rows=('vanilla', 'poc', 'pnoc'))
  _finish_all(order)
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
  assert float(cell['deviation']) == pytest.approx(np.std(IOU['pnoc'], ddof=1))
  assert [float(cell[f'run {i}']) for i in range(3)] == list(IOU['pnoc'])
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
  (walk,) = _plan(tmp_path, ('pnoc_walk',))
  _finish(walk.config, walk.directory, 50.0)
  order = _order(tmp_path, tables=('1',), rows=('pnoc',), seeds=1)
  (run,) = command.plan_of(order, None)
  assert _shared(run) == {'priors': 'pnoc_walk-0'}
  _finish(run.config, run.directory, 50.0)
  records.write_json(run.directory / 'config.json', settings.as_dict(run.config))
  shutil.rmtree(run.directory / 'generator')
  command.write(order, [run], command.Data(order.config.dataset, tmp_path))
  assert '| P-NOC | 44.0 | 48.0 | 50.0 | 50.0 |' in (tmp_path / 'table1.md').read_text()


def test_runs_that_name_each_other_have_no_log_of_a_generator(tmp_path):
  for ours, other in (('a', 'b'), ('b', 'a')):
    config = {'inputs': {'generator': str(tmp_path / other / 'generator')}}
    records.write_json(tmp_path / ours / 'config.json', config)
  run = command.files.read_run(tmp_path / 'a', stage.stages(_make(())))
  assert command._with_log(run, stage.stages(_make(()))) is run


def test_a_target_without_a_dry_run_starts_nothing(tmp_path):
  flags = ['--table=1', f'--config={TINY}', f'--workdir={tmp_path / "x"}', '--target=h100:8']
  path = [sys.executable, str(ROOT / 'launch' / 'paper.py')]
  done = subprocess.run([*path, *flags], capture_output=True, text=True, check=False, cwd=tmp_path)
  assert done.returncode == 2 and '--target estimates times; give --dry_run' in done.stderr
  assert not (tmp_path / 'x').exists()


def test_a_table_of_what_is_there_says_how_many_runs_it_has(tmp_path):
  order = _order(tmp_path, tables=('1',), rows=('poc', 'pnoc'))
  runs = command.plan_of(order, None)
  assert command.write(
    order, runs, command.Data(order.config.dataset, tmp_path)
  )  # Nothing is there yet.
  assert (tmp_path / 'table1.md').read_text().count('| - |') >= 2
  _finish(runs[0].config, runs[0].directory, 40.0)
  command.write(order, runs, command.Data(order.config.dataset, tmp_path))
  text = (tmp_path / 'table1.md').read_text()
  assert '0 to 1 runs a row' in text and '| P-OC | 34.0 |' in text


def _published(dataset, number, names, column, **changes):
  """Of each row what stands in a column of the authors' numbers."""
  of = {row.name: row for row in rows.ALL}
  config = settings.override(_make(()), {'dataset.name': dataset, **changes})
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
  order = _order(tmp_path, tables=('8',), rows=('pnoc',), seeds=1)
  (run,) = command.plan_of(order, None)
  _finish(run.config, run.directory)
  path, source = run.directory / 'evaluation' / 'priors_train.json', _source()
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
  order = _order(tmp_path, tables=('8',), rows=('pnoc',), seeds=1)
  (run,) = command.plan_of(order, None)
  _finish(run.config, run.directory)
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
  dataset = type(_source().info)('voc12', names, 'background', ((0, 0, 0),) * 21)
  found = tables.groups(dataset, np.arange(20.0))
  assert list(found) == [*tables._SIZE, *tables._CONTEXT]
  assert sum(len(found[x]) for x in ('small', 'medium', 'large')) == 20


def test_tables_2_to_6_read_their_scores(tmp_path):
  """The columns of the later tables, from the toy run's records."""
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  run = command.files.read_run(tmp_path, toy_run.STAGES)
  config = _make(())
  config.predictions.splits = ('train',)

  def text(number):
    row = tables.TABLES[number].rows[0]
    look = tables.Look(config, [(row, config, [run])], _toy, pytest.fail)
    return sheets.markdown(tables.TABLES[number].fill(tables.TABLES[number], look))

  best = run.score('random_walk', 'train')['miou']
  assert f'| {best:.1f} |' in text(2)
  assert '| C2AM | 81.8 | 77.2 | 92.5 | 81.8 | 77.2 | 92.5 |' in text(3)
  miou = run.score('predictions', 'train')['miou']
  assert f'| P-OC + C2AM-H | {miou:.1f} | {miou:.1f} |' in text(4)
  assert f'| mean | {miou:.1f} |' in text(6) and '| cat |' in text(6)


def test_figures_are_drawn_from_what_is_there(tmp_path):
  toy_run.write_run(tmp_path / 'a')
  toy_run.write_refinement(tmp_path / 'a')
  toy_run.write_run(tmp_path / 'b', quality=0.3)
  runs = [command.files.read_run(tmp_path / x, toy_run.STAGES) for x in 'ab']
  config = _make(())
  config.predictions.splits = ('train',)
  for name in 'ab':
    _judge(tmp_path / name / 'generator', range(1, 4))
  pnoc, poc = (next(r for r in rows.MAPS if r.name == name) for name in ('pnoc', 'poc'))
  found = [(pnoc, config, runs), (poc, config, [None, runs[1]])]
  look = tables.Look(config, found, _toy, pytest.fail)
  for number, figure in figures.FIGURES.items():
    drawn = figure.draw(figure, look)
    assert drawn is not None, number
    assert len(drawn.axes) >= 2
  empty = tables.Look(config, [(pnoc, config, [None])], _toy, pytest.fail)
  assert all(figure.draw(figure, empty) is None for figure in figures.FIGURES.values())
  (path,) = figures.write(figures.FIGURES[7], look, tmp_path, 'figure7')
  assert path.read_bytes().startswith(b'\x89PNG')


def _judge(directory, epochs, names=('img1', 'img4', 'img6'), side=32):
  """Leaves what a generator's training keeps of its judge; scores tell epochs and looks apart."""
  for epoch in epochs:
    rows_of = {}
    for name in names:
      squares = np.zeros((5, side, side), np.uint8)
      squares[:2, :8], squares[2:, :, :8] = 255, 255
      path = judge_history.path(directory, epoch, 'train', name)
      images.write_png(path, squares.reshape(-1, side))
      score = epoch / 100
      rows_of[name] = {'class': 'cat', 'whole': 0.9 + score, 'soft': 0.4 + score, 'hard': score}
    records.write_json(directory / 'judged' / f'{epoch:04d}' / 'train.json', rows_of)


def _figure_2(tmp_path, names):
  """Figure 2 of the runs in directories that are named after rows."""
  config = _make(())
  runs = {x: command.files.read_run(tmp_path / x, toy_run.STAGES) for x in names}
  found = [(row, config, [runs[row.name]]) for row in rows.MAPS if row.name in runs]
  return figures.FIGURES[2].draw(figures.FIGURES[2], tables.Look(config, found, _toy, pytest.fail))


def _texts(drawing):
  return [x.get_text() for axes in _panels(drawing) for x in axes.texts]


def _panels(drawing):
  return [axes for part in drawing.subfigs[:-1] for axes in part.axes]


def test_figure_2_shows_erased_images_with_the_judges_map_and_score(tmp_path):
  for name in ('poc', 'pnoc'):
    toy_run.write_run(tmp_path / name)
  _judge(tmp_path / 'poc' / 'generator', range(1, 10), names=('img0', 'img1', 'img4', 'img5'))
  _judge(tmp_path / 'pnoc' / 'generator', (2, 4), names=('img1', 'img4', 'img5', 'gone'), side=16)
  drawing = _figure_2(tmp_path, ('poc', 'pnoc'))
  # The first image that both have kept, and the last whose first class is another; five epochs.
  titles = [axes.get_title() for axes in _panels(drawing)]
  assert [x for x in titles if 'img' in x] == ['img1\nclass: cat', 'img4\nclass: cat']
  epochs = [f'epoch {x}' for x in (1, 3, 5, 7, 9, 2, 4)]
  assert [x for x in titles if x.startswith('epoch')] == 2 * epochs
  whole = ['judge of P-OC,\nwhole image, epoch 9', 'judge of P-NOC,\nwhole image, epoch 4']
  assert [x for x in titles if 'whole' in x] == 2 * whole
  assert _texts(drawing) == 2 * [
    '99 %', '41 %', '1 %', '43 %', '3 %', '45 %', '5 %', '47 %', '7 %', '49 %', '9 %',
    '94 %', '42 %', '2 %', '44 %', '4 %',
  ]  # fmt: skip
  # Of img1, whose pixels are 30: what is erased has the mean colour, and the map lies over it.
  image, whole, soft = (np.asarray(axes.images[0].get_array()) for axes in _panels(drawing)[:3])
  assert np.all(image == 30)
  mean = np.round(255 * np.array(toy_run.Source.info.mean)).astype(np.uint8)
  np.testing.assert_array_equal(soft[:8, 8:], np.broadcast_to(mean, (8, 24, 3)))
  assert np.all(soft[8:, 8:] == 30) and np.all(whole[:, 8:] == 30)
  assert np.all(soft[:8, :8] != mean) and np.all(whole[:, :8] != 30)


def test_figure_2_shows_the_last_image_where_all_have_one_class(tmp_path):
  toy_run.write_run(tmp_path / 'pnoc')
  _judge(tmp_path / 'pnoc' / 'generator', (1,), names=('img1', 'img3', 'img5'))
  titles = [axes.get_title() for axes in _panels(_figure_2(tmp_path, ('pnoc',)))]
  assert [x[:4] for x in titles if 'img' in x] == ['img1', 'img5']


def test_figure_2_is_without_runs_that_kept_nothing_of_their_judge(tmp_path, capsys):
  for name in ('poc', 'pnoc'):
    toy_run.write_run(tmp_path / name)
  assert _figure_2(tmp_path, ('poc', 'pnoc')) is None
  _judge(tmp_path / 'pnoc' / 'generator', (1,), names=('img2',))
  capsys.readouterr()
  drawing = _figure_2(tmp_path, ('poc', 'pnoc'))
  assert _texts(drawing) == ['91 %', '41 %', '1 %']
  told = capsys.readouterr().out
  assert f'{tmp_path}/poc/generator/judged has nothing of train: Figure 2 is without' in told
  judge_history.path(tmp_path / 'pnoc' / 'generator', 1, 'train', 'img2').unlink()
  assert _texts(_figure_2(tmp_path, ('poc', 'pnoc'))) == []


def test_figure_2_reads_a_judge_of_another_run(tmp_path):
  """A row that reads another run's generator shows what that one's judge saw."""
  toy_run.write_run(tmp_path / 'owner')
  _judge(tmp_path / 'owner' / 'generator', (3,))
  toy_run.write_run(tmp_path / 'pnoc')
  shutil.rmtree(tmp_path / 'pnoc' / 'generator')
  of = {'inputs': {'generator': str(tmp_path / 'owner' / 'generator')}}
  given = records.read_json(tmp_path / 'pnoc' / 'config.json')
  records.write_json(tmp_path / 'pnoc' / 'config.json', given | of)
  run = command._with_log(command.files.read_run(tmp_path / 'pnoc', toy_run.STAGES), toy_run.STAGES)
  look = tables.Look(_make(()), [(rows.MAPS[-1], _make(()), [run])], _toy, pytest.fail)
  assert '3 %' in _texts(figures.FIGURES[2].draw(figures.FIGURES[2], look))


def test_a_command_killed_twice_writes_the_tables_of_an_undisturbed_one(tmp_path, monkeypatch):
  """The runner is a stub that leaves records and dies where a real one may: between stages."""

  def command_line(workdir, deaths):
    order = _order(workdir, tables=('1',), rows=('poc', 'pnoc'), seeds=2)
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
          _finish(config, directory, stages={name})
        _finish(config, directory, IOU[method][int(seed)])
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
  order = _order(tmp_path, tables=('1',), rows=('poc', 'pnoc'), seeds=2)
  runs = command.plan_of(order, None)
  _finish(runs[0].config, runs[0].directory)
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
  make = rows.maker(_GIVEN._replace(fields=voc))
  order = command.Order(make(()), make, tmp_path, tables=('1',), rows=('vanilla',))
  (tmp_path / 'vanilla-0').mkdir()
  text = '\n'.join(command.preview(order, targets.parse('h100:8')))
  assert text.startswith('The data set is not here') and '3 to do' in text
  assert 'generator       to do' in text and 'at best on h100:8' in text
  assert 'no time is known of evaluation\n' in f'{text}\n'


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
    list(command.preview(_order(tmp_path, **what), None))


def test_a_product_that_the_config_gives_is_not_that_of_runs_that_differ(tmp_path):
  made = {'inputs.generator': 'runs/a/generator', 'inputs.classifier': 'runs/a/classifier'}
  make = rows.maker(_GIVEN._replace(fields=made))
  of = {row.name: row for row in rows.ALL}
  for names, seeds, other in (
    (('poc', 'pnoc'), (0,), 'poc-0 and pnoc-0'),
    (('poc',), (0, 1), 'poc-0 and poc-1'),
  ):
    with pytest.raises(UserError, match=rf'inputs\.generator would be the same in {other}'):
      plan.runs([of[x] for x in names], seeds, make, tmp_path)
  assert len(plan.runs([of['pnoc_walk'], of['pnoc_h_walk']], (0,), make, tmp_path)) == 2
  # One judge may serve all.
  judge = rows.maker(_GIVEN._replace(fields={'inputs.classifier': 'runs/a/classifier'}))
  assert len(plan.runs([of['poc'], of['pnoc']], (0, 1), judge, tmp_path)) == 4


def test_runs_of_other_settings_are_in_no_table_and_refused_before_work(tmp_path, monkeypatch):
  order = _order(tmp_path, tables=('1',), rows=('poc', 'pnoc'), seeds=1)
  first, second = command.plan_of(order, None)
  longer = settings.override(copy.deepcopy(second.config), {'generator.epochs': 9})
  longer.inputs.classifier = ''
  _finish(first.config, first.directory, 40.0)
  _finish(longer, second.directory, 90.0)
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
  order = _order(tmp_path, tables=('1',), rows=('poc',), seeds=1)
  records.write_done(tmp_path / 'poc-0' / 'generator', {'dataset': dataset}, {}, {})
  monkeypatch.setattr(runner, 'execute_all', lambda *_, **__: pytest.fail('It has begun.'))
  with pytest.raises(UserError, match=r'(?s)holds other runs than these:.*dataset'):
    command.execute(order)


def test_a_data_set_with_masks_of_one_split_has_columns_of_that_split(tmp_path):
  order = _order(tmp_path, tables=('1',), rows=('poc', 'pnoc'), seeds=1)
  _finish_all(order)
  for path in tmp_path.glob('*/evaluation/priors_train.json'):
    path.unlink()
  runs = command.plan_of(order, None)
  written = command.write(order, runs, command.Data(order.config.dataset, tmp_path))
  lines = (tmp_path / 'table1.md').read_text().splitlines()
  assert lines[2] == '| method | E1 | E3 | E4 | TTA val | FP | FN | threshold |'
  assert '| P-OC | 34.0 | 38.0 | 40.0 | 40.0 | 1.0 |' in lines[4]
  assert (tmp_path / 'table1.svg') in written


def test_images_that_runs_left_out_are_in_no_statistics_and_part_no_products(tmp_path):
  config = _make(()).dataset
  data = command.Data(config, tmp_path)
  whole, lost = data.open('train'), data.open('train').ids[0]
  checks.quarantine([checks.Problem(lost, 'broken, it seems')], tmp_path / 'quarantine_train.csv')
  (tmp_path / 'pnoc-0').mkdir()
  (tmp_path / 'quarantine_train.csv').rename(tmp_path / 'pnoc-0' / 'quarantine_train.csv')
  kept = data.open('train')
  assert data.open('train') is kept and set(whole.ids) - set(kept.ids) == {lost}
  assert data.statistics('train').images.sum() == kept.labels.sum() < whole.labels.sum()
  (run,) = _plan(tmp_path, ('pnoc',))
  for item in graph.make_plan(
    run.config, run.directory, {x: data.open(x) for x in ('train', 'val')}
  ):
    item.directory.mkdir(parents=True)
    graph.finish(item, {})
  row = next(row for row in rows.ALL if row.name == 'pnoc_walk')
  others = [run.row]
  found = plan.runs([row], (0,), _make, tmp_path, others=others, open_source=data.open)
  assert _shared(found[0]) == {'generator': 'pnoc-0', 'priors': 'pnoc-0'}


def test_a_table_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch, capsys):
  order = _order(tmp_path, tables=('8',), rows=('vanilla', 'pnoc'), seeds=1)
  ran = []

  def execute_all(runs, where, *, after):
    for config, directory in runs:
      _finish(config, directory)
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


def test_columns_of_epochs_are_of_what_was_measured(tmp_path):
  def columns(epochs, every, run=None):
    fields = {'generator.epochs': epochs, 'generator.eval_every': every}
    config = settings.override(_make(()), fields)
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
  order = _order(tmp_path, tables=('1',), rows=('vanilla', 'pnoc'), seeds=1)
  first, second = command.plan_of(order, None)
  _finish(first.config, first.directory)

  def execute_all(runs, where, *, after):
    _finish(second.config, second.directory)
    after()

  monkeypatch.setattr(runner, 'execute_all', execute_all)
  monkeypatch.setattr(command.report, '_commit', lambda: 'abc123')
  command.execute(order)
  text = (tmp_path / 'table1.md').read_text()
  assert 'Runs were made by different code or machines.' in text
  assert '1 run(s): code that left no record.' in text and '1 run(s): commit abc123 on ' in text


def test_a_picture_that_is_not_there_leaves_its_place_empty(tmp_path):
  """Captions stand above the pictures of their row, whatever an image lacks."""
  toy_run.write_run(tmp_path)
  config, seen = _make(()), []
  run = command.files.read_run(tmp_path, toy_run.STAGES)
  look = tables.Look(config, [(rows.MAPS[0], config, [run])], _toy, pytest.fail)

  def panels(firsts, example):
    seen.append(example.id)
    picture = examples.Picture('second', '', example.image)
    yield None if len(seen) == 1 else picture._replace(caption='first')
    yield picture
    yield None

  drawing = figures.montage(look, 'title', 'train', 3, panels)
  assert len(seen) == 3 and len(drawing.axes) == 12
  titles = [axes.get_title() for axes in drawing.axes]
  assert titles == ['image', 'mask', 'first', 'second', *[''] * 8]
  assert [bool(x.images) for x in drawing.axes] == [True, True, False, *[True] * 9]


@pytest.mark.parametrize('config', ['pnoc_shapes', 'pnoc_folder', 'pnoc_voc', 'pnoc_coco'])
def test_every_row_is_a_config_that_can_run(config):
  """Of each preset; names of rows, and so of directories, are unique."""
  make = rows.maker(config_flags.Given(str(ROOT / 'configs' / f'{config}.py'), '', {}))
  fitting = rows.fitting(rows.ALL, make(('method=pnoc',)))
  assert len({row.name for row in fitting}) == len(fitting)
  for row in fitting:
    made = row.config(make, 1)
    assert f'method={made.generator.method}' in row.words
    config_lib.validate(made)
    assert {'evaluation', *row.of} <= graph.needed(made)
    assert 'report' not in graph.needed(made)
  assert any(row.network for row in fitting) == (config in ('pnoc_voc', 'pnoc_coco'))
