"""The vision transformers (ViT), with the names of timm, of DINO and of DINOv2.

An image of any size is cut into patches, its last row and column padded with zeros, and the
position embedding is resized to the image's own grid, as timm does with `dynamic_img_size` and
`dynamic_img_pad`. Tokens of patches that do not exist are masked in the attention, so that a padded
image gives what the image alone gives.

layer1 to layer4 are a quarter of the blocks each; all have the grid of the patches. The token of
the class goes along with the patches, and is no part of the features.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from pnoc_jax.nn import layers, trunk
from pnoc_jax.ops import resize
from pnoc_jax.types import Array

_EPS = 1e-6
_INIT = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class Form:
  """What a ViT's row holds beside widths and numbers of blocks.

  Attributes:
    patch: side of a patch, px.
    grid: side of the square of patches that the position embedding was trained for.
    heads: of the attention.
    scaled: whether each branch is multiplied with a factor a channel (DINOv2).
  """

  patch: int
  grid: int
  heads: int
  scaled: bool = False


class Patches(nn.Module):
  """Turns images into tokens: one for the class and one for each patch, with their positions.

  Attributes:
    width: of a token.
    form: of the network.
    dtype: type of the computation.
  """

  width: int
  form: Form
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image: Array, valid: Array | None) -> tuple[Array, Array | None]:
    """Returns tokens [B, 1 + h * w, width] and, with `valid`, which of them exist."""
    side, grid = self.form.patch, self.form.grid
    image = layers.zero_invalid(image, valid).astype(self.dtype)
    pads = ((0, 0), *((0, -size % side) for size in image.shape[1:3]), (0, 0))
    patch = (side, side)
    conv = nn.Conv(self.width, patch, patch, padding='VALID', dtype=self.dtype, name='conv1')
    x = conv(jnp.pad(image, pads))
    batch, *shape, _ = x.shape
    exists = layers.stride_valid(valid, side)
    first = self.param('cls_token', _INIT, (1, 1, self.width), jnp.float32)
    position = self.param('pos_embed', _INIT, (1, 1 + grid**2, self.width), jnp.float32)
    x = x.astype(jnp.float32) + self._placed(position[0, 1:], exists, shape)
    first = jnp.broadcast_to(first + position[:, :1], (batch, 1, self.width))
    tokens = jnp.concatenate([first, x.reshape(batch, -1, self.width)], axis=1).astype(self.dtype)
    if exists is None:
      return tokens, None
    return tokens, jnp.pad(exists.reshape(batch, -1), ((0, 0), (1, 0)), constant_values=True)

  def _placed(self, position: Array, exists: Array | None, shape: Sequence[int]) -> Array:
    """Returns the position embedding [B or 1, h, w, width] of the grids that exist."""
    stored = position.reshape(self.form.grid, self.form.grid, self.width)
    sizes = jnp.array([shape], jnp.int32) if exists is None else layers.valid_sizes(exists)
    return jax.vmap(lambda size: resize.bicubic_antialiased(stored, size, shape=shape))(sizes)


class Block(nn.Module):
  """Attention and a perceptron, each after a normalisation and beside a shortcut.

  Attributes:
    form: of the network.
    dtype: type of the computation; normalisations and the attention's weights are float32.
  """

  form: Form
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, exists: Array | None, train: bool) -> tuple[Array, Array | None]:
    """Maps tokens [B, N, width], of which `exists` bool[B, N] count; `train` changes nothing."""
    del train
    x = x + self._branch(self._attend(_norm('norm1')(x), exists), 'ls1')
    y = nn.gelu(self._dense(_norm('norm2')(x), 4 * x.shape[-1], 'fc1'), approximate=False)
    return x + self._branch(self._dense(y, x.shape[-1], 'fc2'), 'ls2'), exists

  def _attend(self, x: Array, exists: Array | None) -> Array:
    batch, count, width = x.shape
    heads = self.form.heads
    parts = self._dense(x, 3 * width, 'qkv').reshape(batch, count, 3, heads, width // heads)
    query, key, value = (parts[:, :, i] for i in range(3))
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, key, preferred_element_type=jnp.float32)
    scores = scores * (width // heads) ** -0.5
    if exists is not None:
      scores = jnp.where(exists[:, None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores).astype(self.dtype)
    found = jnp.einsum('bhqk,bkhd->bqhd', weights, value).reshape(batch, count, width)
    return self._dense(found, width, 'proj')

  def _dense(self, x: Array, width: int, name: str) -> Array:
    init = nn.initializers.truncated_normal(0.02)
    dense = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=name)
    return checkpoint_name(dense(x), layers.KEPT)

  def _branch(self, x: Array, name: str) -> Array:
    return Scale(name=name)(x) if self.form.scaled else x


class Scale(nn.Module):
  """A factor for each channel."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Multiplies x [..., width]."""
    gamma = self.param('gamma', nn.initializers.constant(1e-5), x.shape[-1:], jnp.float32)
    return x * gamma.astype(x.dtype)


def _norm(name: str) -> Callable[[Array], Array]:
  return nn.LayerNorm(epsilon=_EPS, use_fast_variance=False, name=name)


class VisionTransformer(nn.Module):
  """The patches and the blocks; called as a `trunk.Backbone`.

  Attributes:
    row: what it is.
    options: how it is built; `norm` changes nothing, because there is no batch normalisation.
    form: what a row holds of a ViT alone.
  """

  row: trunk.Row
  options: trunk.Options
  form: Form

  @property
  def dtype(self) -> jnp.dtype:
    """Type of the computation and of the features."""
    return self.options.dtype

  @nn.compact
  def __call__(
    self, image: Array, valid: Array | None = None, *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Computes the features of every stage; arguments and results are `trunk.Backbone`'s.

    The last stage's are normalised where that is layer4, as in timm.
    """
    chex.assert_rank(image, 4)
    row, options, side = self.row, self.options, self.form.patch
    shape = tuple(-(-size // side) for size in image.shape[1:3])
    mask = layers.stride_valid(valid, side)
    features, valids = {}, {}
    x, exists = Patches(row.stem_width, self.form, options.dtype, name='stem')(image, valid)
    for i, name in enumerate(trunk.STAGES[: trunk.STAGES.index(options.last_stage) + 1]):
      if i > 0:
        common = {'form': self.form, 'dtype': options.dtype}
        forms = row.blocks[i - 1], options.remat, options.scan
        x, exists = trunk.Stage(Block, common, common, *forms, name=name)(x, exists, train)
      if i < options.frozen_stages:
        x = jax.lax.stop_gradient(x)
      found = x
      if name == trunk.STAGES[-1]:
        found = _norm('norm')(x).astype(options.dtype)
      features[name] = found[:, 1:].reshape(image.shape[0], *shape, -1)
      valids[name] = mask
    return features, None if mask is None else valids


# timm's numbers of blocks to our stages of three. The official DINO and DINOv2 have the same names.
_TORCH_NAMES = (
  (r'cls_token', r'stem/cls_token'),
  (r'pos_embed', r'stem/pos_embed'),
  (r'patch_embed\.proj', r'stem/conv1'),
  *(
    (rf'blocks\.{number}\.{theirs}', rf'layer{number // 3 + 1}/block{number % 3}/{ours}')
    for number in range(12)
    for theirs, ours in (
      (r'(norm[12]|ls[12])', r'\1'),
      (r'attn\.(qkv|proj)', r'\1'),
      (r'mlp\.(fc[12])', r'\1'),
    )
  ),
  (r'norm', r'norm'),
)
_HALF = (0.5, 0.5, 0.5)


def make_row(
  name: str, width: int, form: Form, *, pretrained: str, mean: trunk.Color | None = None
) -> trunk.Row:
  """Makes the facts of a ViT of twelve blocks.

  Args:
    name: of the backbone.
    width: of a token.
    form: of the network.
    pretrained: released weights.
    mean: the mean and the deviation of colours that these want, where it is not the data set's.
  """
  return trunk.Row(
    name,
    stem=Patches,
    block=Block,
    blocks=(3, 3, 3, 3),
    torch_names=_TORCH_NAMES,
    torch_ignored=r'(head|fc_norm)\.(weight|bias)|mask_token',
    widths=(width,) * 4,
    expansion=1,
    stem_width=width,
    pool=layers.Pool.NONE,
    output_strides=(form.patch,),
    fixed_plan=((1, 1),) * 4,
    fixed_stem_stride=form.patch,
    make=functools.partial(VisionTransformer, form=form),
    mean=mean,
    std=mean,
    pretrained=pretrained,
  )


_16 = functools.partial(Form, 16, 14)
_DINOV2 = functools.partial(Form, 14, 37, scaled=True)

ROWS = (
  make_row(
    'vit_tiny_patch16_224',
    192,
    _16(3),
    pretrained='hub:timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k',
    mean=_HALF,
  ),
  make_row(
    'vit_small_patch16_224',
    384,
    _16(6),
    pretrained='hub:timm/vit_small_patch16_224.augreg_in21k_ft_in1k',
    mean=_HALF,
  ),
  make_row(
    'vit_base_patch16_224',
    768,
    _16(12),
    pretrained='hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k',
    mean=_HALF,
  ),
  # DINO's and DINOv2's weights want ImageNet's colours, which are those of the data sets.
  make_row(
    'vit_small_patch16_224_dino', 384, _16(6), pretrained='hub:timm/vit_small_patch16_224.dino'
  ),
  make_row(
    'vit_small_patch14_dinov2',
    384,
    _DINOV2(6),
    pretrained='hub:timm/vit_small_patch14_dinov2.lvd142m',
  ),
  make_row(
    'vit_base_patch14_dinov2',
    768,
    _DINOV2(12),
    pretrained='hub:timm/vit_base_patch14_dinov2.lvd142m',
  ),
)
