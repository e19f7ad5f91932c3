"""Which runs are planned, what they share, and which changes make a row."""

import copy
import functools

import pytest

from pnoc_jax import config as config_lib
from pnoc_jax import config_flags
from pnoc_jax.data import sources
from pnoc_jax.errors import UserError
from pnoc_jax.paper import plan, rows
from pnoc_jax.runs import graph
from pnoc_jax.stages.common import maps
from tests.paper import recorded


def test_what_rows_have_alike_is_made_once(tmp_path):
  judged = recorded.planned(tmp_path, ('vanilla', 'occse', 'poc', 'pnoc'), (0, 1))
  assert [run.directory.name for run in judged[:5]] == [
    'vanilla-0', 'occse-0', 'poc-0', 'pnoc-0', 'vanilla-1'
  ]  # fmt: skip
  assert 'classifier' not in {entry.name for entry in judged[0].stages()}
  assert [recorded.shared(run) for run in judged] == [
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
  walk, saliency = recorded.planned(tmp_path, ('pnoc_walk', 'pnoc_h_walk'))
  assert walk.config.affinity_labels.saliency is maps.Saliency.NONE
  assert recorded.shared(walk) == {}
  assert recorded.shared(saliency) == {'generator': 'pnoc_walk-0', 'priors': 'pnoc_walk-0'}
  assert {'classifier', 'affinity_labels'} <= {entry.name for entry in walk.stages()}
  assert {'c2am', 'saliency', 'pseudo_masks'} <= {entry.name for entry in saliency.stages()}


@pytest.mark.parametrize(
  'config', ['configs/pnoc_folder.py', 'configs/pnoc_shapes.py', str(recorded.TINY)]
)
def test_a_row_has_its_method_whether_the_config_has_a_word_for_it_or_not(config, tmp_path):
  """The first config has one, the second refuses it, and the third does not look at words."""
  path = str(recorded.ROOT / config)
  make = rows.maker(config_flags.Given(path, 'method=occse' if 'folder' in path else '', {}))
  of = {row.name: row for row in rows.ALL}
  runs = plan.runs([of[x] for x in ('vanilla', 'poc', 'pnoc')], (0,), make, tmp_path)
  assert [run.config.generator.method for run in runs] == ['vanilla', 'poc', 'pnoc']
  assert not any(run.config.inputs.generator for run in runs)


def test_a_flag_of_the_config_counts_for_every_row():
  make = rows.maker(config_flags.Given(str(recorded.TINY), '', {'generator.epochs': 7, 'seed': 5}))
  made = rows.MAPS[0].config(make, 1)
  assert (made.generator.epochs, made.seed) == (7, 1)
  with pytest.raises(UserError, match='no word for the network resnest101'):
    rows.NETWORKS[0].config(make, 1)


def test_products_of_other_data_are_not_reused(tmp_path):
  (run,) = recorded.planned(tmp_path, ('pnoc',))
  recorded.finish(run.config, run.directory)
  row = next(row for row in rows.ALL if row.name == 'pnoc_ls')
  same = plan.runs(
    [row], (0,), recorded.make, tmp_path, others=[run.row], open_source=recorded.source
  )
  assert recorded.shared(same[0]) == {'classifier': 'pnoc-0'}
  config = copy.deepcopy(run.config.dataset)
  config.shapes.train += 8
  other = functools.partial(sources.open_source, config)
  changed = plan.runs([row], (0,), recorded.make, tmp_path, others=[run.row], open_source=other)
  assert recorded.shared(changed[0]) == {}


def test_a_product_that_the_config_gives_is_not_that_of_runs_that_differ(tmp_path):
  made = {'inputs.generator': 'runs/a/generator', 'inputs.classifier': 'runs/a/classifier'}
  make = rows.maker(recorded.GIVEN._replace(fields=made))
  of = {row.name: row for row in rows.ALL}
  for names, seeds, other in (
    (('poc', 'pnoc'), (0,), 'poc-0 and pnoc-0'),
    (('poc',), (0, 1), 'poc-0 and poc-1'),
  ):
    with pytest.raises(UserError, match=rf'inputs\.generator would be the same in {other}'):
      plan.runs([of[x] for x in names], seeds, make, tmp_path)
  assert len(plan.runs([of['pnoc_walk'], of['pnoc_h_walk']], (0,), make, tmp_path)) == 2
  # One judge may serve all.
  judge = rows.maker(recorded.GIVEN._replace(fields={'inputs.classifier': 'runs/a/classifier'}))
  assert len(plan.runs([of['poc'], of['pnoc']], (0, 1), judge, tmp_path)) == 4


@pytest.mark.parametrize('config', ['pnoc_shapes', 'pnoc_folder', 'pnoc_voc', 'pnoc_coco'])
def test_every_row_is_a_config_that_can_run(config):
  """Of each preset; names of rows, and so of directories, are unique."""
  make = rows.maker(config_flags.Given(str(recorded.ROOT / 'configs' / f'{config}.py'), '', {}))
  fitting = rows.fitting(rows.ALL, make(('method=pnoc',)))
  assert len({row.name for row in fitting}) == len(fitting)
  for row in fitting:
    made = row.config(make, 1)
    assert f'method={made.generator.method}' in row.words
    config_lib.validate(made)
    assert {'evaluation', *row.of} <= graph.needed(made)
    assert 'report' not in graph.needed(made)
  assert any(row.network for row in fitting) == (config in ('pnoc_voc', 'pnoc_coco'))
