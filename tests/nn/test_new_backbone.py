"""A backbone is a row: one that is defined here builds, trains and takes foreign weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pnoc_jax.nn import backbones, classifier, layers, torch_names, trunk


class Stem(nn.Module):
  """One convolution of stride 2."""

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, valid, train):
    x = layers.Conv(self.width, 3, stride=2, dtype=self.dtype, name='conv1')(x, valid)
    return nn.relu(x), layers.stride_valid(valid, 2)


class Block(trunk.Block):
  """One convolution and a normalisation."""

  @nn.compact
  def __call__(self, x, valid, train):
    conv = layers.Conv(self.planes, 3, self.stride, self.dilation, dtype=self.dtype, name='conv')
    x, valid = conv(x, valid), layers.stride_valid(valid, self.stride)
    return nn.relu(layers.BatchNorm(self.dtype, name='bn')(x, valid, train)), valid


TOY = backbones.Row(
  'toy',
  stem=Stem,
  block=Block,
  blocks=(1, 2, 1, 1),
  torch_names=((r'first', 'stem/conv1'), (r'body(\d)\.(\d)\.(conv|bn)', r'layer\1/block\2/\3')),
  widths=(4, 4, 8, 8),
  expansion=1,
  stem_width=4,
  pool=layers.Pool.NONE,
  bgr=True,
)


class Foreign(nn.Module):
  """A network of flax's own layers, with one map: patches of 8 x 8 pixels and a perceptron."""

  row: trunk.Row
  options: trunk.Options

  @property
  def dtype(self):
    return self.options.dtype

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    image = layers.zero_invalid(image, valid)
    pads = ((0, 0), (0, -image.shape[1] % 8), (0, -image.shape[2] % 8), (0, 0))
    x = nn.Conv(6, (8, 8), 8, padding='VALID', name='patches')(jnp.pad(image, pads))
    x = nn.Dense(10, name='mix')(nn.relu(x))
    mask = layers.stride_valid(valid, 8)
    return {'layer4': x}, None if mask is None else {'layer4': mask}


def test_a_module_of_any_kind_is_a_backbone():
  row = backbones.Row(
    'foreign', None, None, (1,) * 4, output_strides=(8,), fixed_stem_stride=8, make=Foreign
  )
  model = classifier.Classifier(backbones.make_backbone(row, backbones.Options(output_stride=8)), 3)
  image = np.random.default_rng(0).normal(size=(1, 30, 21, 3)).astype(np.float32)
  variables = jax.jit(model.init)(jax.random.key(0), image)
  alone = model.apply(variables, image)
  assert alone.shape == (1, 4, 3, 3)
  canvas, valid = np.full((1, 40, 40, 3), 7.0, np.float32), np.zeros((1, 40, 40), bool)
  canvas[:, :30, :21], valid[:, :30, :21] = image, True
  padded = np.asarray(model.apply(variables, canvas, valid))
  np.testing.assert_allclose(padded[:, :4, :3], alone, atol=1e-5)
  assert not padded[:, 4:].any() and not padded[:, :, 3:].any()


def test_a_row_added_to_the_table_builds_and_trains(monkeypatch):
  monkeypatch.setitem(backbones.TABLE, TOY.name, TOY)
  backbone = backbones.make_backbone('toy', backbones.Options(output_stride=8))
  model = classifier.Classifier(backbone, 2)
  image = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
  label = jnp.eye(2)[jnp.array([0, 1, 0, 1])]
  variables = jax.jit(model.init)(jax.random.key(0), image)
  params, stats = variables['params'], variables['batch_stats']
  tx = optax.sgd(0.1)

  @jax.jit
  def step(params, stats, slots):
    def loss(params):
      cam, updated = model.apply(
        {'params': params, 'batch_stats': stats}, image, train=True, mutable=['batch_stats']
      )
      logits = cam.mean((1, 2))
      return optax.sigmoid_binary_cross_entropy(logits, label).mean(), updated['batch_stats']

    (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, slots = tx.update(gradients, slots)
    return optax.apply_updates(params, updates), stats, slots, value

  slots, losses = tx.init(params), []
  for _ in range(8):
    params, stats, slots, value = step(params, stats, slots)
    losses.append(float(value))
  assert losses[-1] < losses[0]
  cam = jax.jit(model.apply)({'params': params, 'batch_stats': stats}, image)
  assert cam.shape == (4, 4, 4, 2)
  features, _ = jax.eval_shape(lambda x: backbone.init_with_output(jax.random.key(0), x)[0], image)
  assert {name: x.shape[-1] for name, x in features.items()} == TOY.channels


def test_its_foreign_names_and_colors_are_the_rows():
  kernel = np.arange(4 * 3 * 9, dtype=np.float32).reshape(4, 3, 3, 3)
  tensors = {'first.weight': kernel, 'body2.1.bn.running_var': np.ones(4), 'head.weight': kernel}
  ours, unknown = torch_names.from_torch(tensors, TOY)
  assert unknown == ['head.weight']
  assert set(ours) == {
    'params/backbone/stem/conv1/kernel',
    'batch_stats/backbone/layer2/block1/bn/var',
  }
  found = ours['params/backbone/stem/conv1/kernel']
  # The first channel that our network sees is red, the last one that theirs sees.
  np.testing.assert_array_equal(found[:, :, 0], kernel.transpose(2, 3, 1, 0)[:, :, 2])
