"""Scores of products that were made up from the masks, and when they are taken."""

import json

import jax
import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.data import sources as sources_lib
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, products, records
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.runs import graph, runner
from pnoc_jax.stages import evaluation
from pnoc_jax.stages.common import saliency_scores, scores, stage
from tests.data import folders
from tests.stages import contexts

SIZE = 24
STAGES = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}


@pytest.fixture
def config():
  result = config_lib.PipelineConfig()
  result.dataset.shapes.size = SIZE
  result.dataset.shapes.train, result.dataset.shapes.val = 6, 3
  result.evaluation.of = config_lib.SCORED
  return result


@pytest.fixture
def runtime(config, tmp_path):
  mesh = meshes.make_mesh(jax.devices()[:1])
  return Runtime(tmp_path, mesh, mesh, config.runtime)


@pytest.fixture
def directories(config, tmp_path):
  """Products of every stage that are right everywhere, but for the predictions."""
  found = {name: tmp_path / name for name in config_lib.SCORED}
  for split in ('train', 'val'):
    source = sources_lib.open_source(config.dataset, split)
    for index, image_id in enumerate(source.ids):
      mask = source.mask(index)
      keys = np.append(0, np.flatnonzero(source.labels[index]) + 1).astype(np.int32)
      maps = np.float16(mask[None] == keys[1:, None, None])
      low = maps[:, ::4, ::4].astype(np.float32)
      logits = np.where(source.labels[index] > 0, 4, -4).astype(np.float32)
      products.write_prior(found['priors'] / split / f'{image_id}.npz', keys, low, maps, logits)
      products.write_walk(found['random_walk'] / split / f'{image_id}.npz', keys, maps)
      salient = np.uint8(255 * (mask > 0))
      undecided = np.where(np.arange(SIZE) < 6, 255, mask).astype(np.uint8)
      for place, array in (
        ('saliency_priors', salient),
        ('saliency_priors/maps', salient),
        ('saliency', salient),
        ('affinity_labels', undecided),
        ('pseudo_masks', mask),
        ('predictions', np.zeros_like(mask)),
      ):
        _write(tmp_path / place / split / f'{image_id}.png', array)
  for name, directory in found.items():
    records.write_done(directory, {'of': name}, {}, {})
  return found


def _write(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  images.write_png(path, np.asarray(array, np.uint8))


def test_every_product_has_its_score_in_a_file(config, runtime, directories, tmp_path, capsys):
  config.evaluation.crf_splits = ('val',)
  config.evaluation.crf.steps = 0
  out = tmp_path / 'evaluation'
  contexts.run(evaluation.STAGE, config, directories, out, runtime)
  results = {path.stem: records.read_json(path) for path in out.glob('*.json')}
  both = ('priors', 'saliency_priors', 'saliency', 'random_walk', 'pseudo_masks')
  expected = {f'{name}_{split}' for name in both for split in ('train', 'val')}
  # What is made of one split only is scored there.
  one = {'affinity_labels_train', 'priors_crf_val', 'predictions_val'}
  assert set(results) == expected | one
  for name, result in results.items():
    if 'predictions' not in name:
      assert result['fp'] == result['fn'] == 0 and result['iou']['background'] > 99.99, name
  saliency = results['saliency_train']
  assert set(saliency['iou']) == {'background', 'salient'}
  assert saliency['miou'] == pytest.approx(100)
  for name in ('segmentation', 'priors'):
    assert saliency[name]['iou'] == pytest.approx(results['pseudo_masks_train']['iou'])
  assert results['saliency_priors_train']['maps']['threshold'] == 0.05
  assert results['affinity_labels_train']['undecided'] == pytest.approx(25)
  matrix = np.array(results['predictions_val']['confusion'])
  assert matrix.sum() == 3 * SIZE**2 and matrix[:, 0].sum() == matrix.sum()
  done = records.read_done(directories['saliency'])
  assert saliency['fingerprint'] == done.fingerprint
  printed = capsys.readouterr().out
  assert 'Pseudo masks of val:' in printed and 'undecided 25.0 %' in printed


def test_splits_of_products_that_are_not_scored_are_not_opened(
  config, runtime, directories, tmp_path
):
  config.evaluation.of, config.predictions.splits = ('priors',), ('nowhere',)
  contexts.run(evaluation.STAGE, config, directories, tmp_path / 'out', runtime)
  assert len(list((tmp_path / 'out').iterdir())) == 2


def test_scores_that_are_up_to_date_stay(config, runtime, directories, tmp_path):
  out = tmp_path / 'evaluation'
  contexts.run(evaluation.STAGE, config, directories, out, runtime)
  for path in out.iterdir():
    path.write_text(json.dumps({**records.read_json(path), 'mark': True}))
  records.write_done(directories['saliency'], {'of': 'another'}, {}, {})
  contexts.run(evaluation.STAGE, config, directories, out, runtime)
  anew = {path.stem for path in out.iterdir() if 'mark' not in records.read_json(path)}
  assert anew == {'saliency_train', 'saliency_val'}
  # What is combined with the priors follows them too.
  records.write_done(directories['priors'], {'of': 'another'}, {}, {})
  evaluation.score_stage(config, STAGES['saliency_priors'], directories, out, runtime)
  assert 'mark' not in records.read_json(out / 'saliency_priors_val.json')


class _Reversed:
  """A split in the other order."""

  def __init__(self, source):
    self.info, self.split, self.has_masks = source.info, source.split, True
    self.ids, self.labels, self._source = source.ids[::-1], source.labels[::-1], source

  def mask(self, index):
    return self._source.mask(len(self.ids) - 1 - index)


def test_draws_do_not_depend_on_the_order(config, directories):
  source = sources_lib.open_source(config.dataset, 'train')
  for image_id in source.ids:  # All of it is salient: the background's classes are drawn.
    _write(directories['saliency'] / 'train' / f'{image_id}.png', np.full((SIZE, SIZE), 255))
  results = [
    saliency_scores.score_saliency(scores.Split(x, seed), directories)
    for x, seed in ((source, 0), (_Reversed(source), 0), (source, 1))
  ]
  assert results[0] == results[1]
  assert results[0]['segmentation'] != results[2]['segmentation']
  assert results[0]['segmentation']['iou']['background'] == 0


def _damage_missing(path):
  path.unlink()


def _damage_size(path):
  _write(path, np.zeros((SIZE + 1, SIZE)))


def _damage_label(path):
  _write(path, np.full((SIZE, SIZE), 99))


def _damage_cut(path):
  path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
  ('name', 'damage', 'message'),
  [
    ('saliency', _damage_missing, '1 products of saliency of val are missing.*val_00001'),
    ('saliency_priors/maps', _damage_size, r'val_00001.png: is \(25, 24\), but the image'),
    ('pseudo_masks', _damage_label, 'val_00001.png: holds the value 99; classes are 0..6'),
    ('predictions', _damage_cut, 'val_00001.png: this mask cannot be read'),
  ],
)
def test_a_foreign_product_is_named(config, runtime, directories, tmp_path, name, damage, message):
  damage(tmp_path / name / 'val' / 'val_00001.png')
  out, entry = tmp_path / 'evaluation', STAGES[name.partition('/')[0]]
  with pytest.raises(UserError, match=message):
    evaluation.score_stage(config, entry, directories, out, runtime)
  assert not (out / f'{entry.name}_val.json').exists()


def test_the_score_of_a_stage_follows_it(config, runtime, directories, tmp_path):
  out = tmp_path / 'evaluation'

  def planned(status):
    stages = [
      graph.Planned(STAGES[name], directory, status, {}, {})
      for name, directory in directories.items()
    ]
    return [*stages, graph.Planned(evaluation.STAGE, out, status, {}, {})]

  config.evaluation.of = ('priors', 'pseudo_masks')
  runner._score(config, STAGES['saliency'], planned(graph.Status.RUN), runtime)
  assert not out.exists()
  runner._score(config, STAGES['priors'], planned(graph.Status.RUN), runtime)
  assert sorted(path.name for path in out.iterdir()) == ['priors_train.json', 'priors_val.json']
  # Of an evaluation that will run again, the old scores are kept elsewhere, once.
  again = planned(graph.Status.RERUN)
  for name in ('priors', 'pseudo_masks'):
    runner._score(config, STAGES[name], again, runtime)
  assert len(list(out.iterdir())) == 4
  assert len(list((tmp_path / 'evaluation.old1').iterdir())) == 2
  assert not (tmp_path / 'evaluation.old2').exists()
  # One that is no part of this call keeps what it has.
  records.write_done(out, {}, {}, {})
  (out / 'priors_train.json').unlink()
  runner._score(config, STAGES['priors'], planned(graph.Status.DONE), runtime)
  assert not (out / 'priors_train.json').exists()


def test_a_product_is_scored_on_those_of_its_splits_that_are_wanted(config):
  def splits(name):
    entry = STAGES[name]
    return evaluation._splits(config, entry, entry.scores[0])

  config.predictions.splits = ('val', 'test')
  assert splits('priors') == ('train', 'val')
  config.evaluation.splits = ('test', 'val')
  config_lib.validate(config)
  assert splits('priors') == ('val',)
  assert splits('predictions') == ('val', 'test')


def test_splits_whose_scores_would_share_a_file_are_refused(config):
  config.priors.splits, config.evaluation.crf_splits = ('train', 'val', 'crf_val'), ('val',)
  with pytest.raises(UserError, match=r'crf_val and val would .* priors_crf_val\.json'):
    config_lib.validate(config)


def test_an_unknown_stage_is_refused(config):
  config.evaluation.of = ('priors', 'prior')
  with pytest.raises(
    UserError, match=r'evaluation\.of names prior; known: priors, saliency_priors'
  ):
    config_lib.validate(config)


@pytest.fixture
def masks(config, tmp_path):
  """The masks of a folder that are its pseudo masks, too, and are scored as such."""
  config.dataset.name, config.dataset.root = 'folder', str(folders.write(tmp_path / 'data'))
  config.evaluation.of, config.evaluation.splits = ('pseudo_masks',), ('train',)
  masks = tmp_path / 'data' / 'masks'
  for name in 'abcd':
    _write(tmp_path / 'pseudo_masks/train' / f'{name}.png', images.read_mask(masks / f'{name}.png'))
  records.write_done(tmp_path / 'pseudo_masks', {}, {}, {})
  return masks


def _mend(path):
  mask = images.read_mask(path)
  mask[:4] = 1 - (mask[:4] > 0)
  _write(path, mask)


def test_masks_that_were_mended_are_scored_again(config, runtime, masks, tmp_path):
  out, inputs = tmp_path / 'evaluation', {'pseudo_masks': tmp_path / 'pseudo_masks'}
  assert evaluation.stale(config, inputs, out, runtime) == ['pseudo_masks of train']
  contexts.run(evaluation.STAGE, config, inputs, out, runtime)
  before = records.read_json(out / 'pseudo_masks_train.json')
  assert evaluation.stale(config, inputs, out, runtime) == []
  _mend(masks / 'a.png')
  assert evaluation.stale(config, inputs, out, runtime) == ['pseudo_masks of train']
  contexts.run(evaluation.STAGE, config, inputs, out, runtime)
  after = records.read_json(out / 'pseudo_masks_train.json')
  assert before['miou'] == pytest.approx(100) and after['miou'] < 95


def test_a_run_that_is_done_scores_again_after_masks_were_mended(
  config, runtime, masks, tmp_path, capsys, monkeypatch
):
  out, inputs = tmp_path / 'evaluation', {'pseudo_masks': tmp_path / 'pseudo_masks'}
  contexts.run(evaluation.STAGE, config, inputs, out, runtime)

  def plan(*_):
    entries = STAGES['pseudo_masks'], evaluation.STAGE
    return [graph.Planned(x, tmp_path / x.name, graph.Status.DONE, {}, {}) for x in entries]

  monkeypatch.setattr(graph, 'make_plan', plan)
  assert not any(item.runs for item in runner.make_plan(config, {}, runtime))
  _mend(masks / 'a.png')
  assert [item.runs for item in runner.make_plan(config, {}, runtime)] == [False, True]
  assert 'scored again: pseudo_masks of train' in capsys.readouterr().out


@pytest.fixture
def unlabelled(config, runtime, masks):
  """No image of the folder's split has a label, and all have masks."""
  table = masks.parent / 'image_labels.csv'
  table.write_text('id,labels\n' + ''.join(f'{name},\n' for name in 'abcd'))
  config.dataset.val_split, config.priors.splits = 'train', ('train',)
  assert not runtime.source(config.dataset, 'train').labels.any()


def test_a_split_without_labels_is_refused_before_work(config, runtime, unlabelled, tmp_path):
  with pytest.raises(UserError, match=r'priors\.splits names train, in which no image has a label'):
    contexts.check(STAGES['priors'], config, {}, tmp_path / 'priors', runtime)


def test_without_labels_only_what_is_of_all_images_is_scored(
  config, runtime, unlabelled, tmp_path, capsys
):
  config.evaluation.of = config_lib.SCORED
  config.predictions.splits, config.evaluation.splits = ('train',), ()
  for name in config_lib.SCORED:
    records.write_done(tmp_path / name, {}, {}, {})
  for path in (tmp_path / 'pseudo_masks' / 'train').iterdir():
    _write(tmp_path / 'predictions' / 'train' / path.name, images.read_mask(path))
  out, inputs = tmp_path / 'evaluation', {x: tmp_path / x for x in config_lib.SCORED}
  contexts.run(evaluation.STAGE, config, inputs, out, runtime)
  assert {x.stem for x in out.iterdir()} == {'pseudo_masks_train', 'predictions_train'}
  assert 'train: no image has a label' in capsys.readouterr().out
