"""Sizes, masks, freezing and forms of the backbones."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from pnoc_jax import errors, platforms, trees
from pnoc_jax.nn import backbones, classifier, layers, resnet38d, trunk
from pnoc_jax.ops import convolution

SMALL = {'blocks': (1, 3, 1, 2), 'widths': (4, 4, 8, 8), 'stem_width': 4}
TWO_STAGES = {'blocks': (1, 1, 1, 1), 'last_stage': 'layer2'}
ONE_STAGE = {'blocks': (3, 1, 1, 1), 'last_stage': 'layer1'}


def make(arch, *, num_classes=3, **options):
  return classifier.Classifier(networks.make_backbone(arch, **(SMALL | options)), num_classes)


def images(*shape):
  return np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)


def init(model, seed=0):
  """Variables with random affine parameters and statistics, so that nothing cancels by chance."""
  rng = np.random.default_rng(seed)
  shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  template = jax.eval_shape(model.init, jax.random.key(0), shape)

  def draw(path, leaf):
    if path[-1].key == 'kernel':
      value = rng.normal(0, (1.5 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
    elif path[-1].key in ('scale', 'var'):
      value = rng.uniform(0.5, 1.5, leaf.shape)
    else:
      value = rng.normal(0, 0.2, leaf.shape)
    return np.asarray(value, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, template)


@functools.partial(jax.jit, static_argnums=(0, 3))
def train_step(model, variables, image, kind='cpu'):
  """Returns the loss, its gradients, the output and the new statistics, as `kind` computes them."""

  def loss(params):
    cam, updated = model.apply(
      variables | {'params': params}, image, train=True, mutable=['batch_stats']
    )
    return jnp.mean(jnp.square(cam)), (cam, updated['batch_stats'])

  with platforms.traced_for(kind):
    return jax.value_and_grad(loss, has_aux=True)(variables['params'])


@pytest.mark.parametrize(
  ('arch', 'count'),
  [
    # With the 1000-way head of ImageNet; those of the released weights.
    ('resnet18', 11_689_512),
    ('resnet34', 21_797_672),
    ('resnet50', 25_557_032),
    ('resnet50_caffe', 25_557_032),
    ('resnet101', 44_549_160),
    ('resnet152', 60_192_808),
    ('resnest14', 10_611_688),
    ('resnest26', 17_069_448),
    ('resnest50', 27_483_240),
    ('resnest101', 48_275_016),
    ('resnest200', 70_201_544),
    ('resnest269', 110_929_480),
    ('tf_efficientnet_lite0', 4_652_008),
    ('tf_efficientnet_lite1', 5_416_680),
    ('tf_efficientnet_lite2', 6_092_072),
    ('tf_efficientnet_lite3', 8_197_096),
    ('tf_efficientnet_lite4', 13_006_568),
  ],
)
def test_parameter_counts(arch, count):
  model = classifier.Classifier(networks.make_backbone(arch), 1000)
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  bias = 1000  # Of the released head; ours has none.
  assert trees.count(variables['params']) + bias == count


def test_strides_and_dilations_as_published():
  assert trunk.plan_strides(4, 32) == ((1, 1), (2, 1), (2, 1), (2, 1))
  assert trunk.plan_strides(4, 16) == ((1, 1), (2, 1), (2, 1), (1, 2))
  assert trunk.plan_strides(4, 8) == ((1, 1), (2, 1), (1, 2), (1, 4))
  assert trunk.plan_strides(2, 8) == ((1, 1), (2, 1), (2, 1), (1, 2))
  lite = backbones.info('tf_efficientnet_lite0')
  assert lite.plan(16) == ((2, 1), (2, 1), (2, 1), (1, 2))
  assert lite.plan(8) == ((2, 1), (2, 1), (1, 2), (1, 4))


@pytest.mark.parametrize('output_stride', [8, 16, 32])
@pytest.mark.parametrize('size', [(64, 64), (65, 97)])
def test_cam_sizes(output_stride, size):
  for arch in ('resnet18', 'resnet50', 'resnest50'):
    model = make(arch, output_stride=output_stride)
    image = jnp.zeros((1, *size, 3))
    cam, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert cam.shape == (1, *(-(-s // output_stride) for s in size), 3)


def test_features_of_every_stage_are_named():
  for arch in ('resnest_tiny', 'resnet34', 'resnest50', 'resnet38d', 'tf_efficientnet_lite2'):
    info = backbones.info(arch)
    backbone = networks.make_backbone(arch, output_stride=8, last_stage='layer3')
    (features, valids), variables = jax.eval_shape(
      backbone.init_with_output, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    assert valids is None
    assert {k: v.shape[-1] for k, v in features.items()} == {
      k: v for k, v in info.channels.items() if k != 'layer4'
    }
    assert features['layer3'].shape[1:3] == (8, 8)
    assert set(variables['params']) == {'stem', 'layer1', 'layer2', 'layer3'}


@pytest.mark.parametrize(
  ('arch', 'output_stride'),
  [('resnet18', 16), ('resnet50', 8), ('resnest50', 8), ('resnest50', 16), ('resnet38d', 8)],
)
def test_padded_equals_alone(arch, output_stride):
  model = make(arch, blocks=(1, 2, 1, 2), output_stride=output_stride)
  variables = init(model)
  apply = jax.jit(model.apply)
  canvas = np.full((2, 64, 80, 3), 7.0, np.float32)
  valid = np.zeros((2, 64, 80), bool)
  alone = []
  for i, (height, width) in enumerate(((45, 79), (64, 33))):
    image = np.asarray(images(1, height, width))
    canvas[i, :height, :width] = image[0]
    valid[i, :height, :width] = True
    alone.append(np.asarray(apply(variables, image))[0])
  padded = np.asarray(apply(variables, canvas, valid))
  for ours, expected in zip(padded, alone, strict=True):
    h, w = expected.shape[:2]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours[:h, :w] / scale, expected / scale, atol=1e-5)
    assert not ours[h:].any() and not ours[:, w:].any()


def test_padding_leaves_training_statistics_alone():
  model = make('resnest50', **TWO_STAGES)
  variables = init(model)
  image, valid = np.full((4, 64, 48, 3), 7.0, np.float32), np.zeros((4, 64, 48), bool)
  image[:, :33, :47], valid[:, :33, :47] = images(4, 33, 47), True
  apply = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))
  cam, updated = apply(variables, image[:, :33, :47])
  padded_cam, padded_updated = apply(variables, image, valid)
  np.testing.assert_allclose(padded_cam[:, : cam.shape[1], : cam.shape[2]], cam, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), updated, padded_updated
  )


@pytest.mark.parametrize(
  ('arch', 'options', 'kind'),
  [
    ('resnest50', {'scan': True}, 'cpu'),
    ('resnest50', {'scan': True, 'remat': True}, 'cpu'),
    ('resnest50', {'scan': True, 'remat': True}, 'gpu'),
    ('resnest50', {'remat': True, 'radix': convolution.Radix.GROUPED}, 'cpu'),
    ('resnest50', {}, 'gpu'),
    ('resnet18', {'scan': True}, 'gpu'),
  ],
  ids=str,
)
def test_forms_are_the_same_function(arch, options, kind):
  plain = make(arch, **ONE_STAGE, radix=convolution.Radix.SPLIT)
  other = make(arch, **({'radix': convolution.Radix.SPLIT} | ONE_STAGE | options))
  variables, image = init(plain), images(4, 17, 19)
  assert jax.tree.structure(variables) == jax.tree.structure(init(other))
  expected = trees.flatten_names(train_step(plain, variables, image))
  found = trees.flatten_names(train_step(other, variables, image, kind))
  assert set(expected) == set(found)
  for name, value in expected.items():
    value = np.asarray(value)
    scale = max(np.abs(value).max(), 1e-2)
    np.testing.assert_allclose(
      np.asarray(found[name]) / scale, value / scale, atol=1e-4, err_msg=name
    )


def test_frozen_norm_leaves_statistics_and_still_trains():
  model = make('resnest50', **TWO_STAGES, norm=layers.Norm.FROZEN)
  variables = init(model)
  (_, (cam, stats)), gradients = train_step(model, variables, images(2, 32, 32))
  jax.tree.map(np.testing.assert_array_equal, stats, variables['batch_stats'])
  expected = jax.jit(model.apply)(variables, images(2, 32, 32))
  np.testing.assert_allclose(cam, expected, atol=1e-5)
  assert np.abs(gradients['backbone']['stem']['conv1']['kernel']).max() > 0


def test_frozen_stages_get_no_gradient_and_keep_statistics():
  model = make('resnest50', **TWO_STAGES, frozen_stages=2)
  variables = init(model)
  (_, (_, stats)), gradients = train_step(model, variables, images(2, 32, 32))
  for stage in ('stem', 'layer1', 'layer2'):
    largest = max(
      np.abs(np.asarray(g)).max() for g in jax.tree.leaves(gradients['backbone'][stage])
    )
    same = jax.tree.map(
      lambda a, b: np.array_equal(a, b),
      stats['backbone'][stage],
      variables['batch_stats']['backbone'][stage],
    )
    frozen = stage in ('stem', 'layer1')
    assert (largest == 0) == frozen
    assert all(jax.tree.leaves(same)) == frozen


def test_bfloat16_keeps_parameters_statistics_and_head_in_float32():
  model = make('resnest50', **TWO_STAGES, dtype=jnp.bfloat16, scan=True, remat=True)
  variables, image = init(model), images(2, 32, 32)
  trunk_variables = {collection: tree['backbone'] for collection, tree in variables.items()}
  features, _ = jax.eval_shape(model.backbone.apply, trunk_variables, image)
  assert {x.dtype for x in features.values()} == {jnp.dtype(jnp.bfloat16)}
  (_, (cam, stats)), gradients = jax.eval_shape(
    functools.partial(train_step, model), variables, image
  )
  assert cam.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves((stats, gradients))} == {jnp.dtype(jnp.float32)}
  full = jax.jit(make('resnest50', **TWO_STAGES).apply)(variables, image)
  half = jax.jit(model.apply)(variables, image)
  np.testing.assert_allclose(half, full, atol=0.05 * np.abs(full).max())


def test_the_wide_resnet_drops_channels_where_it_is_handed_a_key():
  block, x = resnet38d.WideBlock(16, dilation=1, dropout=0.5), images(2, 4, 4)
  variables = jax.jit(block.init, static_argnums=(2, 3))(jax.random.key(0), x, None, False)

  @jax.jit
  def apply(rngs):
    return block.apply(variables, x, None, False, rngs=rngs)[0]

  plain = apply({})
  first, again, other = (apply({'dropout': jax.random.key(i)}) for i in (0, 0, 1))
  assert np.array_equal(first, again)
  assert not np.allclose(first, plain) and not np.allclose(first, other)


def test_mistakes_are_named():
  with pytest.raises(errors.UserError, match="Did you mean 'resnest50'"):
    networks.make_backbone('resnst50')
  with pytest.raises(errors.UserError, match='output_stride is 4'):
    networks.make_backbone('resnest50', output_stride=4)
  with pytest.raises(errors.UserError, match='of resnet38d it must be 8'):
    networks.make_backbone('resnet38d', output_stride=16)
  with pytest.raises(errors.UserError, match='last_stage'):
    networks.make_backbone('resnest50', last_stage='layer5')


@pytest.mark.parametrize('norm', list(layers.Norm))
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize('kind', ['cpu', 'gpu'])
def test_a_loop_over_blocks_keeps_its_products_alone(norm, dtype, kind):
  backbone = networks.make_backbone(
    'resnest50', **(SMALL | ONE_STAGE), scan=True, dtype=dtype, norm=norm
  )
  image = jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
  variables = jax.eval_shape(backbone.init, jax.random.key(0), image)

  def kept(variables, image):
    def features(params):
      changed = variables | {'params': params}
      (found, _), _ = backbone.apply(changed, image, train=True, mutable=['batch_stats'])
      return found['layer1']

    # What the gradient's function holds.
    return jax.vjp(features, variables['params'])[1]

  with platforms.traced_for(kind):
    leaves = jax.tree.leaves(jax.eval_shape(kept, variables, image))
  maps = [x for x in leaves if x.shape[:4] == (2, 2, 8, 12)]
  # The block's input and the outputs of its three convolutions, in the type of the computation.
  assert sorted(x.shape[-1] for x in maps) == [4, 8, 16, 16]
  assert {x.dtype for x in maps} == {jnp.dtype(dtype)}
