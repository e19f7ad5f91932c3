"""DeepLabV3+ from pseudo masks to predictions, interrupted on the way."""

import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import crf as crf_stage
from pnoc_jax.engine import health, loop, networks
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, records, weights
from pnoc_jax.optim import optimizer
from pnoc_jax.stages import predictions, segmentation
from pnoc_jax.stages.common import maps
from tests.stages import contexts, label_maps
from tests.updates import full_step

STEPS = 6


class Memory(label_maps.Memory):
  """Four images, one of them without a class; the masks are told by the colours."""

  def __init__(self, split):
    super().__init__(split)
    self.has_masks = True

  def mask(self, index):
    image = self.example(index)['image']
    mask = np.zeros(image.shape[:2], np.uint8)
    for channel, k in enumerate(label_maps.PRESENT[index]):
      mask[image[..., channel] > 150] = k + 1
    return mask


class Runtime(Runtime):
  def source(self, config, split, *, without=frozenset()):
    del config, without
    return Memory(split)


def _runtime(workdir, mesh, config, *, stop_after=None):
  asked = iter(range(10**6))
  stop = (lambda: False) if stop_after is None else (lambda: next(asked) >= stop_after)
  return Runtime(workdir, mesh, mesh, config.runtime, should_stop=stop)


def _config():
  config = label_maps.make_config()
  config.runtime.log_every, config.runtime.save_every = 1, 2
  config.runtime.tensorboard = False
  ours = config.segmentation
  ours.model.backbone, ours.model.output_stride = 'resnest_tiny', 8
  ours.model.last_stage = 'layer1'
  ours.head.width, ours.head.low_width, ours.head.rates = 8, 4, (1,)
  ours.batch_size, ours.epochs, ours.eval_size, ours.eval_every = 2, 3, 16, 3
  ours.optim.lr, ours.optim.accumulate, ours.optim.rule = 3e-3, 1, optimizer.Rule.ADAM
  ours.transform = transforms.TransformConfig(
    min_size=32, max_size=32, crop=32, shift=2, augment=transforms.Augment.LIGHT
  )
  config.predictions.scales, config.predictions.batch_size = (1.0,), 2
  return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory, one_device):
  """An uninterrupted run on pseudo masks that are the masks: (config, directory)."""
  root, config = tmp_path_factory.mktemp('run'), _config()
  for split in ('train', 'val'):
    source = Memory(split)
    for index, name in enumerate(source.ids):
      path = root / 'pseudo_masks' / split / f'{name}.png'
      maps.write_labels(path, source.mask(index), source.info)
  runtime = _runtime(root, one_device, config)
  _train(config, root / 'segmentation', runtime, root)
  where = config, {'segmentation': root / 'segmentation'}, root / 'predictions', runtime
  contexts.check(predictions.STAGE, *where)
  facts = contexts.run(predictions.STAGE, *where)
  assert facts['images'] == 4
  return config, root


def _train(config, out, runtime, root):
  where = config, {'pseudo_masks': root / 'pseudo_masks'}, out, runtime
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(networks, 'first_variables', full_step.first_variables)
    contexts.check(segmentation.STAGE, *where)
    contexts.run(segmentation.STAGE, *where)


def _predict(config, out, runtime, root):
  inputs = {'segmentation': root / 'segmentation'}
  return contexts.run(predictions.STAGE, config, inputs, out, runtime)


def _pngs(directory: pathlib.Path):
  return {path.stem: path.read_bytes() for path in sorted(directory.glob('*.png'))}


def test_it_learns_from_all_images_and_is_measured(trained):
  _, root = trained
  rows = records.read_jsonl(root / 'segmentation' / 'metrics.jsonl')
  losses = [row['loss/total'] for row in rows if 'loss/total' in row]
  # Three epochs of four images, the one without a class among them.
  assert len(losses) == STEPS
  assert losses[-1] < losses[0]
  (found,) = [row for row in rows if 'eval/miou' in row]
  assert found['step'] == STEPS
  assert 0 < found['eval/miou'] < 100
  # The pseudo masks are the masks.
  assert found['eval/miou'] == found['eval/pseudo/miou']
  assert weights.load_meta(root / 'segmentation')['stage'] == 'segmentation'


def test_a_split_that_is_named_is_measured_though_nothing_is_made_of_it(
  one_device, tmp_path, monkeypatch, capsys
):
  found = []

  def spy(meter, source, config, runtime, *, targets):
    found.append((source.split, meter.prefixes, targets[0]))

  monkeypatch.setattr(segmentation.measure, 'make_measure', spy)
  config = _config()
  config.segmentation.eval_split = 'test'
  runtime = _runtime(tmp_path, one_device, config)
  where = segmentation.STAGE, config, {}, tmp_path, runtime
  segmentation._measure(None, contexts.make(*where))
  # Of it there are no pseudo masks.
  assert found == [('test', ('eval',), None)]
  monkeypatch.setattr(runtime, 'source', lambda *_, **__: label_maps.Memory('test'))
  assert segmentation._measure(None, contexts.make(*where)) is None
  assert 'test has neither masks nor pseudo masks: no curve' in capsys.readouterr().out


def test_a_resumed_training_is_the_same(trained, one_device, tmp_path, monkeypatch):
  config, root = trained
  known, original = [], health.Losses

  def spy(*arguments, before):
    known.append([line['step'] for line in before])
    return original(*arguments, before=before)

  monkeypatch.setattr(health, 'Losses', spy)
  with pytest.raises(loop.Interrupted):
    _train(config, tmp_path, _runtime(tmp_path, one_device, config, stop_after=3), root)
  _train(config, tmp_path, _runtime(tmp_path, one_device, config), root)
  assert known == [[], [1, 2, 3]]
  found, expected = (
    (path / weights.FILE).read_bytes() for path in (tmp_path, root / 'segmentation')
  )
  assert found == expected


def test_every_image_has_a_label_map_in_colours(trained):
  _, root = trained
  source = Memory('val')
  for index, name in enumerate(source.ids):
    path = root / 'predictions' / 'val' / f'{name}.png'
    with Image.open(path) as image:
      assert image.mode == 'P'
      palette = np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(palette[: len(source.info.palette)], source.info.palette)
    labels = images.read_mask(path)
    assert labels.shape == source.size(index)
    assert labels.max() <= len(label_maps.CLASSES)


def test_interrupted_predictions_are_completed(trained, one_device, tmp_path):
  config, root = trained
  with pytest.raises(loop.Interrupted):
    _predict(config, tmp_path, _runtime(tmp_path, one_device, config, stop_after=1), root)
  first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.png')}
  assert 0 < len(first) < 4
  facts = _predict(config, tmp_path, _runtime(tmp_path, one_device, config), root)
  assert facts['images'] == 4 - len(first)
  assert _pngs(tmp_path / 'val') == _pngs(root / 'predictions' / 'val')
  assert all(path.stat().st_mtime_ns == time for path, time in first.items())


def test_the_crf_gets_the_probabilities(trained, one_device, tmp_path, monkeypatch):
  config, root = trained
  config = _config()
  config.predictions.crf.steps = 10
  assert config.predictions.crf.kernels == crf_stage.crf.PROBABILITIES
  seen = []

  class Crf:
    def __init__(self, config, runtime, sizes, labels):
      assert list(sizes) == list(label_maps.SIZES)

    def __call__(self, items):
      for index, image, soft in items:
        assert image.shape[:2] == soft.shape[:2] == label_maps.SIZES[index]
        np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-5)
        seen.append(index)
        yield index, soft.argmax(-1).astype(np.int32)

  monkeypatch.setattr(crf_stage, 'SoftmaxCrf', Crf)
  _predict(config, tmp_path, _runtime(tmp_path, one_device, config), root)
  assert sorted(seen) == [0, 1, 2, 3]
  assert _pngs(tmp_path / 'val') == _pngs(root / 'predictions' / 'val')


def test_the_server_s_archive_is_the_same_every_time(trained, one_device, tmp_path):
  config, root = trained
  config = _config()
  config.predictions.voc_server = True
  found = []
  for number in range(2):
    out = tmp_path / str(number)
    (out / 'val').mkdir(parents=True)
    for name, content in _pngs(root / 'predictions' / 'val').items():
      (out / 'val' / f'{name}.png').write_bytes(content)
    _predict(config, out, _runtime(out, one_device, config), root)
    archive = out / 'voc_server' / 'val.tar.gz'
    found.append(archive.read_bytes())
    with tarfile.open(archive) as file:
      assert file.getnames() == [
        f'results/VOC2012/Segmentation/comp5_test_cls/val_{n}.png' for n in range(4)
      ]
      member = file.extractfile(file.getnames()[2]).read()
    assert member == (out / 'val' / 'val_2.png').read_bytes()
  assert found[0] == found[1]


def test_masks_themselves_are_targets_for_comparison():
  source = Memory('train')
  config = _config().segmentation.transform
  config.shift, config.flip = 0, False
  target, shown = joins.true_masks(source), pipeline.Images.ALL
  examples = pipeline.Examples(source, target=target, images=shown)
  batches = pipeline.train_batches(examples, config, batch_size=4, seed=0)
  with batches:
    batch = next(batches)
  for index, target in zip(batch['index'], batch['target'], strict=True):
    np.testing.assert_array_equal(target, images.resize_nearest(source.mask(index), (32, 32)))


def test_what_cannot_be_learnt_from_is_refused(trained, one_device, tmp_path, monkeypatch):
  _, root = trained
  config, source = _config(), Memory('train')
  runtime = _runtime(tmp_path, one_device, config)

  def check(inputs):
    contexts.check(segmentation.STAGE, config, inputs, tmp_path / 'segmentation', runtime)

  path = tmp_path / 'pseudo_masks' / 'train' / f'{source.ids[0]}.png'
  maps.write_labels(path, np.zeros((3, 4), np.uint8), source.info)
  with pytest.raises(UserError, match='train_0'):
    check({'pseudo_masks': tmp_path / 'pseudo_masks'})
  config.priors.splits = ('val',)
  with pytest.raises(UserError, match='pseudo masks are of these splits'):
    check({'pseudo_masks': root / 'pseudo_masks'})
  config.segmentation.labels, source.has_masks = segmentation.Labels.TRUE, False
  monkeypatch.setattr(runtime, 'source', lambda *_: source)
  with pytest.raises(UserError, match='has no masks'):
    check({})
  assert segmentation.STAGE.needs(config) == ()
