import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax.nn import layers
from pnoc_jax.ops import resize
from pnoc_jax.predict import poolnet as saliency_net

# Odd sizes, one of them a strip; each image at two scales.
NATIVE = np.array([[13, 22], [19, 5]], np.int32)
SCALES = (1.0, 1.5)


class Net(nn.Module):
  """A convolution: the interface of `nn.saliency_net`."""

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    assert not train
    return layers.Conv(1, 3, use_bias=True, name='conv')(image, valid)[..., 0]


def test_padded_maps_are_the_mean_probabilities_of_each_image():
  rng = np.random.default_rng(0)
  model, image = Net(), jnp.zeros((1, 8, 8, 3))
  variables = jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32),
    jax.eval_shape(model.init, jax.random.key(0), image),
  )
  maps, sizes, expected = [], [], [0.0, 0.0]
  for scale in SCALES:
    size = np.round(NATIVE * scale).astype(np.int32)
    # What lies outside of the content has to be 0, as buckets have it.
    batch = np.zeros((2, *(size.max(0) + 3), 3), np.float32)
    for i, (height, width) in enumerate(size):
      alone = rng.normal(size=(1, height, width, 3)).astype(np.float32)
      batch[i, :height, :width] = alone[0]
      p = 1 / (1 + np.exp(-np.asarray(model.apply(variables, alone))[0]))
      large = resize.bilinear(jnp.asarray(p)[..., None], tuple(NATIVE[i]))
      expected[i] += np.asarray(large)[..., 0] / len(SCALES)
    scale_map = jax.jit(lambda x, n: saliency_net.scale_map(model, variables, x, n))
    maps.append(scale_map(batch, size))
    sizes.append(size)
  found = np.array(saliency_net.fuse_maps(maps, sizes, NATIVE, shape=(20, 24)))
  assert found.shape == (2, 20, 24)
  for i, (height, width) in enumerate(NATIVE):
    np.testing.assert_allclose(found[i, :height, :width], expected[i], atol=1e-5)
    found[i, :height, :width] = 0
  assert not found.any()
