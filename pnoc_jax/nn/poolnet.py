"""Computes saliency with PoolNet (Liu et al., 2019): pooled features merged from coarse to fine."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoc_jax import errors
from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import normalize, pool, resize
from pnoc_jax.types import Array

# The features that are read, from fine to coarse, and the widths of the 1 x 1 convolutions on them
# in multiples of `width`.
TAPS = (trunk.BEFORE_POOL, 'layer1', 'layer2', 'layer3', 'layer4')
_WIDTHS = (1, 2, 2, 4, 4)
_CONTEXT = 4
PAPER_WIDTH = 128  # With it the paper's convolutions have 128, 256, 256, 512 and 512 channels.


class PoolNet(nn.Module):
  """PoolNet on any backbone: images to logits of saliency.

  A pyramid over the coarsest features gives a global context, which guides the merging at every
  scale; between the scales, features are averaged in windows of three sizes (the paper's FAM).
  All resizing is bilinear with aligned corners, all convolutions but the last lack a bias.

  The parameters are `backbone/...` and, below `decoder/`, `context/...`, `convert_<tap>/kernel`,
  `guide_<tap>/kernel`, `merge_<tap>/...`, `merge/...` and `score/{kernel,bias}`.

  Attributes:
    backbone: a module of `backbones.make_backbone` with `before_pool=True` that ends with layer4.
    width: channels at the finest scale; coarser ones have twice and four times as many.
    dtype: type of the computation; the score is computed in float32.
  """

  backbone: nn.Module
  width: int = PAPER_WIDTH
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image: Array, valid: Array | None = None, *, train: bool = False) -> Array:
    """Computes the logits.

    Args:
      image: normalised images f[B, H, W, C].
      valid: bool[B, H, W], the pixels that exist: one rectangle an image, anchored at the top left.
      train: whether batch normalisation uses the batch's statistics (of a backbone whose `norm` is
        frozen, never: the reference keeps the whole network in evaluation mode).

    Returns:
      f32[B, H, W]; 0 where invalid.

    Raises:
      UserError: the backbone lacks one of the five features.
    """
    features, valids = self.backbone(image, valid, train=train)
    missing = [name for name in TAPS if name not in features]
    if missing:
      raise errors.UserError(
        f'PoolNet reads the features {", ".join(TAPS)}; the backbone lacks {", ".join(missing)}: '
        'build it with before_pool=True and last_stage="layer4".'
      )
    grids = [Grid.of(features[name], None if valids is None else valids[name]) for name in TAPS]
    x = Decoder(self.width, self.dtype, name='decoder')([features[name] for name in TAPS], grids)
    logits = resize_grid(x, grids[0], Grid.of(image, valid))
    return layers.zero_invalid(logits, valid)[..., 0]


class Decoder(nn.Module):
  """All of PoolNet but the backbone.

  Attributes:
    width: channels at the finest scale.
    dtype: type of the computation; the score is computed in float32.
  """

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, features: Sequence[Array], grids: Sequence['Grid']) -> Array:
    """Maps the features of `TAPS`, on their grids, to scores f32[B, h, w, 1] on the first grid."""
    options = {'kernel_init': initializer(self.width), 'dtype': self.dtype}
    context = Context(_CONTEXT * self.width, options, name='context')(features[-1], grids[-1])
    converted = [
      nn.relu(layers.Conv(factor * self.width, **options, name=f'convert_{tap}')(x))
      for tap, factor, x in zip(TAPS, _WIDTHS, features, strict=True)
    ]
    x, grid = converted[-1], grids[-1]
    for i in reversed(range(len(TAPS) - 1)):
      planes = _WIDTHS[i] * self.width
      guide = resize_grid(context, grids[-1], grids[i])
      guide = layers.Conv(planes, 3, **options, name=f'guide_{TAPS[i]}')(guide, grids[i].valid)
      merge = Merge(planes, options, name=f'merge_{TAPS[i]}')
      x, grid = merge(x, grid, grids[i], converted[i] + nn.relu(guide)), grids[i]
    x = Merge(self.width, options, name='merge')(x, grid, grid)
    score = layers.Conv(1, use_bias=True, kernel_init=options['kernel_init'], name='score')
    return score(x.astype(jnp.float32))


def initializer(width: int, *, std: float = 0.01) -> Callable[..., Array]:
  """Returns PoolNet's initialiser N(0, std) of kernels, for networks of any width.

  At a smaller width the deviation is larger, so that activations keep their size.

  Args:
    width: `PoolNet.width`.
    std: standard deviation at the paper's width.
  """
  return nn.initializers.normal(std * math.sqrt(PAPER_WIDTH / width))


class Grid(NamedTuple):
  """Where features lie.

  Attributes:
    shape: (h, w) of the array.
    valid: bool[B, h, w], or None where all of it exists.
    sizes: i32[B, 2], rows and columns that exist, or None.
  """

  shape: tuple[int, ...]
  valid: Array | None
  sizes: Array | None

  @classmethod
  def of(cls, x: Array, valid: Array | None) -> 'Grid':
    """The grid of features x [B, h, w, C] with a mask bool[B, h, w]."""
    return cls(x.shape[1:3], valid, None if valid is None else layers.valid_sizes(valid))


def resize_grid(x: Array, old: Grid, new: Grid) -> Array:
  """Resizes the valid part of x [B, h, w, C] to that of another grid, aligning corners."""
  if old.shape == new.shape:
    return x
  if old.sizes is None or new.sizes is None:
    return resize.bilinear(x, new.shape, align_corners=True)
  return jax.vmap(
    lambda x, size, wanted: resize.bilinear_valid(
      x, size, wanted, shape=new.shape, align_corners=True
    )
  )(x, old.sizes, new.sizes)


class Context(nn.Module):
  """The pyramid pooling of the global guidance module.

  Attributes:
    planes: channels of the result.
    options: of all convolutions.
    cells: rows and columns of each level's grid.
  """

  planes: int
  options: Mapping[str, Any]
  cells: tuple[int, ...] = (1, 3, 5)

  @nn.compact
  def __call__(self, x: Array, grid: Grid) -> Array:
    """Maps features x [B, h, w, C] to [B, h, w, planes]."""
    x = layers.Conv(self.planes, **self.options, name='reduce')(x)
    levels = [x]
    for cells in self.cells:
      y = pool.adaptive_average(x, grid.sizes, cells=cells)
      y = nn.relu(layers.Conv(self.planes, **self.options, name=f'level{cells}')(y))
      levels.append(_enlarge(y, grid, None))
    y = jnp.concatenate(levels, axis=-1)
    return nn.relu(layers.Conv(self.planes, 3, **self.options, name='join')(y, grid.valid))


def _enlarge(x: Array, grid: Grid, sizes: Array | None) -> Array:
  """Resizes pooled features, of which `sizes` i32[B, 2] are valid (None: all), to the grid."""
  if sizes is None and grid.sizes is not None:
    sizes = jnp.broadcast_to(jnp.array(x.shape[1:3]), grid.sizes.shape)
  return resize_grid(x, Grid(x.shape[1:3], None, sizes), grid)


class Merge(nn.Module):
  """A feature aggregation module (FAM) and the merging of its result with finer features.

  Attributes:
    planes: channels of the result.
    options: of all convolutions.
    windows: sides of the windows that are averaged.
  """

  planes: int
  options: Mapping[str, Any]
  windows: tuple[int, ...] = (2, 4, 8)

  @nn.compact
  def __call__(self, x: Array, grid: Grid, finer: Grid, other: Array | None = None) -> Array:
    """Merges x [B, h, w, C] on `grid` with `other` [B, H, W, planes] on the grid `finer`, if any.

    Returns:
      [B, H, W, planes].
    """
    total = x
    for window in self.windows:
      y, sizes = pool.average(x, grid.sizes, window=window)
      valid = None if sizes is None else normalize.size_valid(sizes, y.shape[1:3])
      y = layers.Conv(x.shape[-1], 3, **self.options, name=f'window{window}')(y, valid)
      total += _enlarge(y, grid, sizes)
    y = resize_grid(nn.relu(total), grid, finer)
    y = layers.Conv(self.planes, 3, **self.options, name='sum')(y, finer.valid)
    if other is not None:
      y = layers.Conv(self.planes, 3, **self.options, name='fuse')(y + other, finer.valid)
    return y
