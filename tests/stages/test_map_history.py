"""What a training keeps of a few images: their maps, and what the judge sees of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pnoc_jax import config as config_lib
from pnoc_jax import states
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.readers import shapes
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import measure
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import images, records
from pnoc_jax.losses import forward
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import erase, normalize, resize
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.report import files
from pnoc_jax.stages import generator
from pnoc_jax.stages.common import cam_program, judge_history, map_history
from tests.stages import contexts
from tests.updates import full_step

COUNT, SIZE, CLASSES = 14, 16, len(shapes.CLASSES)


class Network(nn.Module):
  """The map of each class is a sum of the colours."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    return image @ self.param('weights', nn.initializers.ones, (3, CLASSES))


class Judge(nn.Module):
  """Its maps are a quarter as large, and sums of the colours' means there."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid, train
    weights = self.param('weights', nn.initializers.ones, (3, CLASSES))
    return nn.avg_pool(image, (4, 4), (4, 4)) @ weights


class Source(shapes.ShapesSource):
  """Of the images of `shapes` every other one has a label."""

  def __init__(self, *, masks):
    super().__init__(info.ShapesConfig(size=SIZE, train=COUNT), 'train')
    self.labels[1::2] = 0
    self.has_masks = masks


@pytest.fixture
def make(one_device, tmp_path, monkeypatch):
  """Makes the measurement of a training whose epochs have 3 steps; notes compiled programs."""
  programs = []
  original = measure.make_forward

  def spy(*arguments):
    programs.append(original(*arguments))
    return programs[-1]

  monkeypatch.setattr(measure, 'make_forward', spy)

  def build(*, masks, batch_size=2, judge=None, mesh=one_device, **fields):
    source, config = Source(masks=masks), config_lib.PipelineConfig()
    ours = config.generator
    ours.batch_size, ours.eval_size, ours.epochs = batch_size, SIZE, 4
    for name, value in fields.items():
      setattr(ours, name, value)
    runtime = Runtime(tmp_path, mesh, mesh, config.runtime)
    monkeypatch.setattr(runtime, 'source', lambda *_, **__: source)
    context = contexts.make(generator.STAGE, config, {}, tmp_path, runtime)
    examples = pipeline.Examples(source)
    judges = judge and cam_program.Judge(judge, {}, config.classifier.model)
    return generator._make_measure(ours, Network(), judges, examples, context), source

  return build, programs


def _measured(seed, judge=None):
  return cam_program.Measured(_variables(seed), None if judge is None else _variables(judge))


def _variables(seed):
  weights = np.random.default_rng(seed).normal(size=(3, CLASSES)).astype(np.float32)
  return {'params': {'weights': weights}}


def _kept(directory):
  return {str(x.relative_to(directory)): x.read_bytes() for x in directory.rglob('*.png')}


def test_maps_of_the_same_images_are_kept_after_each_epoch_without_any_mask(make, tmp_path):
  build, programs = make
  measured, source = build(masks=False)
  for epoch in (1, 2):
    assert measured(3 * epoch, _measured(epoch)) is None
  # Of the 7 images with a label six, in three batches of two.
  names = [source.ids[i] for i in (0, 2, 4, 8, 10, 12)]
  kept = _kept(tmp_path / 'maps')
  assert sorted(kept) == sorted(f'{e:04d}/train/{x}.png' for e in (1, 2) for x in names)
  mean, std = np.array(info.IMAGENET_MEAN), np.array(info.IMAGENET_STD)
  for epoch in (1, 2):
    for index in (0, 12):
      image = (source.example(index)['image'] / 255 - mean) / std
      cam = np.maximum(image @ _variables(epoch)['params']['weights'], 0)
      cam = (cam / (cam.max((0, 1)) + 1e-5))[..., source.labels[index] > 0].max(-1)
      path = map_history.path(tmp_path, epoch, 'train', source.ids[index])
      np.testing.assert_allclose(images.read_mask(path), 255 * cam, atol=1.01)
  # What a run that was killed writes again is the same.
  measured(6, _measured(2))
  assert _kept(tmp_path / 'maps') == kept
  assert [x.traces for x in programs] == [1]


def test_a_measurement_and_the_maps_share_a_program(make, tmp_path):
  build, programs = make
  measured, _ = build(masks=True, batch_size=4)
  assert 0 <= measured(3, _measured(1))['eval/miou'] <= 100
  assert len(_kept(tmp_path / 'maps')) == map_history.IMAGES
  assert [x.traces for x in programs] == [1]


def test_a_training_that_is_not_measured_keeps_no_maps(make):
  measured, _ = make[0](masks=True, eval_every=0)
  assert measured is None


@pytest.mark.parametrize('largest', [64, 96])
def test_images_are_squeezed_where_the_training_does_so(make, monkeypatch, largest):
  transform = transforms.TransformConfig(min_size=64, max_size=largest, crop=64)
  measured, _ = make[0](masks=False, transform=transform)
  seen, original = [], transforms.valid

  def spy(*arguments, **options):
    seen.append(options['squeeze'])
    return original(*arguments, **options)

  monkeypatch.setattr(transforms, 'valid', spy)
  measured(3, _measured(1))
  assert seen == [largest == 64] * 6


def test_a_map_that_is_0_everywhere_stays_so():
  cam = np.full((2, 2, 3), -1.0, np.float32)
  cam[0, 1, 2] = 5
  np.testing.assert_array_equal(map_history.largest(cam, np.array([1.0, 1, 0])), 0)
  np.testing.assert_array_equal(map_history.largest(cam, np.eye(3)[2]), [[0, 255], [0, 0]])


CHOSEN = [0, 2, 4, 8, 10, 12]


def _expected(source, epoch, judge, *, over, threshold):
  """By the pure functions, in one batch: masks, rectified maps of the class, and scores."""
  image = np.stack([source.example(i)['image'] for i in CHOSEN])
  box = np.tile(np.array([0, 0, SIZE, SIZE], np.int32), (len(image), 1))
  image = normalize.normalize(image, box, mean=info.IMAGENET_MEAN, std=info.IMAGENET_STD)
  cam = forward.evaluate(Network(), _variables(epoch), image)
  first = [int(np.flatnonzero(source.labels[i])[0]) for i in CHOSEN]
  picked = jnp.eye(CLASSES)[np.array(first)]
  mask = functools.partial(erase.class_mask, cam, picked, size=(SIZE, SIZE))
  soft, hard = mask(over=over), mask(over=erase.Over.IMAGE)
  shown = image, erase.erase_soft(image, soft), erase.erase_hard(image, hard, threshold=threshold)
  maps, scores = [], []
  for x in shown:
    found = forward.evaluate(Judge(), _variables(judge), x)
    ours = jnp.take_along_axis(found, np.array(first)[:, None, None, None], 3)
    maps.append(resize.bilinear(jax.nn.relu(ours), (SIZE, SIZE))[..., 0])
    logits = cam_ops.logits(found)[np.arange(len(first)), np.array(first)]
    scores.append(jax.nn.sigmoid(logits))
  maps = np.stack(maps, 1)
  maps = maps / (maps[:, :1].max((2, 3), keepdims=True) + 1e-5)
  squares = np.concatenate([soft[..., 0][:, None], hard[..., 0][:, None] > threshold, maps], 1)
  return first, np.clip(squares, 0, 1), np.stack(scores, 1)


def _check_judged(directory, source, epoch, judge, **how):
  first, squares, scores = _expected(source, epoch, judge, **how)
  written = records.read_json(directory / files.JUDGED / f'{epoch:04d}' / 'train.json')
  assert list(written) == [source.ids[i] for i in CHOSEN]
  for index, k, expected, score in zip(CHOSEN, first, squares, scores, strict=True):
    row = written[source.ids[index]]
    assert row['class'] == source.info.classes[k]
    np.testing.assert_allclose([row[x] for x in judge_history.LOOKS], score, rtol=1e-5)
    found = images.read_mask(judge_history.path(directory, epoch, 'train', source.ids[index]))
    np.testing.assert_allclose(found, 255 * expected.reshape(-1, SIZE), atol=0.51)
    kept = judge_history.read(directory, epoch, 'train', source.ids[index])
    assert kept.name == row['class']
    np.testing.assert_allclose(kept.masks, expected[:2], atol=0.003)
    np.testing.assert_allclose(kept.maps, expected[2:], atol=0.003)
    np.testing.assert_allclose(kept.scores, score, rtol=1e-5)
  return scores


@pytest.mark.parametrize('masks', [False, True])
def test_what_the_judge_sees_is_kept_and_its_mean_scores_are_logged(make, tmp_path, masks):
  measured, source = make[0](masks=masks, judge=Judge())
  compiled = []
  for epoch in (1, 2):
    logged = measured(3 * epoch, _measured(epoch, judge=10 + epoch))
    how = {'over': erase.Over.BATCH, 'threshold': 0.2}
    scores = _check_judged(tmp_path, source, epoch, 10 + epoch, **how)
    found = [logged[f'eval/judge_{x}'] for x in ('whole', 'soft', 'hard')]
    np.testing.assert_allclose(found, 100 * scores.mean(0), rtol=1e-5)
    assert ('eval/miou' in logged) == masks and (len(logged) > 3) == masks
    # Nothing of the three is alike: a mixed-up order would be seen.
    assert np.ptp(found) > 1 and len(set(np.round(found, 3))) == 3
    compiled.append(logged)
  assert compiled[0] != compiled[1]
  assert judge_history.epochs(tmp_path, 'train') == [1, 2]
  assert judge_history.names(tmp_path, 2, 'train') == [source.ids[i] for i in CHOSEN]
  # What a run that was killed writes again is the same.
  before = _judged(tmp_path)
  assert len(before) == 2 * (len(CHOSEN) + 1)
  assert measured(6, _measured(2, judge=12)) == compiled[1]
  assert _judged(tmp_path) == before


def _judged(directory):
  return {x: x.read_bytes() for x in (directory / files.JUDGED).rglob('*') if x.is_file()}


def test_images_are_erased_as_the_training_does_it(make, tmp_path):
  how = {'soft_mask': erase.Over.IMAGE, 'threshold': 0.5}
  measured, source = make[0](masks=False, judge=Judge(), **how)
  measured(3, _measured(1, judge=2))
  _check_judged(tmp_path, source, 1, 2, over=erase.Over.IMAGE, threshold=0.5)


def test_a_judge_is_compiled_once_and_not_at_all_where_there_is_none(make, monkeypatch, tmp_path):
  programs, original = [], compiler.jit

  def spy(*arguments, **options):
    programs.append(original(*arguments, **options))
    return programs[-1]

  monkeypatch.setattr(compiler, 'jit', spy)
  measured, _ = make[0](masks=True)
  assert not [x for x in measured(3, _measured(1)) if 'judge' in x]
  assert len(programs) == 1 and not (tmp_path / files.JUDGED).exists()
  measured, _ = make[0](masks=True, judge=Judge())
  for epoch in (1, 2):
    measured(3 * epoch, _measured(epoch, judge=epoch))
  assert [x.traces for x in programs[1:]] == [1, 1]


def test_on_several_devices_the_judge_sees_the_same(make, tmp_path):
  if len(jax.devices()) < 4:
    pytest.skip('needs four devices')
  measured, source = make[0](
    masks=False, judge=Judge(), batch_size=4, mesh=meshes.make_mesh(jax.devices()[:4])
  )
  measured(1, _measured(1, judge=2))
  _check_judged(tmp_path, source, 1, 2, over=erase.Over.BATCH, threshold=0.2)


def test_scores_that_are_no_numbers_are_left_out(make, tmp_path):
  measured, _ = make[0](masks=False, judge=Judge())
  broken = {'params': {'weights': np.full((3, CLASSES), np.nan, np.float32)}}
  assert measured(3, cam_program.Measured(_variables(1), broken)) is None
  assert not (tmp_path / files.JUDGED).exists()


def test_what_was_kept_and_is_damaged_is_not_there(make, tmp_path):
  measured, source = make[0](masks=False, judge=Judge())
  measured(3, _measured(1, judge=2))
  name = source.ids[0]
  path = judge_history.path(tmp_path, 1, 'train', name)
  assert judge_history.read(tmp_path, 1, 'train', name) is not None
  assert judge_history.read(tmp_path, 1, 'train', 'other') is None
  assert judge_history.read(tmp_path, 2, 'train', name) is None
  path.write_bytes(b'no picture')
  assert judge_history.read(tmp_path, 1, 'train', name) is None
  images.write_png(path, np.zeros((7, 4), np.uint8))
  assert judge_history.read(tmp_path, 1, 'train', name) is None
  (path.parents[1] / 'train.json').write_text('[1]')
  assert judge_history.names(tmp_path, 1, 'train') == []
  assert judge_history.read(tmp_path, 1, 'train', source.ids[2]) is None


@pytest.mark.parametrize('method', ['poc', 'pnoc'])
def test_the_judge_is_the_noc_of_the_step_or_the_fixed_classifier(one_device, method):
  config = full_step.config()
  config.generator.method, config.generator.leak_noc_grad = method, False
  program = full_step.make_program(one_device, config)

  def state(value):
    return states.TrainState(jnp.zeros(()), {'x': value}, {'y': value}, None, {'x': -value})

  found = program.measured(states.PnocState(state(1.0), state(2.0) if method == 'pnoc' else None))
  assert found.generator == {'params': {'x': -1.0}, 'batch_stats': {'y': 1.0}}
  if method == 'pnoc':
    assert found.judge == {'params': {'x': 2.0}, 'batch_stats': {'y': 2.0}}
  else:
    model = cam_program.judge_model(config.classifier.model, full_step.CLASSES)
    drawn = full_step.drawn(model, full_step.DATASET, seed=1)
    jax.tree.map(np.testing.assert_array_equal, found.judge, drawn)
