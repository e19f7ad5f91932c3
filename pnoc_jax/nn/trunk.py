"""What a backbone is: its row of facts, the options it is built with, and the module they make.

The family files (`resnet`, `resnest`, ...) hold the rows, `backbones` gathers them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax.nn import layers
from pnoc_jax.ops import convolution
from pnoc_jax.types import Array

STAGES = ('stem', 'layer1', 'layer2', 'layer3', 'layer4')
BEFORE_POOL = 'stem_conv'

# Stride and dilation of layer1 to layer4.
Plan = tuple[tuple[int, int], ...]
Color = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Options:
  """How a backbone is built; its parameters depend on `last_stage` alone.

  Attributes:
    output_stride: 8, 16 or 32, of some backbones 8 alone; a stage beyond it is dilated instead of
      strided.
    last_stage: 'layer1' to 'layer4'; later stages are not built ('layer3' is a "C4" trunk).
    norm: statistics that batch normalisation uses in training.
    frozen_stages: so many of (stem, layer1, ...) use the running statistics and get no gradient.
    before_pool: whether the features begin with `BEFORE_POOL`, the stem's before its pool.
    dtype: type of the computation; parameters and statistics are float32.
    remat: whether a block's activations are computed again in the backward pass, to save memory.
    scan: whether identical blocks are compiled once, to save compile time.
    radix: form of grouped convolutions: ResNeSt's, and depthwise ones.
  """

  output_stride: int = 16
  last_stage: str = 'layer4'
  norm: layers.Norm = layers.Norm.BATCH
  frozen_stages: int = 0
  before_pool: bool = False
  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  scan: bool = False
  radix: convolution.Radix = convolution.Radix.AUTO


def plan_strides(
  stem_stride: int, output_stride: int, strides: tuple[int, ...] = (1, 2, 2, 2)
) -> Plan:
  """Returns (stride, dilation) of layer1 to layer4, whose full strides are given.

  A stage strides while the total stays within `output_stride`; each after that doubles the
  dilation: at stem stride 4, output stride 16 gives strides 1, 2, 2, 1 and dilations 1, 1, 1, 2.
  """
  total, dilation, plan = stem_stride, 1, []
  for wanted in strides:
    stride = wanted if total * wanted <= output_stride else 1
    if stride < wanted:
      dilation *= wanted
    total *= stride
    plan.append((stride, dilation))
  return tuple(plan)


class Block(nn.Module):
  """What the blocks of ResNets and ResNeSts have in common: their fields.

  Attributes:
    planes: width of the 3 x 3 convolution; the block has `planes * expansion` output channels.
    expansion: see `planes`.
    stride: of the block.
    dilation: of its 3 x 3 convolutions.
    project: whether the shortcut has a 1 x 1 convolution.
    is_first: whether the block is the first one of layer2, layer3 or layer4.
    radix: form of ResNeSt's grouped convolution.
    dtype: type of the computation.
  """

  planes: int
  expansion: int = 4
  stride: int = 1
  dilation: int = 1
  project: bool = False
  is_first: bool = False
  radix: convolution.Radix = convolution.Radix.AUTO
  dtype: jnp.dtype = jnp.float32


class Stage(nn.Module):
  """Runs the blocks of one stage, named block0, block1, ...

  With `scan` the blocks after the first run in one `lax.scan` over their stacked variables, which
  compiles one block instead of all. It keeps `layers.KEPT` of each block for the gradients, or with
  `remat` the block's input alone, and computes the rest again. The variables themselves stay one
  subtree a block, so the parameter tree, the weights files and the results are those of the
  unrolled stage.

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
      return x, updated.get('batch_stats', {})

    kept = None if self.remat else jax.checkpoint_policies.save_only_these_names(layers.KEPT)
    body = jax.checkpoint(body, prevent_cse=False, policy=kept)
    per_block = [{c: tree[name] for c, tree in self.variables.items()} for name in names]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *per_block)
    x, stats = jax.lax.scan(body, x, stacked)
    if train and self.is_mutable_collection('batch_stats'):
      for i, name in enumerate(names):
        self.put_variable('batch_stats', name, jax.tree.map(lambda s, i=i: s[i], stats))
    return x


def make_stage(row: 'Row', options: Options, index: int, channels: int) -> Stage:
  """Makes a stage of `row.block`.

  Args:
    row: the backbone's facts.
    options: how it is built.
    index: 0 for layer1, to 3 for layer4.
    channels: of the stage's input.
  """
  stride, dilation = row.plan(options.output_stride)[index]
  width = row.widths[index]
  common = {
    'planes': width,
    'expansion': row.expansion,
    'radix': options.radix,
    'dtype': options.dtype,
  }
  first = {
    'stride': stride,
    'dilation': row.first_dilation(dilation),
    'project': stride > 1 or channels != width * row.expansion,
    'is_first': index > 0,
  }
  return Stage(
    row.block,
    common | first,
    common | {'dilation': dilation},
    row.blocks[index],
    options.remat,
    options.scan,
    name=STAGES[index + 1],
  )


def same_dilation(dilation: int) -> int:
  """Returns the dilation of a stage's first block where it is that of the others."""
  return dilation


def half_dilation(dilation: int) -> int:
  """Returns half of the dilation of a stage's other blocks, at least 1, for its first block."""
  return max(dilation // 2, 1)


@dataclasses.dataclass(frozen=True)
class Row:
  """All that is known of a backbone, whatever it is built for.

  Attributes:
    name: its name in configs and in the weights that it left.
    stem: constructor of the stem, `stem(width, dtype)`: a module `(x, valid, train) -> (x, valid)`
      at stride 2, whose first convolution is `conv1`. The pool after it is not part of it.
    block: constructor of the blocks; `Block` says what it is called with.
    blocks: number of blocks of layer1 to layer4.
    torch_names: (pattern, replacement) of module names in the released weights, which a pattern
      matches whole, to our paths: `(r'layer(\\d)\\.conv', r'layer\1/block0/conv')`.
    torch_ignored: pattern of the names of arrays in the released weights that no backbone has,
      beside those that `torch_names` ignores for all.
    first_dilation: dilation of a stage's first block, given that of the others.
    widths: planes of layer1 to layer4; a stage has `planes * expansion` channels.
    expansion: see `widths`.
    stem_width: what the stem is built with; it has `stem_width * stem_expansion` channels.
    stem_expansion: see `stem_width`.
    stem_radix: whether the stem is also given the options' `radix`.
    pool: how the stem ends: at stride 4, or without a pool at stride 2.
    strides: of layer1 to layer4 at output stride 32.
    output_strides: those that it can have.
    fixed_plan: stride and dilation of layer1 to layer4 where these do not follow `plan_strides`.
    fixed_stem_stride: pixels to a cell of the stem's grid where the pool does not say it.
    make_stage: makes layer1 to layer4, with the arguments of `trunk.make_stage`.
    make: makes the whole module, of the row and the options, where it is no `trunk.Backbone`: a
      network of any kind that is called as one and has its attribute `dtype`.
    mean: the mean colour, in [0, 1], that the released weights want taken off an image, where it
      is not the data set's.
    std: the deviation that they want it divided by; given where `mean` is.
    bgr: whether the released weights see blue, green, red; our networks see red, green, blue.
    pretrained: released weights, `hub:OWNER/NAME`, or empty where none can be had by name.
  """

  name: str
  stem: Callable[..., nn.Module]
  block: Callable[..., nn.Module]
  blocks: tuple[int, ...]
  torch_names: tuple[tuple[str, str], ...] = ()
  torch_ignored: str = ''
  first_dilation: Callable[[int], int] = same_dilation
  widths: tuple[int, ...] = (64, 128, 256, 512)
  expansion: int = 4
  stem_width: int = 64
  stem_expansion: int = 1
  stem_radix: bool = False
  pool: layers.Pool = layers.Pool.FLOOR
  strides: tuple[int, ...] = (1, 2, 2, 2)
  output_strides: tuple[int, ...] = (8, 16, 32)
  fixed_plan: Plan | None = None
  fixed_stem_stride: int | None = None
  make_stage: Callable[['Row', Options, int, int], nn.Module] = make_stage
  make: Callable[['Row', Options], nn.Module] | None = None
  mean: Color | None = None
  std: Color | None = None
  bgr: bool = False
  pretrained: str = ''

  @property
  def family(self) -> str:
    """Name of the file that its blocks are from: `resnet`, `vit` and the like."""
    return getattr(self.block, 'func', self.block).__module__.rpartition('.')[2]

  @property
  def channels(self) -> dict[str, int]:
    """Number of channels of each stage's features."""
    stem = self.stem_width * self.stem_expansion
    return dict(zip(STAGES, (stem, *(w * self.expansion for w in self.widths)), strict=True))

  @property
  def stem_stride(self) -> int:
    """Pixels to a cell of the stem's grid, which is layer1's unless that strides."""
    if self.fixed_stem_stride is not None:
      return self.fixed_stem_stride
    return 2 if self.pool is layers.Pool.NONE else 4

  @property
  def plain_grid(self) -> bool:
    """Whether n pixels at stride s have ceil(n / s) cells, as those of the classifiers' maps."""
    return self.pool is not layers.Pool.CEIL

  @property
  def stem_on_layer1_grid(self) -> bool:
    """Whether stem and layer1 have features of one size, as in the released AffinityNet."""
    return self.plan(self.output_strides[0])[0][0] == 1

  def plan(self, output_stride: int) -> Plan:
    """Returns (stride, dilation) of layer1 to layer4."""
    return self.fixed_plan or plan_strides(self.stem_stride, output_stride, self.strides)


class Backbone(nn.Module):
  """A stem and the stages layer1 to `last_stage`; built by `backbones.make_backbone`.

  Attributes:
    row: what it is.
    options: how it is built.
  """

  row: Row
  options: Options

  @property
  def dtype(self) -> jnp.dtype:
    """Type of the computation and of the features."""
    return self.options.dtype

  @property
  def plan(self) -> Plan:
    """Stride and dilation of layer1 to layer4."""
    return self.row.plan(self.options.output_stride)

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
    row, options = self.row, self.options
    batch_norm = train and options.norm is layers.Norm.BATCH
    features, valids = {}, {}
    x = image.astype(options.dtype)
    for i, name in enumerate(STAGES[: STAGES.index(options.last_stage) + 1]):
      if i == 0:
        form = {'radix': options.radix} if row.stem_radix else {}
        stage = row.stem(row.stem_width, options.dtype, name=name, **form)
      else:
        stage = row.make_stage(row, options, i - 1, x.shape[-1])
      frozen = i < options.frozen_stages
      x, valid = stage(x, valid, batch_norm and not frozen)
      x = jax.lax.stop_gradient(x) if frozen else x
      if i == 0:
        if options.before_pool:
          features[BEFORE_POOL], valids[BEFORE_POOL] = x, valid
        x, valid = layers.pool_stem(x, valid, row.pool)
      features[name], valids[name] = x, valid
    return features, None if valid is None else valids
