"""A measurement shows each image to the network once, whatever it is compared with."""

import numpy as np
import pytest

from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import measure, settings
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig

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
  return measured({'gain': np.float32(2)}), meter.rows


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
