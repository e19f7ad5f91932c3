"""Composes stem and stages of blocks into a backbone: strides, dilations, freezing, remat, scan."""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax.nn import layers
from pnoc_jax.types import Array

STAGES = ('stem', 'layer1', 'layer2', 'layer3', 'layer4')
BEFORE_POOL = 'stem_conv'


def plan_strides(stem_stride: int, output_stride: int) -> list[tuple[int, int]]:
  """Returns (stride, dilation) of layer1 to layer4.

  A stage strides while the total stays within `output_stride`; each after that doubles the
  dilation: at stem stride 4, output stride 16 gives strides 1, 2, 2, 1 and dilations 1, 1, 1, 2.
  """
  total, dilation, plan = stem_stride, 1, []
  for wanted in (1, 2, 2, 2):
    stride = wanted if total * wanted <= output_stride else 1
    if stride < wanted:
      dilation *= wanted
    total *= stride
    plan.append((stride, dilation))
  return plan


class Backbone(nn.Module):
  """A stem and the stages layer1 to `last_stage`; built by `backbones.make_backbone`.

  Attributes:
    stem: the module of that name; without its pool, which has no parameters.
    pool: what follows it.
    block: constructor of the blocks, see `resnest.Block`.
    blocks: number of blocks of layer1 to layer4.
    widths: planes of layer1 to layer4.
    expansion: a stage has `planes * expansion` channels.
    plan: stride and dilation of layer1 to layer4.
    first_dilation: dilation of a stage's first block, given that of the others.
    last_stage: name of the last stage.
    norm: statistics that batch normalisation uses in training.
    frozen_stages: so many of (stem, layer1, ...) use the running statistics and get no gradient.
    dtype: type of the computation.
    remat: whether a block's activations are computed again in the backward pass.
    scan: whether identical blocks are compiled once.
    radix: form of the grouped convolution.
    before_pool: whether the features begin with `BEFORE_POOL`, the stem's before its pool.
  """

  stem: nn.Module
  block: Callable[..., nn.Module]
  blocks: tuple[int, ...]
  widths: tuple[int, ...]
  expansion: int
  plan: tuple[tuple[int, int], ...]
  first_dilation: Callable[[int], int]
  pool: layers.Pool = layers.Pool.FLOOR
  last_stage: str = 'layer4'
  norm: layers.Norm = layers.Norm.BATCH
  frozen_stages: int = 0
  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  scan: bool = False
  radix: layers.Radix = layers.Radix.AUTO
  before_pool: bool = False

  @nn.compact
  def __call__(
    self, image: Array, valid: Array | None = None, *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Computes the features of every stage.

    Args:
      image: normalised images f[B, H, W, C].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.
      train: whether batch normalisation uses the statistics of the batch's valid pixels and updates
        the running ones.

    Returns:
      `{'stem': f[B, h, w, C], 'layer1': ..., ...}` in `dtype`, and with `valid` the mask of each.
      Features of invalid pixels are arbitrary.
    """
    chex.assert_rank(image, 4)
    batch_norm = train and self.norm is layers.Norm.BATCH
    last = STAGES.index(self.last_stage)
    features, valids = {}, {}
    x = image.astype(self.dtype)
    for i, name in enumerate(STAGES[: last + 1]):
      frozen = i < self.frozen_stages
      stage = self.stem if i == 0 else self._stage(i - 1, x.shape[-1])
      x, valid = stage(x, valid, batch_norm and not frozen)
      x = jax.lax.stop_gradient(x) if frozen else x
      if i == 0:
        if self.before_pool:
          features[BEFORE_POOL], valids[BEFORE_POOL] = x, valid
        x, valid = layers.pool_stem(x, valid, self.pool)
      features[name], valids[name] = x, valid
    return features, None if valid is None else valids

  def _stage(self, i: int, channels: int) -> 'Stage':
    """Returns layer i + 1, given the number of channels of its input."""
    stride, dilation = self.plan[i]
    common = {
      'planes': self.widths[i],
      'expansion': self.expansion,
      'radix': self.radix,
      'dtype': self.dtype,
    }
    first = {
      'stride': stride,
      'dilation': self.first_dilation(dilation),
      'project': stride > 1 or channels != self.widths[i] * self.expansion,
      'is_first': i > 0,
    }
    return Stage(
      self.block,
      common | first,
      common | {'dilation': dilation},
      self.blocks[i],
      self.remat,
      self.scan,
      name=STAGES[i + 1],
    )


class Stage(nn.Module):
  """Runs the blocks of one stage, named block0, block1, ...

  With `scan` the blocks after the first run in one `lax.scan` over their stacked variables, which
  compiles one block instead of all. The variables themselves stay one subtree a block, so the
  parameter tree, the weights files and the results are those of the unrolled stage.

  Attributes:
    block: constructor of the blocks.
    first: arguments of the first block.
    rest: arguments of the others.
    count: number of blocks.
    remat: whether a block's activations are computed again in the backward pass.
    scan: whether the blocks after the first are compiled once.
  """

  block: Callable[..., nn.Module]
  first: Mapping[str, Any]
  rest: Mapping[str, Any]
  count: int
  remat: bool = False
  scan: bool = False

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    block = nn.remat(self.block, static_argnums=(3,)) if self.remat else self.block
    x, valid = block(**self.first, name='block0')(x, valid, train)
    names = [f'block{i}' for i in range(1, self.count)]
    if self.scan and len(names) > 1 and not self.is_initializing():
      return self._scan(names, x, valid, train), valid
    for name in names:
      x, valid = block(**self.rest, name=name)(x, valid, train)
    return x, valid

  def _scan(self, names: list[str], x: Array, valid: Array | None, train: bool) -> Array:
    """Runs the identical blocks of these names in one loop."""
    block = self.block(**self.rest, parent=None)

    def body(x, variables):
      (x, _), updated = block.apply(variables, x, valid, train, mutable=['batch_stats'])
      return x, updated['batch_stats']

    if self.remat:
      body = jax.checkpoint(body, prevent_cse=False)
    per_block = [{c: tree[name] for c, tree in self.variables.items()} for name in names]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *per_block)
    x, stats = jax.lax.scan(body, x, stacked)
    if train and self.is_mutable_collection('batch_stats'):
      for i, name in enumerate(names):
        self.put_variable('batch_stats', name, jax.tree.map(lambda s, i=i: s[i], stats))
    return x
