"""Builds any backbone from its name: the one table of names.

```
backbone = backbones.make_backbone('resnest101', output_stride=16)
features, valids = backbone.apply(variables, image, train=False)
features['layer4']  # [B, H / 16, W / 16, 2048]
```
"""

import dataclasses
import difflib
import enum
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from pnoc_jax import errors
from pnoc_jax.nn import layers, resnest, resnet, resnet38d, trunk

Norm = layers.Norm
Pool = layers.Pool
Radix = layers.Radix

STAGES = trunk.STAGES
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of images in 0..255, less their mean colour. Caffe's order is blue, green, red: `torch_names`
# turns the first convolution's channels round, so that its nets see RGB here, too.
CAFFE_MEAN = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255)
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)


class Family(enum.Enum):
  """Backbones that share their blocks and the names of their foreign weights."""

  RESNET_BASIC = 'resnet_basic'
  RESNET = 'resnet'
  RESNET_CAFFE = 'resnet_caffe'
  RESNEST = 'resnest'
  RESNET38D = 'resnet38d'


@dataclasses.dataclass(frozen=True)
class BackboneInfo:
  """What is known of a backbone before it is built.

  Attributes:
    name: its name in the table.
    family: decides blocks and foreign weight names.
    blocks: number of blocks of layer1 to layer4.
    widths: planes of layer1 to layer4; a stage has `planes * expansion` channels.
    expansion: see `widths`.
    stem_width: channels of the stem's first convolution.
    pool: how the stem ends: at stride 4, or without a pool at stride 2.
    output_strides: those that it can have.
    mean: mean of the images the released weights were trained on, in [0, 1].
    std: standard deviation of these images.
  """

  name: str
  family: Family
  blocks: tuple[int, ...]
  widths: tuple[int, ...] = (64, 128, 256, 512)
  expansion: int = 4
  stem_width: int = 64
  pool: Pool = Pool.FLOOR
  output_strides: tuple[int, ...] = (8, 16, 32)
  mean: tuple[float, float, float] = IMAGENET_MEAN
  std: tuple[float, float, float] = IMAGENET_STD

  @property
  def channels(self) -> dict[str, int]:
    """Number of channels of each stage's features."""
    doubled = self.family in (Family.RESNEST, Family.RESNET38D)
    stem = self.stem_width * (2 if doubled else 1)
    return dict(zip(STAGES, (stem, *(w * self.expansion for w in self.widths)), strict=True))

  @property
  def stem_stride(self) -> int:
    """Pixels to a cell of the stem's grid, which is layer1's unless that strides."""
    return 2 if self.pool is Pool.NONE else 4

  def plan(self, output_stride: int) -> tuple[tuple[int, int], ...]:
    """Returns (stride, dilation) of layer1 to layer4."""
    if self.family is Family.RESNET38D:
      return resnet38d.PLAN
    return tuple(trunk.plan_strides(self.stem_stride, output_stride))


def _info(name: str, family: Family, blocks: Sequence[int], **rest: Any) -> BackboneInfo:
  if family is Family.RESNET_BASIC:
    rest.setdefault('expansion', 1)
  return BackboneInfo(name, family, tuple(blocks), **rest)


_TABLE = {
  info.name: info
  for info in (
    _info('resnet18', Family.RESNET_BASIC, (2, 2, 2, 2)),
    _info('resnet34', Family.RESNET_BASIC, (3, 4, 6, 3)),
    _info('resnet50', Family.RESNET, (3, 4, 6, 3)),
    _info('resnet101', Family.RESNET, (3, 4, 23, 3)),
    _info('resnet152', Family.RESNET, (3, 8, 36, 3)),
    # The original ResNet-50, of PoolNet; its stem's ceil-mode pool gives other grids (57 cells for
    # 224 px at stride 4).
    _info(
      'resnet50_caffe',
      Family.RESNET_CAFFE,
      (3, 4, 6, 3),
      pool=Pool.CEIL,
      mean=CAFFE_MEAN,
      std=CAFFE_STD,
    ),
    _info('resnest14', Family.RESNEST, (1, 1, 1, 1), stem_width=32),
    _info('resnest26', Family.RESNEST, (2, 2, 2, 2), stem_width=32),
    _info('resnest50', Family.RESNEST, (3, 4, 6, 3), stem_width=32),
    _info('resnest101', Family.RESNEST, (3, 4, 23, 3), stem_width=64),
    _info('resnest200', Family.RESNEST, (3, 24, 36, 3), stem_width=64),
    _info('resnest269', Family.RESNEST, (3, 30, 48, 8), stem_width=64),
    _info(
      'resnet38d',
      Family.RESNET38D,
      (3, 6, 3, 2),
      widths=(256, 512, 1024, 4096),
      expansion=1,
      pool=Pool.NONE,
      output_strides=(8,),
    ),
    # For small images on a CPU: 0.35 M parameters, no released weights.
    _info(
      'resnest_tiny',
      Family.RESNEST,
      (1, 1, 1, 1),
      widths=(16, 32, 64, 128),
      expansion=2,
      stem_width=8,
      pool=Pool.NONE,
    ),
  )
}

_STEMS = {
  Family.RESNET_BASIC: resnet.Stem,
  Family.RESNET: resnet.Stem,
  Family.RESNET_CAFFE: resnet.Stem,
  Family.RESNEST: resnest.DeepStem,
  Family.RESNET38D: resnet38d.Stem,
}
_FIRST_DILATIONS = {
  Family.RESNET_BASIC: resnet.first_dilation,
  Family.RESNET: resnet.first_dilation,
  Family.RESNET_CAFFE: resnet.same_dilation,
  Family.RESNEST: resnest.first_dilation,
  Family.RESNET38D: resnet.same_dilation,
}
_BLOCKS = {
  Family.RESNET_BASIC: resnet.BasicBlock,
  Family.RESNET: resnet.Bottleneck,
  Family.RESNET_CAFFE: resnet.CaffeBottleneck,
  Family.RESNEST: resnest.Block,
  Family.RESNET38D: resnet38d.Block,
}


def names() -> list[str]:
  """Returns the names of all backbones."""
  return list(_TABLE)


def info(name: str) -> BackboneInfo:
  """Returns the table's row of a backbone.

  Raises:
    UserError: if there is none of that name.
  """
  if name not in _TABLE:
    near = difflib.get_close_matches(name, _TABLE, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise errors.UserError(f'There is no backbone {name!r}.{hint} Known: {", ".join(_TABLE)}.')
  return _TABLE[name]


def make_backbone(
  name: str,
  *,
  output_stride: int = 16,
  last_stage: str = 'layer4',
  norm: Norm = Norm.BATCH,
  frozen_stages: int = 0,
  dtype: jnp.dtype = jnp.float32,
  remat: bool = False,
  scan: bool = False,
  radix: Radix = Radix.AUTO,
  before_pool: bool = False,
  blocks: Sequence[int] | None = None,
  widths: Sequence[int] | None = None,
  stem_width: int | None = None,
) -> trunk.Backbone:
  """Builds a backbone; its parameters do not depend on the options up to `before_pool`.

  Args:
    name: one of `names()`.
    output_stride: 8, 16 or 32, of resnet38d 8 alone; a stage beyond it is dilated instead of
      strided.
    last_stage: 'layer1' to 'layer4'; later stages are not built ('layer3' is a "C4" trunk).
    norm: statistics that batch normalisation uses in training.
    frozen_stages: so many of (stem, layer1, ...) use the running statistics and get no gradient.
    dtype: type of the computation; parameters and statistics are float32.
    remat: computes the activations inside of blocks again in the backward pass, to save memory.
    scan: compiles identical blocks once, to save compile time.
    radix: form of ResNeSt's grouped convolution.
    before_pool: gives the stem's features before its pool, too, first of all: 'stem_conv'.
    blocks: replaces the table's number of blocks of layer1 to layer4.
    widths: replaces the table's planes of layer1 to layer4.
    stem_width: replaces the table's width of the stem.

  Returns:
    A module `(image, valid=None, *, train) -> (features, valids)`; see `trunk.Backbone`.

  Raises:
    UserError: for an unknown name, stage or output stride.
  """
  row = info(name)
  if blocks is not None:
    row = dataclasses.replace(row, blocks=tuple(blocks))
  if widths is not None:
    row = dataclasses.replace(row, widths=tuple(widths))
  if stem_width is not None:
    row = dataclasses.replace(row, stem_width=stem_width)
  if len(row.blocks) != 4 or len(row.widths) != 4:
    raise errors.UserError(f'blocks={row.blocks} and widths={row.widths} must have four numbers.')
  if output_stride not in row.output_strides:
    known = ' or '.join(map(str, row.output_strides))
    raise errors.UserError(f'output_stride is {output_stride}; of {name} it must be {known}.')
  if last_stage not in STAGES[1:]:
    raise errors.UserError(f'last_stage is {last_stage!r}; it must be one of {STAGES[1:]}.')
  if not 0 <= frozen_stages <= len(STAGES):
    raise errors.UserError(f'frozen_stages is {frozen_stages}; it must be in 0..{len(STAGES)}.')
  module = resnet38d.ResNet38d if row.family is Family.RESNET38D else trunk.Backbone
  return module(
    stem=_STEMS[row.family](row.stem_width, dtype),
    pool=row.pool,
    block=_BLOCKS[row.family],
    blocks=row.blocks,
    widths=row.widths,
    expansion=row.expansion,
    plan=row.plan(output_stride),
    first_dilation=_FIRST_DILATIONS[row.family],
    last_stage=last_stage,
    norm=norm,
    frozen_stages=frozen_stages,
    dtype=dtype,
    remat=remat,
    scan=scan,
    radix=radix,
    before_pool=before_pool,
  )
