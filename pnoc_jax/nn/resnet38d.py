"""The wide ResNet-38 (Wu et al., 2016), as OC-CSE and AffinityNet's first code use it.

Its blocks normalise first, and it has no pool: the stem ends at stride 2 and layer1 strides to 4.
Layers 3 and 4 are dilated, so the output stride is 8. With the released names: the stem is conv1a
and b2*, layer1 b3*, layer2 b4*, layer3 b5*, layer4 b6, b7 and bn7.
"""

import flax.linen as nn
import jax.numpy as jnp

from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import moments
from pnoc_jax.types import Array

_DROPOUT = (0.3, 0.5)  # Of the two blocks of layer4.


class Block(nn.Module):
  """Normalisation, then two 3 x 3 convolutions; the shortcut is of the normalised input.

  Attributes:
    width: number of output channels.
    inner: number of channels between the convolutions.
    stride: stride of the first convolution and of the shortcut.
    first_dilation: dilation of the first convolution.
    dilation: dilation of the second convolution.
    project: whether the shortcut is a 1 x 1 convolution.
    dtype: type of the computation.
  """

  width: int
  inner: int
  stride: int = 1
  first_dilation: int = 1
  dilation: int = 1
  project: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    dtype = self.dtype
    out_valid = layers.stride_valid(valid, self.stride)
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn1')(x, valid, train)
    if self.project:
      x = layers.Conv(self.width, stride=self.stride, dtype=dtype, name='shortcut_conv')(y)
    conv1 = layers.Conv(self.inner, 3, self.stride, self.first_dilation, dtype=dtype, name='conv1')
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn2')(conv1(y, valid), out_valid, train)
    conv2 = layers.Conv(self.width, 3, dilation=self.dilation, dtype=dtype, name='conv2')
    return x + conv2(y, out_valid), out_valid


class WideBlock(nn.Module):
  """Normalisation, then 1 x 1, 3 x 3 and 1 x 1 convolutions with dropout of channels between.

  Differs from the reference: channels are dropped only where the caller passes a key `dropout`, as
  DeepLabV3+'s training does; because the updates of classifiers take no keys.

  Attributes:
    width: number of output channels; a quarter and a half of it are inside.
    dilation: dilation of the 3 x 3 convolution.
    dropout: rate of the dropout.
    last: whether the network ends here, with normalisation and ReLU.
    dtype: type of the computation.
  """

  width: int
  dilation: int
  dropout: float
  last: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask, unchanged; `train` uses the batch's statistics."""
    dtype = self.dtype
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn1')(x, valid, train)
    x = layers.Conv(self.width, dtype=dtype, name='shortcut_conv')(y)
    y = layers.Conv(self.width // 4, dtype=dtype, name='conv1')(y)
    y = self._drop(
      'dropout1', layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn2')(y, valid, train)
    )
    conv2 = layers.Conv(self.width // 2, 3, dilation=self.dilation, dtype=dtype, name='conv2')
    y = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn3')(conv2(y, valid), valid, train)
    x = x + layers.Conv(self.width, dtype=dtype, name='conv3')(self._drop('dropout2', y))
    if self.last:
      x = layers.BatchNorm(dtype, act=moments.Act.RELU, name='bn4')(x, valid, train)
    return x, valid

  def _drop(self, name: str, x: Array) -> Array:
    drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), name=name)
    return drop(x, deterministic=not self.has_rng('dropout'))


class Stem(nn.Module):
  """A 3 x 3 convolution and three blocks: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2 * width].

  Attributes:
    width: number of channels of the convolution.
    dtype: type of the computation.
  """

  width: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, valid: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Returns the features and the mask at their stride; `train` uses the batch's statistics."""
    x = layers.Conv(self.width, 3, dtype=self.dtype, name='conv1')(x, valid)
    width = 2 * self.width
    x, valid = Block(width, width, 2, project=True, dtype=self.dtype, name='block0')(
      x, valid, train
    )
    for name in ('block1', 'block2'):
      x, valid = Block(width, width, dtype=self.dtype, name=name)(x, valid, train)
    return x, valid


def make_stage(row: trunk.Row, options: trunk.Options, index: int, channels: int) -> trunk.Stage:
  """Makes layer1 to layer4, whose blocks differ; `widths` are their channels.

  Args:
    row: the backbone's facts.
    options: how it is built.
    index: 0 for layer1, to 3 for layer4.
    channels: of the stage's input.
  """
  stride, dilation = row.plan(options.output_stride)[index]
  width, dtype = row.widths[index], options.dtype
  if index == 3:
    block = WideBlock
    first = {'width': width // 2, 'dilation': dilation, 'dropout': _DROPOUT[0], 'dtype': dtype}
    rest = first | {'width': width, 'dropout': _DROPOUT[1], 'last': True}
  else:
    block = row.block
    # layer3 doubles the channels within its blocks.
    inner = width // 2 if index == 2 else width
    common = {'width': width, 'inner': inner, 'dilation': dilation, 'dtype': dtype}
    first = common | {'stride': stride, 'project': stride > 1 or channels != width}
    rest = common | {'first_dilation': dilation}
  name = trunk.STAGES[index + 1]
  return trunk.Stage(block, first, rest, row.blocks[index], options.remat, options.scan, name=name)


# Module names of psa's file: those of the blocks, and those within a block.
_BLOCKS = {
  'b2': 'stem/block0',
  **{f'b2_{k}': f'stem/block{k}' for k in (1, 2)},
  'b3': 'layer1/block0',
  **{f'b3_{k}': f'layer1/block{k}' for k in (1, 2)},
  'b4': 'layer2/block0',
  **{f'b4_{k}': f'layer2/block{k}' for k in range(1, 6)},
  'b5': 'layer3/block0',
  **{f'b5_{k}': f'layer3/block{k}' for k in (1, 2)},
  'b6': 'layer4/block0',
  'b7': 'layer4/block1',
}
_WITHIN = (
  (r'(bn|conv)_branch2a', r'\g<1>1'),
  (r'(bn|conv)_branch2b1', r'\g<1>2'),
  (r'(bn|conv)_branch2b2', r'\g<1>3'),
  (r'conv_branch1', 'shortcut_conv'),
)

ROWS = (
  trunk.Row(
    'resnet38d',
    stem=Stem,
    block=Block,
    blocks=(3, 6, 3, 2),
    torch_names=(
      ('conv1a', 'stem/conv1'),
      ('bn7', 'layer4/block1/bn4'),
      *(
        (rf'{block}\.{pattern}', f'{path}/{replacement}')
        for block, path in _BLOCKS.items()
        for pattern, replacement in _WITHIN
      ),
    ),
    widths=(256, 512, 1024, 4096),
    expansion=1,
    stem_expansion=2,
    pool=layers.Pool.NONE,
    output_strides=(8,),
    fixed_plan=((2, 1), (2, 1), (1, 2), (1, 4)),
    make_stage=make_stage,
  ),
)
