import dataclasses

import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.data import sources as sources_lib
from pnoc_jax.errors import UserError
from pnoc_jax.io import ranges, records
from pnoc_jax.runs import graph
from pnoc_jax.stages import priors
from pnoc_jax.stages.common import stage

ALL = ['classifier', 'generator', 'priors', 'evaluation', 'report']
Status = graph.Status


@pytest.fixture
def config():
  result = config_lib.PipelineConfig()
  result.dataset.shapes.train = result.dataset.shapes.val = 4
  result.dataset.shapes.size = 16
  return result


def _plan(config, workdir):
  sources = {split: sources_lib.open_source(config.dataset, split) for split in ('train', 'val')}
  return {item.stage.name: item for item in graph.make_plan(config, workdir, sources)}


def _status(config, workdir):
  return {name: item.status for name, item in _plan(config, workdir).items()}


def _run(config, workdir, *, until=None, cut=None):
  """Does as the runner: begins and finishes stages, up to one, or leaves one half done."""
  for name, item in _plan(config, workdir).items():
    if item.runs:
      graph.begin(item)
      (item.directory / 'product').write_text(name)
      if name == cut:
        return
      graph.finish(item, {})
    if name == until:
      return


def _fields(error):
  return [line.strip() for line in str(error.value).splitlines() if line.startswith('  ')]


def test_a_new_directory_runs_all_in_order(config, tmp_path):
  workdir = tmp_path / 'run'
  assert _status(config, workdir) == dict.fromkeys(ALL, Status.RUN)
  assert not workdir.exists()  # A plan changes nothing.


def test_what_is_done_stays_done(config, tmp_path):
  _run(config, tmp_path, until='generator')
  status = _status(config, tmp_path)
  assert list(status.values()) == [Status.DONE] * 2 + [Status.RUN] * 3
  _run(config, tmp_path)
  assert set(_status(config, tmp_path).values()) == {Status.DONE}


def test_what_is_half_done_resumes(config, tmp_path):
  _run(config, tmp_path, cut='generator')
  assert _status(config, tmp_path)['generator'] is Status.RESUME
  item = _plan(config, tmp_path)['generator']
  graph.begin(item)
  assert (item.directory / 'product').exists()


@pytest.mark.parametrize('cut', [None, 'generator'], ids=['done', 'half_done'])
def test_another_config_is_refused_by_the_fields_that_differ(config, tmp_path, cut):
  _run(config, tmp_path, cut=cut)
  before = sorted((path, path.read_bytes()) for path in tmp_path.rglob('*') if path.is_file())
  config.generator.optim.lr = 0.5
  config.generator.method = 'poc'
  with pytest.raises(UserError, match='Nothing was changed') as error:
    _plan(config, tmp_path)
  fields = _fields(error)
  assert 'generator: generator.optim.lr is 0.01 there and 0.5 here' in fields
  assert "generator: generator.method is 'pnoc' there and 'poc' here" in fields
  assert '--config.rerun=' in str(error.value)
  after = sorted((path, path.read_bytes()) for path in tmp_path.rglob('*') if path.is_file())
  assert after == before


def test_fields_that_change_no_product_do_not_matter(config, tmp_path):
  _run(config, tmp_path)
  for training in (config.classifier, config.generator):
    training.eval_every, training.eval_size, training.eval_batches = 7, 96, 3
    training.model.remat = training.model.scan = True
  config.priors.batch_size, config.priors.multiple = 3, 64
  config.runtime.save_every = config.runtime.log_every = 3
  config.name, config.dataset.root = 'another name', 'elsewhere'
  assert set(_status(config, tmp_path).values()) == {Status.DONE}


def test_other_data_is_another_run(config, tmp_path):
  _run(config, tmp_path)
  config.dataset.shapes.train = 5
  with pytest.raises(UserError, match=r'classifier: dataset\.train_ids_and_labels'):
    _plan(config, tmp_path)


def test_another_range_of_deep_images_is_another_run(config, tmp_path):
  sources = {split: sources_lib.open_source(config.dataset, split) for split in ('train', 'val')}
  assert not any('range' in name for name in graph.dataset_settings(config.dataset, sources))
  sources['train'].white = ranges.Range(4095, 1.0)
  assert graph.dataset_settings(config.dataset, sources)['train_range'] == [4095, 1.0]


def test_the_splits_of_a_run_are_those_that_are_made_and_measured(config):
  config.generator.eval_split = 'test'
  assert graph.splits(config) == ['train', 'val', 'test']
  config.generator.eval_every = 0
  assert graph.splits(config) == ['train', 'val']


def test_an_upstream_change_reaches_downstream(config, tmp_path):
  """The classifier alone differs: what was made from it does not fit either."""
  _run(config, tmp_path)
  config.classifier.epochs = 99
  with pytest.raises(UserError) as error:
    _plan(config, tmp_path)
  assert any(line.startswith('classifier: classifier.epochs is') for line in _fields(error))
  assert 'generator: it was made from other products of classifier' in _fields(error)


def test_rerun_repeats_what_follows_and_keeps_the_old(config, tmp_path):
  _run(config, tmp_path)
  config.generator.optim.lr = 0.5
  config.rerun = 'generator'
  assert list(_status(config, tmp_path).values()) == [Status.DONE] + [Status.RERUN] * 4
  _run(config, tmp_path)
  config.rerun = ''
  assert set(_status(config, tmp_path).values()) == {Status.DONE}
  old = records.read_done(tmp_path / 'generator.old1')
  assert old.config['generator']['optim']['lr'] == 0.01
  config.rerun = 'report'
  _run(config, tmp_path)
  assert (tmp_path / 'report.old1').is_dir()
  assert (tmp_path / 'report.old2').is_dir()
  assert not (tmp_path / 'generator.old2').exists()


def test_a_rerun_that_was_stopped_goes_on_by_the_same_command(config, tmp_path):
  _run(config, tmp_path)
  config.rerun = 'generator'
  graph.open_rerun(config, tmp_path)
  _run(config, tmp_path, cut='priors')
  for _ in range(2):
    graph.open_rerun(config, tmp_path)
    assert list(_status(config, tmp_path).values()) == [
      *[Status.DONE] * 2, Status.RESUME, *[Status.RERUN] * 2
    ]  # fmt: skip
  _run(config, tmp_path, cut='priors')
  assert sorted(path.name for path in tmp_path.glob('*.old*')) == ['generator.old1', 'priors.old1']
  config.priors.scales = (1.0,)  # Changed meanwhile.
  assert _status(config, tmp_path)['priors'] is Status.RERUN
  _run(config, tmp_path)
  graph.close_rerun(tmp_path)
  assert (tmp_path / 'priors.old2').is_dir() and not (tmp_path / 'generator.old2').exists()
  # Finished: the same command asks for another one.
  graph.open_rerun(config, tmp_path)
  assert _status(config, tmp_path)['generator'] is Status.RERUN


def test_only_and_until_choose(config, tmp_path):
  config.until = 'generator'
  assert list(_status(config, tmp_path)) == ALL[:2]
  config.until, config.only = '', 'generator'
  with pytest.raises(UserError, match='classifier: needed and not done'):
    _plan(config, tmp_path)
  _run(config_lib.PipelineConfig(until='classifier', dataset=config.dataset), tmp_path)
  assert _status(config, tmp_path) == {'classifier': Status.DONE, 'generator': Status.RUN}
  config.only = 'classifier'
  assert list(_status(config, tmp_path)) == ['classifier']


@pytest.mark.parametrize('field', ['only', 'until', 'rerun'])
def test_an_unknown_stage_gives_the_nearest(config, tmp_path, field):
  setattr(config, field, 'generater')
  with pytest.raises(UserError, match=rf"{field} names the stage 'generater'.*mean generator\?"):
    _plan(config, tmp_path)


def test_methods_without_a_classifier_train_none(config, tmp_path):
  for method in ('vanilla', 'puzzle'):
    config.generator.method = method
    assert list(_status(config, tmp_path)) == ALL[1:]
  config.only = 'classifier'
  assert list(_status(config, tmp_path)) == ['classifier']


def test_another_runs_product_can_be_grafted(config, tmp_path):
  _run(config, tmp_path / 'a', until='classifier')
  config.inputs.classifier = str(tmp_path / 'a' / 'classifier')
  plan = _plan(config, tmp_path / 'b')
  assert plan['classifier'].status is Status.GRAFTED
  assert plan['classifier'].directory == tmp_path / 'a' / 'classifier'
  assert plan['generator'].inputs == {
    'classifier': records.read_done(tmp_path / 'a' / 'classifier').fingerprint
  }
  # A grafted generator needs no classifier.
  _run(config, tmp_path / 'a')
  config.inputs.generator = str(tmp_path / 'a' / 'generator')
  assert list(_status(config, tmp_path / 'b')) == ALL[1:]
  config.inputs.generator = str(tmp_path / 'a')
  with pytest.raises(UserError, match=r'inputs\.generator is .*not a finished stage'):
    _plan(config, tmp_path / 'b')


def _forget(directory, field):
  """Makes the record of a stage one of a version that did not have a field."""
  done = records.read_done(directory)
  holder = done.config
  *parents, name = field
  for part in parents:
    holder = holder[part]
  del holder[name]
  (directory / records.DONE).unlink()
  records.write_done(directory, done.config, done.inputs, done.products)


def test_a_field_that_a_version_before_did_not_have_stands_for_its_default(config, tmp_path):
  _run(config, tmp_path, until='classifier')
  _forget(tmp_path / 'classifier', ('classifier', 'smoothing'))
  assert _status(config, tmp_path)['classifier'] is Status.DONE
  _run(config, tmp_path)
  # What is made from it knows it by the fingerprint that it has.
  assert set(_status(config, tmp_path).values()) == {Status.DONE}
  config.classifier.smoothing = 0.05
  with pytest.raises(UserError, match='Nothing was changed') as error:
    _plan(config, tmp_path)
  assert _fields(error)[0] == "classifier: classifier.smoothing is '<absent>' there and 0.05 here"


def test_a_graft_of_another_kind_is_refused(config, tmp_path):
  _run(config, tmp_path / 'other')
  config.inputs.priors = str(tmp_path / 'other' / 'generator')
  with pytest.raises(UserError, match='a finished stage, but not priors'):
    _plan(config, tmp_path / 'run')


def test_a_need_that_is_no_earlier_stage_is_named(config, tmp_path, monkeypatch):
  wrong = dataclasses.replace(priors.STAGE, needs=lambda config: ('generator', 'nowhere'))
  entries = [wrong if x.name == 'priors' else x for x in stage.stages(config)]
  monkeypatch.setattr(stage, 'stages', lambda config: tuple(entries))
  with pytest.raises(ValueError, match='the stage priors needs nowhere; the stages before it are'):
    _plan(config, tmp_path)


def test_a_declared_field_that_is_none_is_named(config):
  wrong = dataclasses.replace(priors.STAGE, reads=lambda config: ('priors', 'priors.splitz'))
  with pytest.raises(
    ValueError, match=r'the stage priors declares priors\.splitz, which is no field'
  ):
    graph.stage_settings(wrong, config)
  looks = dataclasses.replace(priors.STAGE, looks=('nowhere',))
  with pytest.raises(ValueError, match='the stage priors declares nowhere'):
    looks.view(config)


def test_a_field_of_another_name_than_its_stage_is_refused():
  misnamed = dataclasses.make_dataclass(
    'Misnamed', [('toy', priors.PriorsConfig, stage.field(priors.STAGE))]
  )
  with pytest.raises(ValueError, match='the config field toy holds the stage priors'):
    stage.stages(misnamed)
