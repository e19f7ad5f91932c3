"""The CRF over many images: padded, in threads and on several devices, the same labels."""

import functools
import types
from unittest import mock

import jax
import numpy as np
import pytest

from pnoc_jax.engine import crf
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.ops import crf as crf_ops
from pnoc_jax.parallel import mesh as mesh_lib

_CONFIG = crf.CrfConfig(steps=3, filter=crf_ops.Filter.EXACT)


@pytest.fixture(scope='module')
def runtime(tmp_path_factory):
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  return Runtime(tmp_path_factory.mktemp('run'), mesh, mesh, RuntimeConfig())


def _items(sizes=((20, 30), (32, 25), (9, 12), (20, 30), (31, 32))):
  rng = np.random.default_rng(0)
  for number, (h, w) in enumerate(sizes):
    y, x = np.indices((h, w))
    n = 2 + number % 3
    image = (np.stack([7 * x, 5 * y, 3 * (x + y)], -1) + rng.integers(0, 9, (h, w, 3))) % 256
    labels = (x // 5 + y // 4) % n
    yield number, image.astype(np.uint8), labels.astype(np.uint8), n


@functools.cache
def _compiled(n, kernels):
  return jax.jit(functools.partial(_plain, n=n, kernels=kernels))


def _plain(labels, image, *, n, kernels):
  unary = crf_ops.label_unary(labels, n, 0.7)
  return crf_ops.dense_crf(
    unary, image, steps=3, kernels=kernels, filter=crf_ops.Filter.EXACT
  ).argmax(-1)


def test_bucketed_labels_equal_unbucketed_ones_in_order(runtime):
  refine = crf.LabelCrf(_CONFIG, runtime, [item[1].shape[:2] for item in _items()], threads=3)
  found = list(refine(_items()))
  assert [key for key, _ in found] == list(range(5))
  moved = 0
  for (_, image, labels, n), (_, refined) in zip(_items(), found, strict=True):
    expected = _compiled(n, _CONFIG.kernels)(labels.astype(np.int32), image)
    np.testing.assert_array_equal(refined, expected)
    assert refined.dtype == np.int32
    moved += (refined != labels).mean()
  assert moved > 0.05
  # Three and four labels share a program, and all images one bucket.
  assert refine.traces == 2


def test_padding_leaves_the_labels_of_the_lattice_alone(runtime):
  _, image, labels, n = next(_items())
  # The bucket is twice as high and wide.
  refine = crf.LabelCrf(crf.CrfConfig(steps=3), runtime, [(64, 64)])
  ((_, refined),) = refine([(0, image, labels, n)])

  @jax.jit
  def plain(labels, image):
    return crf_ops.dense_crf(crf_ops.label_unary(labels, n, 0.7), image, steps=3).argmax(-1)

  np.testing.assert_array_equal(refined, plain(labels.astype(np.int32), image))
  assert (refined != labels).any()


def test_labels_do_not_depend_on_threads_devices_or_company(runtime):
  sizes = [(20, 30)]
  twice = list(_items(sizes * 6))
  alone = crf.LabelCrf(_CONFIG, runtime, sizes, threads=1)
  spread = crf.LabelCrf(_CONFIG, runtime, sizes, devices=jax.devices()[:2], threads=4)
  # Only the images of two labels: one program a device.
  chosen = [item for item in twice if item[3] == 2]
  expected = dict(alone(chosen[:1]))
  for key, labels in spread([(n, *chosen[0][1:]) for n in range(9)]):
    np.testing.assert_array_equal(labels, expected[0], err_msg=str(key))
  assert spread.traces == 2


@pytest.mark.parametrize('hidden', [False, True])
def test_on_a_tpu_the_lattice_is_the_hosts_and_says_so(hidden, monkeypatch, capsys):
  chip = types.SimpleNamespace(platform='tpu')
  chips = types.SimpleNamespace(local_mesh=types.SimpleNamespace(devices=np.array([chip, chip])))
  if hidden:
    monkeypatch.setattr(crf.jax, 'local_devices', mock.Mock(side_effect=RuntimeError))
  found = crf._devices(crf.CrfConfig(), chips)
  said = capsys.readouterr().out
  assert found == ([chip, chip] if hidden else jax.local_devices()[:1])
  assert ('JAX_PLATFORMS' if hidden else "runs on the host's") in said
  # All pairs are products of matrices, and no step is no work.
  for config in (_CONFIG, crf.CrfConfig(steps=0)):
    assert crf._devices(config, chips) == [chip, chip]
  assert not capsys.readouterr().out


def test_softmax_labels_equal_unbucketed_ones(runtime):
  rng = np.random.default_rng(1)
  _, image, *_ = next(_items())
  scores = rng.random((20, 30, 2)).astype(np.float32)
  probabilities = scores / scores.sum(-1, keepdims=True)
  refine = crf.SoftmaxCrf(_CONFIG, runtime, [(20, 30)])
  ((key, refined),) = refine([('a', image, probabilities)])

  @jax.jit
  def plain(probabilities, image):
    unary = crf_ops.softmax_unary(probabilities)
    options = {'steps': 3, 'kernels': _CONFIG.kernels, 'filter': crf_ops.Filter.EXACT}
    return crf_ops.dense_crf(unary, image, **options).argmax(-1)

  expected = plain(probabilities, image)
  assert key == 'a'
  np.testing.assert_array_equal(refined, expected)
  assert (refined != probabilities.argmax(-1)).mean() > 0.05


def test_no_step_leaves_labels_and_compiles_nothing(runtime):
  config = crf.CrfConfig(steps=0, confidence=0.1)
  sizes = [item[1].shape[:2] for item in _items()]
  refine = crf.LabelCrf(config, runtime, sizes)
  for (_, _, labels, _), (_, refined) in zip(_items(), refine(_items()), strict=True):
    np.testing.assert_array_equal(refined, labels)
  soft = crf.SoftmaxCrf(config, runtime, sizes)
  ((_, found),) = soft([(0, np.zeros((9, 12, 3), np.uint8), np.eye(12)[:9, :, None] * [-1, 1])])
  np.testing.assert_array_equal(found, np.eye(12, dtype=int)[:9])
  assert refine.traces == soft.traces == 0


def test_an_error_comes_at_its_image(runtime):
  refine = crf.LabelCrf(crf.CrfConfig(steps=0), runtime, [(20, 30)])

  def items():
    for number in range(4):
      yield number, np.zeros((20, 30, 3), np.uint8), np.full((20, 30), number), 2

  found = refine(items())
  assert [next(found)[0] for _ in range(2)] == [0, 1]
  with pytest.raises(ValueError, match='at most 2'):
    next(found)


def test_faults_name_the_field():
  assert crf.faults('x.crf', crf.CrfConfig()) == []
  config = crf.CrfConfig(steps=-1, confidence=1.0, bilateral_srgb=0.0)
  found = crf.faults('x.crf', config)
  assert [line.split(' ')[0] for line in found] == [
    'x.crf.steps',
    'x.crf.confidence',
    'x.crf.bilateral_srgb',
  ]
