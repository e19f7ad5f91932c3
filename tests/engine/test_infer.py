"""Inference of many images: whatever a network is, each image comes once, at its own size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data import folders

from pnoc_jax.data.readers import folder
from pnoc_jax.engine import infer, settings
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.io import images

SCALES, COUNT = (0.5, 1.0, 1.5), 5


@pytest.fixture
def source(tmp_path):
  """Five images of five sizes."""
  return folder.FolderSource(str(folders.write(tmp_path / 'x', COUNT)), 'train')


def _inference(source, mesh, tmp_path, config, **options):
  """Sums the pixels of an image at each scale, and hands through what it is told."""

  def scale(variables, image, size):
    # What lies outside of the image is zero.
    return {'sum': variables['gain'] * image.sum((1, 2, 3)), 'size': size}

  def fuse(found, grid):
    assert all(len(size) == len(grid.native) for size in grid.scaled)
    return {
      'sums': jnp.stack([x['sum'] for x in found], -1),
      'sizes': jnp.stack([x['size'] for x in found], 1),
      'scaled': jnp.stack(grid.scaled, 1),
      'native': grid.native,
      'shape': jnp.broadcast_to(jnp.array(grid.shape), grid.native.shape),
      'name': grid.context['name'],
    }

  context = {'name': jax.ShapeDtypeStruct((1,), np.int32)}
  gain = {'gain': np.float32(2)}
  network = infer.Network(scale, fuse, gain, source.info, lambda classes, shape: context)
  runtime = Runtime(tmp_path, mesh, mesh, RuntimeConfig())
  return infer.Inference(network, config, runtime, **options)


def _name(batch):
  return {'name': 100 + batch['index']}


def _expected(source, index, scale):
  """The sum of the normalised pixels, times the gain, and the size at a scale."""
  image = source.example(index)['image']
  size = tuple(round(n * scale) for n in image.shape[:2])
  pixels = images.resize_bicubic(image, size) / 255
  return 2 * ((pixels - source.info.mean) / source.info.std).sum(), size


@pytest.mark.parametrize('batch_size', [2, 8])
def test_each_image_comes_once_with_its_own_rows(source, mesh, one_device, tmp_path, batch_size):
  config = settings.MultiScaleConfig(
    batch_size=batch_size, multiple=8, max_buckets=2, scales=SCALES
  )
  for devices in (mesh, one_device):
    run = _inference(source, devices, tmp_path, config)
    found = list(run(source, [3, 0, 4, 1], context=_name))
    assert sorted(index for index, *_ in found) == [0, 1, 3, 4]
    shapes = set()
    for index, size, row in found:
      assert size == source.size(index) == tuple(row['native'])
      assert row['name'] == 100 + index
      np.testing.assert_array_equal(row['sizes'], row['scaled'])
      for n, scale in enumerate(SCALES):
        total, scaled = _expected(source, index, scale)
        np.testing.assert_allclose(row['sums'][n], total, rtol=1e-4, atol=1e-2)
        assert tuple(row['sizes'][n]) == scaled
      shapes.add(tuple(row['shape']))
      assert (row['shape'] >= size).all() and not (row['shape'] % 8).any()
    assert len(shapes) == 2
    # Nothing more is compiled, whichever images come.
    counted = infer.compilations([run])
    assert counted == {'programs': run.traces, 'programs_late': 0} and run.traces > 2
    assert [index for index, *_ in run(source, [2], context=_name)] == [2]
    assert infer.compilations([run]) == counted


def test_a_config_without_scales_infers_at_one(source, one_device, tmp_path):
  config = settings.InferenceConfig(batch_size=2, multiple=8, max_buckets=1)
  ((_, size, row),) = _inference(source, one_device, tmp_path, config)(source, [1], context=_name)
  assert row['sums'].shape == (1,) and tuple(row['scaled'][0]) == size
  run = _inference(source, one_device, tmp_path, config, scales=(2.0,))
  ((_, size, row),) = run(source, [1], context=_name)
  assert tuple(row['scaled'][0]) == tuple(2 * n for n in size)


def test_reading_ends_with_whoever_stops_listening(source, one_device, tmp_path, monkeypatch):
  config, streams = settings.InferenceConfig(batch_size=1, multiple=8), []
  original = infer.buckets.multi_scale_batches

  def spy(*arguments, **options):
    streams.append(original(*arguments, **options))
    return streams[-1]

  monkeypatch.setattr(infer.buckets, 'multi_scale_batches', spy)
  found = _inference(source, one_device, tmp_path, config)(source, range(COUNT), context=_name)
  next(found)
  found.close()
  with pytest.raises(StopIteration):
    next(streams[0])


def test_present_classes_fill_a_power_of_two():
  labels = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], np.float32)
  np.testing.assert_array_equal(infer.present(labels), [[1, 3, 4, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
  assert infer.present(np.ones((1, 3))).tolist() == [[0, 1, 2]]
  assert infer.present(np.zeros((2, 3))).shape == (2, 1)


def test_a_batch_is_as_large_as_the_memory_allows(source, one_device, tmp_path, monkeypatch):
  config = settings.MultiScaleConfig(batch_size=4, multiple=8, max_buckets=1, scales=(1.0,))
  whole = list(
    _inference(source, one_device, tmp_path, config)(source, range(COUNT), context=_name)
  )
  # An image is 40 x 32 px of 3 channels: 15 KiB in float32, which an operation reads and writes.
  monkeypatch.setattr(infer.memory, 'host_bytes', lambda: 420 << 10)
  rows, run = [], _inference(source, one_device, tmp_path, config)

  def name(batch):
    rows.append(len(batch['index']))
    return _name(batch)

  with pytest.warns(
    UserWarning, match=r'up to 30x36 px: each in work needs about .* at a time in place of 4'
  ):
    found = list(run(source, range(COUNT), context=name))
  assert 1 <= max(rows) < 4
  for (index, size, row), (other, its, expected) in zip(found, whole, strict=True):
    assert (index, size) == (other, its)
    np.testing.assert_allclose(row['sums'], expected['sums'], rtol=1e-5)
