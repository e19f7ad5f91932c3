"""A measurement shows each image to the network once, whatever it is compared with."""

import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import measure, settings, train
from pnoc_jax.engine.runtime import Context, Runtime, RuntimeConfig
from pnoc_jax.errors import UserError

COUNT, SIZE = 11, 16


class _Inverted(joins.TrueMasks):
  """The masks with objects and background exchanged."""

  def read(self, index, *, size=None):
    return (super().read(index, size=size) == 0).astype(np.uint8)


class _Meter:
  """The mean of each image, and the share of the pixels that are an object."""

  def forward(self, variables, batch):
    assert batch.keys() == {'image', 'box'}
    return variables['gain'] * batch['image'].astype(np.float32).mean((1, 2, 3))

  def begin(self):
    return []

  def add(self, sums, found, batches):
    counted = batches[0]['weight'] > 0
    for batch in batches:
      np.testing.assert_array_equal(batch['image'], batches[0]['image'])
    objects = np.stack([(x['mask'] > 0).mean((1, 2)) for x in batches], -1)
    rows = zip(batches[0]['index'], found, objects, strict=True)
    return sums + [row for row, counts in zip(rows, counted, strict=True) if counts]

  def score(self, sums):
    self.rows = sums
    return {'eval/images': float(len(sums))}


@pytest.fixture(scope='module')
def source():
  return shapes.ShapesSource(info.ShapesConfig(size=SIZE, val=COUNT), 'val')


def _measure(source, mesh, tmp_path, *, eval_batches=0, **options):
  config = settings.TrainingConfig(batch_size=4, eval_size=SIZE, eval_batches=eval_batches)
  runtime, meter = Runtime(tmp_path, mesh, mesh, RuntimeConfig()), _Meter()
  measured = measure.make_measure(meter, source, config, runtime, **options)
  return measured(1, {'gain': np.float32(2)}), meter.rows


def test_each_image_is_measured_once_against_every_target(source, mesh, one_device, tmp_path):
  targets = (None, _Inverted(source))
  for devices in (mesh, one_device):
    metrics, rows = _measure(source, devices, tmp_path, targets=targets)
    assert metrics == {'eval/images': COUNT}
    assert [index for index, *_ in rows] == list(range(COUNT))
    for index, mean, objects in rows:
      np.testing.assert_allclose(mean, 2 * source.example(index)['image'].mean(), rtol=1e-5)
      share = (source.mask(index) > 0).mean()
      np.testing.assert_allclose(objects, [share, 1 - share])


def test_a_part_is_measured_and_all_streams_are_closed(source, one_device, tmp_path, monkeypatch):
  streams, original = [], pipeline.valid_batches

  def spy(*arguments, **options):
    streams.append(original(*arguments, **options))
    return streams[-1]

  monkeypatch.setattr(pipeline, 'valid_batches', spy)
  targets = (None, joins.TrueMasks(source))
  metrics, rows = _measure(
    source, one_device, tmp_path, eval_batches=2, batch_size=3, targets=targets
  )
  assert metrics == {'eval/images': 6.0} and [index for index, *_ in rows] == list(range(6))
  assert len(streams) == 2
  for stream in streams:
    with pytest.raises(StopIteration):
      next(stream)


class _Opened(Runtime):
  """Opens the same images for every split; those of `bare` have no masks."""

  def source(self, config, split, *, without=frozenset()):
    del config, without
    found = shapes.ShapesSource(info.ShapesConfig(size=SIZE, train=3, val=COUNT), 'val')
    found.split, found.has_masks = split, split != 'bare'
    return found


@pytest.fixture
def context(one_device, tmp_path):
  runtime = _Opened(tmp_path, one_device, one_device, RuntimeConfig())
  return Context('classifier', config_lib.PipelineConfig(), {}, tmp_path, runtime)


@pytest.mark.parametrize(('named', 'measured'), [('', 'train'), ('val', 'val')])
def test_the_split_that_is_measured_is_the_one_named(context, named, measured):
  config = settings.TrainingConfig(eval_split=named)
  assert measure.measured_source(config, context).split == measured
  config.eval_every = 0
  assert measure.measured_source(config, context) is None


def test_without_masks_it_is_said_that_there_is_no_curve(context, capsys):
  config = settings.TrainingConfig(eval_split='bare')
  assert measure.measured_source(config, context) is None
  assert 'bare has no masks: no curve of classifier' in capsys.readouterr().out


def test_a_split_that_does_not_exist_is_refused_before_work(one_device, tmp_path):
  runtime = Runtime(tmp_path, one_device, one_device, RuntimeConfig())
  where = Context('classifier', config_lib.PipelineConfig(), {}, tmp_path, runtime)
  config = settings.TrainingConfig(eval_split='trian')
  with pytest.raises(UserError, match='trian'):
    train.check(config, where)
