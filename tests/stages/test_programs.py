"""What stages will run on devices can be looked at without data, weights or devices' memory."""

import jax
import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import infer, networks, programs
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import sharding
from pnoc_jax.stages.common import stage
from tests.configs import tiny
from tests.stages import contexts

STAGES = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}
# 24 and 8 images, 8 a step; two maps of each training image are refined.
EXPECTED = {
  'classifier': {'generator': 3},
  'generator': {'generator': 12, 'noc': 12},
  'priors': {'scale 1': 4, 'join': 4},
  'c2am': {'update': 6},
  'saliency_priors': {'scale 1': 4, 'join': 4, 'crf': 32},
  'saliency': {'update': 6, 'scale 1': 4, 'join': 4},
  'affinity_labels': {'crf': 48},
  'affinity': {'update': 6},
  'random_walk': {'scale 1': 4, 'join': 4},
  'pseudo_masks': {'crf': 32},
  'segmentation': {'update': 6},
  'predictions': {'scale 1': 1, 'join': 1},
}


@pytest.fixture
def context(mesh):
  """Makes the context of a stage of which no directory is there."""
  return lambda name: contexts.nowhere(STAGES[name], tiny.get_config(), mesh)


def test_every_program_of_a_run_is_named_with_its_calls(context):
  found = {name: STAGES[name].programs(context(name)) for name in STAGES}
  named = {name: {call.name: call.calls for call in calls} for name, calls in found.items()}
  assert {name: calls for name, calls in named.items() if calls} == EXPECTED


@pytest.mark.parametrize(
  ('name', 'of'),
  [
    ('priors', 'generator'),
    ('saliency_priors', 'c2am'),
    ('random_walk', 'affinity'),
    ('predictions', 'segmentation'),
  ],
)
def test_a_network_infers_with_the_colours_that_it_trained_with(mesh, monkeypatch, name, of):
  seen, original = [], infer.Inference.__init__

  def spy(self, network, *arguments, **options):
    seen.append(network.dataset)
    original(self, network, *arguments, **options)

  monkeypatch.setattr(infer.Inference, '__init__', spy)
  config = tiny.get_config()
  model = getattr(config, of).model
  model.backbone, model.output_stride = 'tf_efficientnet_lite0', 16
  context = contexts.nowhere(STAGES[name], config, mesh)
  STAGES[name].programs(context)
  wanted = networks.colours(model, context.train.info)
  assert wanted.mean == (0.5, 0.5, 0.5) != context.train.info.mean
  assert {(x.mean, x.std) for x in seen} == {(wanted.mean, wanted.std)}


@pytest.mark.parametrize('name', ['generator', 'c2am', 'affinity', 'segmentation'])
def test_a_training_is_lowered_for_devices_that_share_the_batch(context, name, mesh):
  for call in STAGES[name].programs(context(name)):
    text = call.compiled.lower(*call.arguments).as_text()
    assert f'mhlo.num_partitions = {mesh.size} : i32' in text
    images = next(line for line in text.splitlines() if 'func public @main' in line)
    assert 'tensor<8x32x32x3xui8> {sdy.sharding' in images and 'data' in images


def test_shapes_are_those_of_the_arrays_that_a_run_calls_with(context):
  """The stream's batch, and the state that the program itself begins with."""
  ours = context('classifier')
  config, source = ours.config.classifier, ours.train
  call = STAGES['classifier'].programs(ours)[0]
  with pipeline.train_batches(
    pipeline.Examples(source), config.transform, batch_size=8, seed=0
  ) as stream:
    batch = compiler.shapes(next(iter(stream)))
  assert call.arguments[-1] == batch
  examples = pipeline.Examples(source, target=_Flat())
  target = programs.batch_shapes(config, examples)['target']
  assert (target.shape, target.dtype) == ((8, 32, 32), np.uint8)
  assert sharding.batch(ours.runtime.mesh).shard_shape(target.shape) == (1, 32, 32)
  assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(call.arguments))


class _Flat:
  fill, resample = 0, None

  def read(self, index, *, size=None):
    raise AssertionError('nothing is read')
