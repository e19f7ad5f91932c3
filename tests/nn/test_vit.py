"""The ViTs: against timm (tools/record_vit_fixture.py), on padded images, and in training."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seeded_tensors

from pnoc_jax import keys, states, trees
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.engine import settings
from pnoc_jax.nn import backbones, classifier, deeplab, torch_names, vit
from pnoc_jax.ops import normalize
from pnoc_jax.optim import schedules
from pnoc_jax.stages import affinity
from pnoc_jax.updates import pnoc

FIXTURES = pathlib.Path(__file__).parent.parent / 'fixtures'


def narrow(arch, *, width=24, heads=3, grid=None, blocks=(3, 3, 3, 3), **options):
  """A ViT of few channels."""
  row = backbones.info(arch)
  form = row.make.keywords['form']
  form = dataclasses.replace(form, heads=heads, grid=grid or form.grid)
  make = functools.partial(vit.VisionTransformer, form=form)
  row = dataclasses.replace(row, widths=(width,) * 4, stem_width=width, blocks=blocks, make=make)
  return backbones.make_backbone(row, backbones.Options(output_stride=form.patch, **options))


def load(name, **options):
  """A fixture's arrays, our backbone, and its variables converted from timm's names."""
  with np.load(FIXTURES / f'{name}.npz') as file:
    arrays = {key: file[key] for key in file.files}
  meta = json.loads(str(arrays.pop('meta')))
  tensors = {n: seeded_tensors.tensor(n, tuple(s)) for n, s in meta['shapes'].items()}
  found, unknown = torch_names.from_torch(tensors, backbones.info(meta['arch']))
  assert not unknown
  backbone = narrow(meta['arch'], heads=meta['heads'], **options)
  template = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  variables = trees.merge_strict({'params': {'backbone': template['params']}}, found)
  return arrays, backbone, {'params': variables['params']['backbone']}


def sizes(arrays):
  return sorted({tuple(map(int, key.split('/')[0].split('x'))) for key in arrays})


def assert_equals_timm(features, arrays, size):
  rows, columns = arrays['x'.join(map(str, size)) + '/layer1'].shape[1:3]
  for stage in ('layer1', 'layer2', 'layer3', 'layer4'):
    (theirs,) = arrays['x'.join(map(str, size)) + f'/{stage}']
    ours = np.asarray(features[stage])[::3, ::3][:rows, :columns]
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize('name', ['vit_small_patch16_224', 'vit_small_patch14_dinov2'])
def test_evaluation_equals_timm_at_any_size(name):
  arrays, backbone, variables = load(name, scan=True)
  apply = jax.jit(backbone.apply)
  for size in sizes(arrays):
    features, valids = apply(variables, seeded_tensors.image((1, *size, 3)))
    assert valids is None
    assert_equals_timm({k: v[0] for k, v in features.items()}, arrays, size)


def test_padded_images_equal_timm_without_padding():
  # The position embedding is that of an image's own grid, and what does not exist is not seen.
  arrays, backbone, variables = load('vit_small_patch16_224', scan=True)
  found = sizes(arrays)
  canvas, valid = np.full((3, 320, 256, 3), 7.0, np.float32), np.zeros((3, 320, 256), bool)
  for i, (height, width) in enumerate(found):
    canvas[i, :height, :width] = seeded_tensors.image((1, height, width, 3))[0]
    valid[i, :height, :width] = True
  features, valids = jax.jit(backbone.apply)(variables, canvas, valid)
  for i, size in enumerate(found):
    cells = tuple(-(-side // 16) for side in size)
    assert valids['layer4'][i].sum() == np.prod(cells)
    one = {k: np.asarray(v[i])[: cells[0], : cells[1]] for k, v in features.items()}
    assert_equals_timm(one, arrays, size)


def test_names_go_there_and_back():
  for name in ('vit_small_patch16_224', 'vit_small_patch14_dinov2'):
    row = backbones.info(name)
    with np.load(FIXTURES / f'{name}.npz') as file:
      named = json.loads(str(file['meta']))['shapes']
    tensors = {n: seeded_tensors.tensor(n, tuple(s)) for n, s in named.items()}
    again = torch_names.to_torch(torch_names.from_torch(tensors, row)[0], row)
    assert set(again) == {f'backbone.{n}' for n in tensors}
    for n, value in tensors.items():
      np.testing.assert_array_equal(again[f'backbone.{n}'], value)
  ignored = {'head.weight': np.ones((1000, 24)), 'mask_token': np.ones((1, 24))}
  assert torch_names.from_torch(ignored, row) == ({}, [])


def test_parameter_counts_are_the_published_ones():
  # timm's, without the head of ImageNet.
  counts = {
    'vit_tiny_patch16_224': 5_524_416,
    'vit_small_patch16_224': 21_665_664,
    'vit_base_patch16_224': 85_798_656,
    'vit_small_patch14_dinov2': 22_056_192,
  }
  for name, count in counts.items():
    stride = backbones.info(name).output_strides[0]
    backbone = backbones.make_backbone(name, backbones.Options(output_stride=stride))
    template = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert trees.count(template['params']) == count, name


def test_it_has_the_stride_of_its_patches_alone():
  config = settings.TrainingConfig()
  config.model.backbone = 'vit_small_patch14_dinov2'
  assert settings.training_faults('generator', config) == [
    'generator.model.output_stride is 16; of vit_small_patch14_dinov2 it is 14'
  ]
  config.model.output_stride = 14
  assert not settings.training_faults('generator', config)


def test_it_trains_on_shapes_by_the_updates_of_pnoc():
  source = shapes.ShapesSource(info.ShapesConfig(train=8, val=1), 'train')
  batch = [source.example(i) for i in range(8)]
  side = 64
  image = np.stack([x['image'][:side, :side] for x in batch])
  box = jnp.tile(jnp.array([0, 0, side, side]), (8, 1))
  mean = backbones.info('vit_tiny_patch16_224').mean
  batch = {
    'image': normalize.normalize(jnp.asarray(image), box, mean=mean, std=mean),
    'label': jnp.asarray(source.labels[:8], jnp.float32),
    'index': jnp.arange(8),
  }
  backbone = narrow(
    'vit_tiny_patch16_224', grid=4, blocks=(1, 1, 1, 1), last_stage='layer2', frozen_stages=1
  )
  model = classifier.Classifier(backbone, source.info.num_classes)
  tx = optax.adam(2e-3)
  key = keys.root_key(0)
  variables = jax.jit(lambda key: states.init_variables(model, key, (side, side, 3)))(key)
  state = states.init_state(variables, tx)
  step = jax.jit(
    pnoc.make_generator_update(
      model, model, tx, lambda_re=schedules.constant(1.0), lambda_cse=schedules.constant(0.1)
    )
  )
  split = pnoc.label_split.init_label_split(source.info.num_classes)
  seen = []
  for number in range(12):
    state, split, _, metrics = step(
      state, variables, split, batch, keys.stream(key, 'split', number)
    )
    seen.append(float(metrics['loss/cls']))
  assert seen[-1] < 0.9 * seen[0]
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, variables['params'])
  assert not any(jax.tree.leaves(moved['backbone']['stem']))
  assert min(jax.tree.leaves(moved['backbone']['layer2'])) > 0


def test_deeplab_stands_on_it():
  model = deeplab.DeepLab(narrow('vit_tiny_patch16_224', grid=4), 3, width=8, low_width=4)
  image = jax.ShapeDtypeStruct((1, 40, 56, 3), jnp.float32)
  logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  assert logits.shape == (1, 40, 56, 3)


def test_the_loop_over_blocks_is_the_same():
  image, found = seeded_tensors.image((1, 40, 56, 3)), []
  for options in ({}, {'scan': True, 'remat': True}):
    backbone = narrow('vit_tiny_patch16_224', grid=4, last_stage='layer1', **options)
    variables = jax.jit(backbone.init)(jax.random.key(0), image)

    @jax.jit
    def gradient(variables, backbone=backbone):
      def loss(variables):
        return jnp.square(backbone.apply(variables, image)[0]['layer1']).mean()

      return jax.grad(loss)(variables)

    found.append(gradient(variables))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(a).max(), 1e-3)), *found
  )


def test_edges_are_found_on_the_grid_of_patches():
  config = affinity.AffinityConfig()
  config.model.backbone = 'vit_tiny_patch16_224'
  model, image = affinity.build(config), jnp.zeros((1, 65, 48, 3))
  edges, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), image))
  assert edges.shape == (1, 5, 3) and affinity.stride(config) == 16
