"""PoolNet against PyTorch, on padded images, and its size."""

import json
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import seeded_tensors

from pnoc_jax import errors, trees
from pnoc_jax.nn import backbones, torch_names
from pnoc_jax.nn import poolnet as saliency_net

FIXTURE = pathlib.Path(__file__).parent.parent / 'fixtures' / 'poolnet.npz'
TAPS = ('stem_conv', 'layer1', 'layer2', 'layer3', 'layer4')
# Names of the released weights.
NAMES = (
  (r'base\.ppms_pre', r'context/reduce'),
  (r'base\.ppms\.(\d)\.1', lambda m: f'context/level{(1, 3, 5)[int(m[1])]}'),
  (r'base\.ppm_cat\.0', r'context/join'),
  (r'base\.infos\.(\d)\.0', lambda m: f'guide_{TAPS[3 - int(m[1])]}'),
  (r'convert\.(\d)\.0', lambda m: f'convert_{TAPS[int(m[1])]}'),
  (r'deep_pool\.([0-3])\.(\w+(?:\.\d)?)', lambda m: f'merge_{TAPS[3 - int(m[1])]}/{part(m[2])}'),
  (r'deep_pool\.4\.(\w+(?:\.\d)?)', lambda m: f'merge/{part(m[1])}'),
  (r'score', r'score'),
)


def part(name):
  windows = {f'convs.{i}': f'window{n}' for i, n in enumerate((2, 4, 8))}
  return {'conv_sum': 'sum', 'conv_sum_c': 'fuse', **windows}[name]


def convert(tensors):
  trunk = {n.removeprefix('base.resnet.'): x for n, x in tensors.items() if '.resnet.' in n}
  found, unknown = torch_names.from_torch(trunk, backbones.info('resnet50_caffe'))
  assert not unknown
  for name, value in tensors.items():
    module, _, leaf = name.rpartition('.')
    for pattern, ours in NAMES:
      if re.fullmatch(pattern, module):
        path = re.sub(pattern, ours, module)
        kernel = value.ndim == 4
        value = value.transpose(2, 3, 1, 0) if kernel else value
        found[f'params/decoder/{path}/{"kernel" if kernel else leaf}'] = value
  assert len(found) == len(tensors)
  return found


def test_equals_torch_alone_and_padded():
  with np.load(FIXTURE) as file:
    theirs = {key: file[key] for key in file.files}
  meta = json.loads(str(theirs.pop('meta')))
  tensors = {n: seeded_tensors.tensor(n, tuple(s)) for n, s in meta['shapes'].items()}
  backbone = networks.make_backbone('resnet50_caffe', before_pool=True, **meta['backbone'])
  model = saliency_net.PoolNet(backbone, width=meta['width'])
  template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  # Every name and shape is met; the net sees RGB where the released one sees BGR.
  variables = trees.merge_strict(template, convert(tensors))
  apply = jax.jit(model.apply)
  canvas = np.full((2, 176, 160, 3), 9.0, np.float32)
  valid = np.zeros(canvas.shape[:3], bool)
  alone = []
  for i, size in enumerate(theirs):
    height, width = map(int, size.split('x'))
    image = seeded_tensors.image((1, height, width, 3))
    canvas[i, :height, :width], valid[i, :height, :width] = image[0], True
    alone.append(np.asarray(apply(variables, image))[0])
  padded = np.asarray(apply(variables, canvas, valid))
  for ours, own, expected in zip(padded, alone, theirs.values(), strict=True):
    scale = np.abs(expected).max()
    step = meta['step']
    np.testing.assert_allclose(own[::step, ::step] / scale, expected / scale, atol=1e-4)
    height, width = own.shape
    np.testing.assert_allclose(ours[:height, :width] / scale, own / scale, atol=1e-5)
    assert not ours[height:].any() and not ours[:, width:].any()


class Pixels(nn.Module):
  """A backbone whose every feature is every stride-th pixel."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    strides = dict(zip(TAPS, (2, 4, 8, 8, 8), strict=True))
    features = {name: image[:, ::n, ::n] for name, n in strides.items()}
    if valid is None:
      return features, None
    return features, {name: valid[:, ::n, ::n] for name, n in strides.items()}


def test_grids_smaller_than_the_pools_pad_alike():
  # The coarsest grid has 3 x 2 cells: fewer than windows have rows.
  model = saliency_net.PoolNet(Pixels(), width=4)
  rng = np.random.default_rng(0)
  image = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
  template = jax.eval_shape(model.init, jax.random.key(0), image)
  variables = jax.tree.map(lambda x: rng.normal(0.0, 0.3, x.shape).astype(np.float32), template)
  valid = np.zeros((1, 32, 32), bool)
  valid[:, :21, :13] = True
  apply = jax.jit(model.apply)
  alone = np.asarray(apply(variables, image[:, :21, :13]))
  padded = np.array(apply(variables, image, valid))
  scale = np.abs(alone).max()
  np.testing.assert_allclose(padded[:, :21, :13] / scale, alone / scale, atol=1e-5)
  padded[:, :21, :13] = 0
  assert not padded.any()


def _bottlenecks(count, inputs, planes):
  """Convolutions and BatchNorm of a ResNet's stage."""
  first = inputs * planes + 9 * planes**2 + planes * 4 * planes + inputs * 4 * planes
  other = 4 * planes * planes + 9 * planes**2 + planes * 4 * planes
  norms = count * 2 * (2 * planes + 4 * planes) + 2 * 4 * planes
  return first + (count - 1) * other + norms


def test_size_is_the_published_one():
  backbone = networks.make_backbone('resnet50_caffe', before_pool=True)
  model = saliency_net.PoolNet(backbone)
  image = jnp.zeros((1, 224, 161, 3))
  logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  assert logits.shape == (1, 224, 161)
  trunk = 7 * 7 * 3 * 64 + 2 * 64
  for count, inputs, planes in ((3, 64, 64), (4, 256, 128), (6, 512, 256), (3, 1024, 512)):
    trunk += _bottlenecks(count, inputs, planes)
  convert = 64 * 128 + 256 * 256 + 512 * 256 + 1024 * 512 + 2048 * 512
  context = 2048 * 512 + 3 * 512 * 512 + 9 * 2048 * 512
  guides = 9 * 512 * (512 + 256 + 256 + 128)
  merges = 0
  for k, ko, fused in ((512, 512, 1), (512, 256, 1), (256, 256, 1), (256, 128, 1), (128, 128, 0)):
    merges += 9 * (3 * k * k + k * ko + fused * ko * ko)
  total = trunk + convert + context + guides + merges + 129
  assert trees.count(variables['params']) == total
  assert round(total / 1e6, 2) == 68.26  # As published.
  features, _ = jax.eval_shape(
    lambda v: backbone.apply({c: tree['backbone'] for c, tree in v.items()}, image), variables
  )
  # The pool in ceil mode: 112 rows become 57; layer4 is dilated.
  rows = {name: x.shape[1:3] for name, x in features.items()}
  assert rows == {
    'stem_conv': (112, 81),
    'stem': (57, 41),
    'layer1': (57, 41),
    'layer2': (29, 21),
    'layer3': (15, 11),
    'layer4': (15, 11),
  }


def test_initial_weights_have_the_papers_deviation():
  for width in (128, 16):
    kernel = saliency_net.initializer(width)(jax.random.key(0), (3, 3, 32, 64))
    assert abs(float(kernel.std()) / (0.01 * (128 / width) ** 0.5) - 1) < 0.02


def test_a_backbone_without_the_features_is_refused():
  backbone = networks.make_backbone('resnest_tiny', last_stage='layer3')
  with pytest.raises(errors.UserError, match='lacks stem_conv, layer4'):
    jax.eval_shape(
      saliency_net.PoolNet(backbone).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
