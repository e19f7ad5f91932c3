"""What is said of priors without masks, against what follows from images of plain squares."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine import loop
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import products, records
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.stages import evaluation
from pnoc_jax.stages.common import proxy, scores, stage

SIZE, THRESHOLD = 16, 0.3
STAGES = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}


class Source:
  """Four images of a grey ground with a square in the colour of each of their classes."""

  info = info.DatasetInfo('squares', ('red', 'green'), 'ground', ((0, 0, 0),) * 3)
  split, has_masks = 'train', False
  ids = ('a', 'b', 'c', 'd', 'nothing')
  labels = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], np.float32)

  def __len__(self):
    return len(self.ids)

  def example(self, index):
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    for k in np.flatnonzero(self.labels[index]):
      image[square(k) > 0, k] = 240
    return info.make_example(image, self.labels, index)

  def mask(self, index):
    return None

  def size(self, index):
    return SIZE, SIZE

  def files(self, index):
    return ()


def square(k):
  found = np.zeros((SIZE, SIZE))
  found[8 * k + 1 : 8 * k + 7, 4:12] = 1
  return found


class Network(nn.Module):
  """The map of a class is how much its colour stands out, less what the mean image has."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    weights = self.param('weights', lambda _: jax.numpy.array([[2.0, -1], [-1, 2.0], [-1, -1]]))
    return image @ weights


@pytest.fixture
def run(tmp_path, monkeypatch):
  """(config, runtime, directories): priors that are right but for that of `d`, and a generator."""
  monkeypatch.setattr(proxy.networks, 'build', lambda *_: Network())
  monkeypatch.setattr(proxy.networks, 'stride', lambda *_: 1)
  variables = Network().init(jax.random.key(0), np.zeros((1, 4, 4, 3)))
  monkeypatch.setattr(proxy.networks, 'load', lambda *_: variables)
  config, source = config_lib.PipelineConfig(), Source()
  config.priors.splits, config.priors.scales = ('train',), (1.0,)
  config.evaluation.of, config.evaluation.crf.steps = ('priors',), 0
  for index, image_id in enumerate(source.ids[:4]):
    keys = np.flatnonzero(source.labels[index])
    high = np.stack([square(k) for k in keys]).astype(np.float16)
    if image_id == 'd':
      # Half of the square, and unsure of the other half.
      high[:, :, 8:] *= 0.2
    low, logits = high[:, ::4, ::4].astype(np.float32), np.array([0.0, 2.0], np.float32)
    path = tmp_path / 'priors' / 'train' / f'{image_id}.npz'
    products.write_prior(path, np.append(0, keys + 1).astype(np.int32), low, high, logits)
  for name in ('priors', 'generator'):
    records.write_done(tmp_path / name, {}, {}, {})
  mesh = meshes.make_mesh(jax.devices()[:1])
  runtime = Runtime(tmp_path, mesh, mesh, config.runtime)
  monkeypatch.setattr(runtime, 'source', lambda *_, **__: source)
  return config, runtime, {'priors': tmp_path / 'priors'}


def test_a_proxy_says_what_follows_from_the_images(run):
  config, runtime, directories = run
  split = scores.Split(Source(), crf=config.evaluation.crf, runtime=runtime, config=config)
  inputs = directories | {'generator': runtime.workdir / 'generator'}
  found = proxy.measure(split, inputs)
  assert found['images'] == 4 and found['crf'] is None and found['by_image'] == {}
  # Of `d`, 6 x 4 pixels of 256 have 0.2, between 0.1 and 0.4.
  assert found['undecided'] == pytest.approx(100 * 24 / 256 / 4)
  # The network's maps are the squares, in both images; of `d` the prior has half of one.
  half = (24 / 48 + 208 / 232) / 2
  assert found['views'] == pytest.approx(100 * (3 + half) / 4, abs=1e-3)
  assert found['whole'] == pytest.approx(100 * np.mean([0.5] * 3 + [1 / (1 + np.exp(-2))] * 2))
  # Erased images by hand: what the prior marks takes the mean colour.
  mean, std = np.array(info.IMAGENET_MEAN), np.array(info.IMAGENET_STD)
  weights = np.array([[2.0, -1], [-1, 2.0], [-1, -1]])
  expected = []
  for index, k in ((0, 0), (1, 1), (2, 0), (2, 1), (3, 0)):
    image = Source().example(index)['image'].copy()
    marked = square(k) > 0
    marked[:, 8:] &= index != 3
    image[marked] = np.round(255 * mean)
    logit = (((image / 255 - mean) / std) @ weights).mean((0, 1))[k]
    expected.append(100 / (1 + np.exp(-logit)))
  assert found['erased'] == pytest.approx(np.mean(expected), abs=0.01)
  red = found['by_class']['red']
  assert red['images'] == 3
  assert red['erased'] == pytest.approx(np.mean([expected[i] for i in (0, 2, 4)]), abs=0.01)
  # Without the network, what needs none.
  alone = proxy.measure(split, directories)
  assert alone['views'] is None and alone['erased'] is None
  assert alone['whole'] == found['whole'] and alone['undecided'] == found['undecided']


def test_maps_that_show_nothing_agree_with_nothing(run, monkeypatch):
  config, runtime, directories = run
  config.evaluation.crf.steps = 3
  monkeypatch.setattr(proxy.crf_lib.LabelCrf, '__init__', lambda *_, **__: None)
  monkeypatch.setattr(
    proxy.crf_lib.LabelCrf, '__call__', lambda _, items: ((x[0], x[2]) for x in items)
  )
  for image_id, keys in (('a', [0, 1]), ('c', [0, 1, 2])):
    high = np.zeros((len(keys) - 1, SIZE, SIZE), np.float16)
    high[1:] = square(1)
    low, logits = high[:, ::4, ::4].astype(np.float32), np.zeros(2, np.float32)
    path = directories['priors'] / 'train' / f'{image_id}.npz'
    products.write_prior(path, np.array(keys, np.int32), low, high, logits)
  split = scores.Split(Source(), crf=config.evaluation.crf, runtime=runtime, config=config)
  found = proxy.measure(split, directories | {'generator': runtime.workdir / 'generator'})
  # Of `a` nothing is shown, of `c` one class of two.
  assert found['by_image'] == {'a': 0.0, 'b': 100.0, 'c': 100.0, 'd': 100.0}
  assert found['shown'] == pytest.approx(100 * 3 / 5)
  assert found['by_class']['red']['shown'] == pytest.approx(100 / 3)
  assert found['by_class']['green']['shown'] == 100
  # The network's own map of `c` has both squares.
  both, half = (48 / 48 + 160 / 208 + 0) / 3, (24 / 48 + 208 / 232) / 2
  assert found['views'] == pytest.approx(100 * (0 + 1 + both + half) / 4, abs=1e-3)


@pytest.mark.parametrize(
  ('asked', 'part'),
  [(2, 'scoring priors'), (5, 'CRF of priors'), (9, 'single views'), (13, 'train, erased')],
)
def test_a_signal_ends_the_proxy_at_the_next_image(run, monkeypatch, asked, part):
  config, runtime, directories = run
  config.evaluation.crf.steps = 3
  monkeypatch.setattr(proxy.crf_lib.LabelCrf, '__init__', lambda *_, **__: None)
  monkeypatch.setattr(
    proxy.crf_lib.LabelCrf, '__call__', lambda _, items: ((x[0], x[2]) for x in items)
  )
  asks = itertools.count(1)
  runtime.should_stop = lambda: next(asks) == asked
  split = scores.Split(Source(), crf=config.evaluation.crf, runtime=runtime, config=config)
  with pytest.raises(loop.Interrupted, match=part):
    proxy.measure(split, directories | {'generator': runtime.workdir / 'generator'})


def test_maps_are_compared_with_those_of_each_scale_and_with_the_crf(run, monkeypatch, capsys):
  config, runtime, directories = run
  config.priors.scales, config.evaluation.crf.steps = (1.0, 2.0), 3

  class Crf:
    def __init__(self, *_, **__): ...

    def __call__(self, items):
      for index, image, labels, count in items:
        assert image.shape == (SIZE, SIZE, 3) and labels.max() < count
        yield index, np.where(index == 1, 0, labels)

  monkeypatch.setattr(proxy.crf_lib, 'LabelCrf', Crf)
  split = scores.Split(Source(), crf=config.evaluation.crf, runtime=runtime, config=config)
  found = proxy.measure(split, directories | {'generator': runtime.workdir / 'generator'})
  assert 'CRF of priors of train: 4/4' in capsys.readouterr().err
  # The CRF has taken the square of `b`: 208 pixels of 256 are ground.
  assert found['by_image']['b'] == pytest.approx(100 * (208 / 256) / 2)
  assert [found['by_image'][x] for x in 'acd'] == pytest.approx([100] * 3)
  # The larger scale shows the same squares, with softer edges.
  half = (24 / 48 + 208 / 232) / 2
  assert 0.8 * 100 * (3 + half) / 4 < found['views'] <= 100 * (3 + half) / 4 + 1e-3
  config.evaluation.proxy.images = 2
  few = proxy.measure(split, directories)
  assert few['images'] == 2 and set(few['by_image']) == {'a', 'd'}


def test_only_splits_without_masks_have_a_proxy(run, capsys):
  config, runtime, directories = run
  out = runtime.workdir / 'evaluation'
  evaluation.score_stage(config, STAGES['priors'], directories, out, runtime)
  result = records.read_json(out / 'priors_proxy_train.json')
  assert result['views'] is not None and 'miou' not in result
  said, progress = capsys.readouterr()
  assert 'A proxy, not a score' in said and 'undecided' in said
  # No part of it is silent: on a CPU each takes a minute to compile.
  assert 'single views of train: 4/4' in progress and 'train, erased: 5/5' in progress
  assert not (out / 'priors_train.json').exists()
  assert evaluation.stale(config, directories, out, runtime) == []
  config.evaluation.proxy.threshold = 0.5
  assert evaluation.stale(config, directories, out, runtime) == ['priors_proxy of train']
  config.evaluation.proxy.images = 0
  assert evaluation.stale(config, directories, out, runtime) == []
  # With masks there are scores in place of it.
  runtime.source().has_masks = True
  config.evaluation.proxy.images = 5
  assert evaluation.stale(config, directories, out, runtime) == ['priors of train']


def test_the_proxy_is_taken_of_the_splits_that_are_scored():
  config = config_lib.PipelineConfig()
  config.priors.splits = ('train', 'val')
  (score,) = (x for x in STAGES['priors'].scores if x.name == 'priors_proxy')
  assert score.splits(config) == ('train', 'val')
  config.evaluation.splits = ('val',)
  assert score.splits(config) == ('val',)
  config.evaluation.proxy.images = 0
  assert score.splits(config) == ()


def test_numbers_of_a_proxy_that_cannot_be_are_refused():
  config = config_lib.PipelineConfig()
  config.evaluation.proxy = dataclasses.replace(config.evaluation.proxy, images=-1, threshold=1.0)
  faults = evaluation.STAGE.faults(config)
  assert [x.split(' ')[0] for x in faults[:2]] == [
    'evaluation.proxy.images',
    'evaluation.proxy.threshold',
  ]
