"""What a stage is to the rest: one more is added, and none reads what it did not declare."""

import dataclasses
import os
import pathlib
import re
import signal
import sys
from unittest import mock

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from pnoc_jax import config as config_lib
from pnoc_jax import config_flags as package_flags
from pnoc_jax.engine import health, log, loop, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records, weights
from pnoc_jax.parallel import company
from pnoc_jax.report import files
from pnoc_jax.runs import doctor, graph, runner
from pnoc_jax.stages import pseudo_masks
from pnoc_jax.stages.common import maps, stage
from tests.configs import tiny
from tests.stages import contexts, label_maps, toy

TRAIN, VAL = 16, 8
STAGES = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}
RUN_BY = {
  'classifier': ('test_options', '_interrupted(classifier_stage.STAGE'),
  'generator': ('test_options', '_interrupted(generator_stage.STAGE'),
  'priors': ('test_lpcam', 'contexts.make(priors.STAGE'),
  'c2am': ('test_c2am', 'contexts.run(c2am.STAGE'),
  'saliency_priors': ('test_c2am', 'contexts.run(saliency_priors.STAGE'),
  'saliency': ('test_saliency', 'contexts.run(saliency.STAGE'),
  'affinity_labels': ('test_affinity_labels', 'contexts.run(affinity_labels.STAGE'),
  'affinity': ('test_affinity_stage', 'contexts.run(affinity.STAGE'),
  'random_walk': ('test_random_walk_stage', 'contexts.run(random_walk.STAGE'),
  'pseudo_masks': ('test_pseudo_masks', 'contexts.run(pseudo_masks.STAGE'),
  'segmentation': ('test_segmentation', 'contexts.run(segmentation.STAGE'),
  'predictions': ('test_segmentation', 'contexts.run(predictions.STAGE'),
  'evaluation': ('test_evaluation', 'contexts.run(evaluation.STAGE'),
  'report': ('test_stage', 'runner.execute('),
}
"""The file here that runs each stage through its view of the config, and the call that does.

The classifier, the generator and the affinity network begin to train there. Beside them,
`tests/test_pipeline.py` runs all stages to their end by the launcher.
"""


@pytest.fixture
def make_config(monkeypatch):
  """Makes the config of a run of a toy stage alone; its images are 16 px."""
  # Runs in this process leave the tests' compilation cache alone.
  monkeypatch.setattr(runner.compiler, 'setup_cache', lambda *_, **__: None)

  def make(entry=toy.STAGE):
    config = toy.make_class(entry)()
    config.dataset.shapes.size = 16
    config.dataset.shapes.train, config.dataset.shapes.val = TRAIN, VAL
    config.runtime.log_every, config.runtime.save_every = 1, 2
    config.runtime.tensorboard = False
    config.evaluation.of = ('toy',)
    return config

  return make


def _pngs(workdir):
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in sorted((workdir / 'toy').rglob('*.png'))
  }


def test_a_toy_stage_trains_is_scored_and_has_its_sections(make_config, tmp_path, capsys):
  config = make_config()
  runner.execute(config, tmp_path)
  printed = capsys.readouterr().out
  assert re.search(r'toy +run +16 toys above 0\.5', printed)
  assert 'Toy maps of train:' in printed and 'Toy maps of val:' in printed
  # A classifier that nobody reads is not trained, nor are the others.
  names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
  assert names == {'toy', 'evaluation', 'report'}
  rows = records.read_jsonl(tmp_path / 'toy' / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3, 4]
  assert weights.load_meta(tmp_path / 'toy')['stage'] == 'toy'
  done = records.read_done(tmp_path / 'toy')
  assert done.products['images'] == TRAIN + VAL == len(_pngs(tmp_path))
  # All that its product depends on, and nothing else.
  assert set(done.config) == {'seed', 'dataset', 'toy', 'toy.init_digest', 'priors.splits'}
  assert 'shown' not in done.config['toy']
  for split, count in (('train', TRAIN), ('val', VAL)):
    found = records.read_json(tmp_path / 'evaluation' / f'toy_{split}.json')
    assert found['images'] == count and found['fingerprint'] == done.fingerprint
    assert sum(map(sum, found['confusion'])) == count * 16**2
  page = (tmp_path / 'report' / 'index.html').read_text()
  headings = re.findall('<summary><h3>([^<0-9]*)</h3>', page)
  assert headings == ['Toy maps of train', 'Toy maps of val', 'Training of the toy']
  # Its maps are scored by image, and the worst come first.
  first = page[: page.index('>Numbers</h2>')]
  assert 'Toy maps: the worst, IoU' in first and 'toy map of train_000' in first
  made = records.read_json(tmp_path / files.MADE)
  assert made.keys() >= {'command', 'versions', 'machine', 'date'}
  assert f'jax {jax.__version__}' in made['versions'] and made['date'] in page
  assert 'Toy map of train_00000' in page and 'mIoU of the toy maps, val' in page


def test_a_run_compares_syncs_and_records_what_it_promises(make_config, tmp_path, monkeypatch):
  """Each part has tests of its own; here it is seen that a run calls it, and when."""
  told, origin = [], {'name': 'hub:a/b', 'sha256': '0', 'revision': 'c'}
  write_done, sync = records.write_done, atomic.sync_folders

  def synced(paths):
    paths = list(paths)
    told.extend(f'synced {path.parent.relative_to(tmp_path)}' for path in paths)
    sync(paths)

  def done(directory, *given):
    told.append(f'done {directory.name}')
    return write_done(directory, *given)

  monkeypatch.setattr(
    company.Company, 'compare', lambda _, facts: told.extend(f'compared {x}' for x in facts)
  )
  monkeypatch.setattr(atomic, 'sync_folders', synced)
  monkeypatch.setattr(records, 'write_done', done)
  monkeypatch.setattr(graph, 'origins', lambda *_: {'toy.init': origin})
  monkeypatch.setattr(
    health.Losses, 'look', lambda _, step, metrics: ['toy: it looks dead'] * (step == 3)
  )
  runner.execute(make_config(), tmp_path)
  begun = told.index('done toy')
  compared = {x.removeprefix('compared ') for x in told[:begun] if x.startswith('compared ')}
  assert compared >= {'seed', 'the code of pnoc_jax', 'the version of JAX', 'toy'}
  assert compared >= {'ids and labels of train', 'ids and labels of val'}
  assert {'synced toy/train', 'synced toy/val', 'synced toy'} <= set(told[:begun])
  assert records.read_done(tmp_path / 'toy').products['toy.init'] == origin
  assert records.read_json(tmp_path / 'toy' / health.FILE) == ['toy: it looks dead']
  assert 'toy: it looks dead' in (tmp_path / 'report' / 'index.html').read_text()


def test_a_toy_stage_that_is_done_is_skipped_and_another_config_is_refused(make_config, tmp_path):
  calls = []

  def run(context):
    calls.append(context.config.toy.threshold)
    return toy.run(context)

  config = make_config(dataclasses.replace(toy.STAGE, run=run))
  runner.execute(config, tmp_path)
  config.toy.shown, config.toy.eval_every = 1, 5  # No product depends on these.
  runner.execute(config, tmp_path)
  assert calls == [0.5]
  before = _pngs(tmp_path)
  config.toy.threshold = 0.25
  with pytest.raises(UserError, match=r'toy: toy\.threshold is 0\.5 there and 0\.25 here'):
    runner.execute(config, tmp_path)
  assert calls == [0.5] and _pngs(tmp_path) == before
  config.rerun = 'toy'
  runner.execute(config, tmp_path)
  assert calls == [0.5, 0.25] and _pngs(tmp_path) != before
  assert (tmp_path / 'toy.old1' / records.DONE).is_file()
  # Another run takes it as it is.
  config.rerun, config.inputs.toy = '', str(tmp_path / 'toy')
  config.toy.threshold = 0.75
  runner.execute(config, tmp_path / 'other')
  assert calls == [0.5, 0.25] and not (tmp_path / 'other' / 'toy').exists()
  scores = (path / 'evaluation' / 'toy_val.json' for path in (tmp_path, tmp_path / 'other'))
  assert len({path.read_bytes() for path in scores}) == 1


def test_a_toy_stage_that_is_interrupted_goes_on(make_config, tmp_path, monkeypatch):
  config, whole, parts = make_config(), tmp_path / 'whole', tmp_path / 'parts'
  runner.execute(config, whole)

  def interrupt(module, name, count):
    """SIGTERM comes with the given call of a function."""
    calls, original = iter(range(count)), getattr(module, name)

    def spy(*arguments, **options):
      if next(calls, None) == count - 1:
        os.kill(os.getpid(), signal.SIGTERM)
      return original(*arguments, **options)

    with monkeypatch.context() as patch:
      patch.setattr(module, name, spy)
      with pytest.raises(loop.Interrupted):
        runner.execute(config, parts)
    assert records.read_done(parts / 'toy') is None

  interrupt(log.MetricWriter, 'write', 3)
  rows = records.read_jsonl(parts / 'toy' / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3]
  interrupt(maps, 'write_labels', 5)
  # What was handed to the writing threads is written, too.
  kept = len(_pngs(parts))
  assert 5 <= kept < TRAIN
  runner.execute(config, parts)
  assert records.read_done(parts / 'toy').products['images'] == TRAIN + VAL - kept
  assert _pngs(parts) == _pngs(whole)
  saved = ((path / 'toy' / weights.FILE).read_bytes() for path in (whole, parts))
  assert len(set(saved)) == 1


def test_a_toy_stage_is_known_to_what_looks_before_the_run(make_config, tmp_path):
  config = make_config()
  report = doctor.examine(config, tmp_path / 'run')
  told = {finding.about: finding.what for finding in report.findings}
  assert 'on a device at batch 8' in told['memory of toy']
  assert re.search(r'\(toy [\d.]+ KiB\)', told['disk'])
  config.toy.threshold, config.evaluation.of = 2.0, ('toys',)
  with pytest.raises(
    UserError, match=r'(?s)toy\.threshold is 2\.0.*known: priors, .*, toy'
  ) as error:
    config_lib.validate(config)
  assert 'evaluation.of names toys' in str(error.value)
  config = make_config()
  config.toy.batch_size = config.classifier.batch_size = 22
  config.only = 'classifier,toy'
  # All at once, in the order of the stages.
  with pytest.raises(UserError) as error:
    runner.execute(config, tmp_path / 'run')
  said = str(error.value).splitlines()
  assert [line.split('.')[0] for line in said] == ['classifier', 'toy']
  assert '11 images on 2 of them. Take 21 or 24; or 2 with toy.optim.accumulate=11' in said[1]


def test_the_splits_of_a_stage_are_opened_where_the_run_has_it():
  entry = dataclasses.replace(toy.STAGE, splits=lambda config: ('test', 'val'))
  config = toy.make_class(entry)()
  assert graph.splits(config) == ['train', 'val']
  config.evaluation.of = ('toy',)
  assert graph.splits(config) == ['train', 'val', 'test']
  config.evaluation.of, config.predictions.splits = ('predictions',), ('test', 'train')
  assert graph.splits(config) == ['train', 'val', 'test']
  config.only = 'toys'
  with pytest.raises(UserError, match=r"only names the stage 'toys'.*did you mean toy\?"):
    graph.splits(config)


def _parsed(config, *words):
  """The config that a command line gives."""
  argv, known = ['run', *(f'--config.{word}' for word in words)], flags.FlagValues()
  with mock.patch.object(sys, 'argv', argv):
    holder = config_flags.DEFINE_config_dataclass('config', config, flag_values=known)
    known(argv)
  return holder.value


@pytest.mark.parametrize('kind', [config_lib.PipelineConfig, toy.make_class()])
def test_every_stage_but_the_last_has_a_flag_for_another_runs_product(kind):
  *names, last = (entry.name for entry in stage.stages(kind))
  config = _parsed(kind(), *(f'inputs.{name}=runs/{name}' for name in names))
  assert dataclasses.asdict(config.inputs) == {name: f'runs/{name}' for name in names}
  assert ('toy' in names) == (kind is not config_lib.PipelineConfig)
  assert last == 'report' and dataclasses.asdict(kind().inputs) == dict.fromkeys(names, '')
  with pytest.raises(UserError, match=r"inputs has no field 'random_wlk'; .*inputs\.random_walk"):
    package_flags._check_field(config, 'config', ['inputs', 'random_wlk'])


def test_a_stage_of_its_own_has_flags():
  config = _parsed(toy.make_class()(), 'toy.threshold=0.25', 'toy.optim.rule=adam')
  assert (config.toy.threshold, config.toy.optim.rule.value) == (0.25, 'adam')


def test_a_view_lets_pass_what_is_declared_and_nothing_else():
  config = config_lib.PipelineConfig()
  view = stage.View(config, 'toy', ('affinity', 'generator.model', 'priors.splits', 'seed'))
  assert view.affinity is config.affinity and view.affinity.optim.lr == 0.1
  assert view.generator.model is config.generator.model
  assert view.priors.splits == ('train', 'val') and view.seed == 0
  for field, named in (
    ('name', 'name'),
    ('classifier.model', 'classifier'),
    ('affinity_labels', 'affinity_labels'),  # It begins like one that is declared.
    ('generator.optim.lr', r'generator\.optim'),
    ('priors.scales', r'priors\.scales'),
    ('priors.lpcam.steps', r'priors\.lpcam'),
  ):
    with pytest.raises(stage.UndeclaredRead, match=f'the stage toy reads {named}, which it does'):
      settings.lookup(view, field)
  # It is no AttributeError, which defaults would hide.
  with pytest.raises(stage.UndeclaredRead, match=r'reads generator\.method, which'):
    getattr(view.generator, 'method', None)
  with pytest.raises(AttributeError, match='no_such_field'):
    _ = view.no_such_field


def test_a_stage_sees_its_reads_its_looks_the_seed_and_the_data():
  config = config_lib.PipelineConfig()
  entry = dataclasses.replace(
    toy.STAGE, name='c2am', reads=lambda config: ('c2am', 'priors.splits'), looks=('saliency.tiny',)
  )
  view = entry.view(config)
  assert view.c2am is config.c2am and view.dataset is config.dataset and view.seed == config.seed
  assert (view.priors.splits, view.saliency.tiny) == (('train', 'val'), 100)
  for read in (
    lambda: view.saliency.width,
    lambda: view.priors.scales,
    lambda: view.runtime,
    lambda: view.inputs,
  ):
    with pytest.raises(
      stage.UndeclaredRead, match=r'name it in Stage\.reads .* else in Stage\.looks'
    ):
      read()
  assert dataclasses.replace(entry, looks=stage.ALL).view(config) is config


def test_a_stage_that_reads_what_it_did_not_declare_does_not_run(make_config, tmp_path):
  def run(context):
    facts = toy.run(context)
    return facts | {'method': context.config.generator.method}

  config = make_config(dataclasses.replace(toy.STAGE, run=run))
  with pytest.raises(
    stage.UndeclaredRead, match='the stage toy reads generator, which it does not'
  ):
    runner.execute(config, tmp_path)
  assert records.read_done(tmp_path / 'toy') is None


def test_the_pseudo_masks_do_not_run_without_what_they_declare(tmp_path):
  inputs, config = label_maps.write_inputs(tmp_path / 'made'), label_maps.make_config()
  config.pseudo_masks.crf.steps = 0
  where = config, inputs, tmp_path / 'out', label_maps.make_runtime(tmp_path)
  less = dataclasses.replace(pseudo_masks.STAGE, reads=lambda config: ('pseudo_masks',))
  with pytest.raises(stage.UndeclaredRead, match='the stage pseudo_masks reads priors, which'):
    contexts.run(less, *where)
  assert not (tmp_path / 'out').exists()
  assert contexts.run(pseudo_masks.STAGE, *where)['images'] == 8


@pytest.mark.parametrize('name', STAGES)
def test_what_a_stage_declares_is_there(name):
  config, entry = tiny.get_config(), STAGES[name]
  view = entry.view(config)
  for field in (*entry.declared(config), *entry.looks):
    if field != '*':
      assert settings.lookup(view, field) == settings.lookup(config, field)
  own = [field for field in entry.declared(config) if field.partition('.')[0] == name]
  assert own[:1] == [name], 'a stage depends on its own config'


@pytest.mark.parametrize('name', STAGES)
def test_the_check_of_a_stage_reads_what_it_declares(name, one_device, tmp_path):
  config = tiny.get_config()
  runtime = Runtime(tmp_path, one_device, one_device, config.runtime)
  contexts.check(STAGES[name], config, {}, tmp_path / name, runtime)


def test_every_stage_is_run_through_its_view_somewhere():
  assert list(RUN_BY) == list(STAGES)
  for file, call in RUN_BY.values():
    assert call in (pathlib.Path(__file__).parent / f'{file}.py').read_text(encoding='utf-8')
