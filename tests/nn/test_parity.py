"""Our networks against PyTorch's, through the name converter (tools/record_fixtures.py)."""

import json
import pathlib

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import seeded_tensors

from pnoc_jax import trees
from pnoc_jax.nn import backbones, torch_names

FIXTURES = pathlib.Path(__file__).parent.parent / 'fixtures'


def load(name, **options):
  """Returns a fixture's arrays, our backbone, and its variables converted from torch's names."""
  with np.load(FIXTURES / f'{name}.npz') as file:
    arrays = {key: file[key] for key in file.files}
  meta = json.loads(str(arrays.pop('meta')))
  shapes, arch = meta.pop('shapes'), meta.pop('arch')
  tensors = {name: seeded_tensors.tensor(name, tuple(shape)) for name, shape in shapes.items()}
  found, unknown = torch_names.from_torch(tensors, backbones.info(arch))
  assert not unknown
  backbone = networks.make_backbone(arch, **meta, **options)
  template = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  template = {collection: {'backbone': tree} for collection, tree in template.items()}
  variables = trees.merge_strict(template, found)
  return arrays, backbone, {collection: tree['backbone'] for collection, tree in variables.items()}


def assert_close(ours, theirs, tolerance=1e-4):
  scale = max(np.abs(theirs).max(), 1e-3)
  np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
  'name',
  [
    'resnet18',
    'resnet50',
    'resnest14',
    'resnest26',
    'resnest50',
    'resnest_small_os16',
    'resnest_small_os8',
    'resnet38d_small',
    'tf_efficientnet_lite0_os32',
  ],
)
def test_evaluation_equals_torch(name):
  arrays, backbone, variables = load(name, scan=True)
  sizes = {key.split('/')[0] for key in arrays if '/' in key}
  for size in sizes:
    height, width = map(int, size.split('x'))
    image = seeded_tensors.image((1, height, width, 3))
    features, _ = jax.jit(lambda v, x: backbone.apply(v, x))(variables, image)
    for stage in ('layer1', 'layer2', 'layer3', 'layer4'):
      theirs = arrays[f'{size}/{stage}']
      channels = features[stage].shape[-1]
      kept = np.linspace(0, channels - 1, theirs.shape[-1]).astype(int)
      assert_close(np.asarray(features[stage])[..., kept], theirs)


def test_padded_images_equal_torch_without_padding():
  # TensorFlow's padding depends on the size: an image's own counts, not that of the canvas.
  arrays, backbone, variables = load('tf_efficientnet_lite0_os16', scan=True)
  sizes = sorted({tuple(map(int, key.split('/')[0].split('x'))) for key in arrays})
  canvas, valid = np.full((len(sizes), 66, 48, 3), 7.0, np.float32), np.zeros((3, 66, 48), bool)
  for i, (height, width) in enumerate(sizes):
    canvas[i, :height, :width] = seeded_tensors.image((1, height, width, 3))[0]
    valid[i, :height, :width] = True
  features, _ = jax.jit(lambda v, x, m: backbone.apply(v, x, m))(variables, canvas, valid)
  for i, (height, width) in enumerate(sizes):
    for stage in ('layer1', 'layer2', 'layer3', 'layer4'):
      (theirs,), ours = arrays[f'{height}x{width}/{stage}'], np.asarray(features[stage][i])
      kept = np.linspace(0, ours.shape[-1] - 1, theirs.shape[-1]).astype(int)
      assert_close(ours[: theirs.shape[0], : theirs.shape[1], kept], theirs)


def test_the_wide_resnet_has_the_parameters_of_the_released_one():
  with np.load(FIXTURES / 'resnet38d_small.npz') as file:
    count = int(file['count'])
  backbone = networks.make_backbone('resnet38d', output_stride=8)
  variables = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  assert trees.count(variables['params']) == count
  assert variables['params']['layer4']['block1']['bn4']['scale'].shape == (4096,)


def test_training_equals_torch():
  arrays, backbone, variables = load('resnest_small_train')
  image = seeded_tensors.image((8, 33, 37, 3))

  @jax.jit
  def step(params):
    def loss(params):
      (features, _), updated = backbone.apply(
        variables | {'params': params}, image, train=True, mutable=['batch_stats']
      )
      return jnp.mean(jnp.square(features['layer4'])), (features['layer4'], updated)

    return jax.grad(loss, has_aux=True)(params)

  gradients, (output, updated) = step(variables['params'])
  assert_close(output, arrays.pop('output'))
  ours = trees.flatten_names({'params': gradients} | updated)
  # Running variances are compared too: they take the unbiased variance, as torch's do.
  tensors = {key.split('/')[1]: value for key, value in arrays.items()}
  theirs, _ = torch_names.from_torch(tensors, backbones.info('resnest50'))
  assert len(theirs) == len(arrays) > 30
  for name, value in theirs.items():
    assert_close(np.asarray(ours[name.replace('/backbone', '')]), value, tolerance=3e-4)
