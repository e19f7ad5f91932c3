"""The fully connected CRF of Kraehenbuehl and Koltun 2011: label maps that follow the image.

Mean field with Potts compatibilities and two Gaussian kernels, a spatial and a bilateral one, which
are normalised symmetrically. By default the numbers are those of pydensecrf. All functions take one
image; with `jax.vmap` they take batches, whose images go through the lattice one after the other.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops.crf import gaussian, lattice

# The energy of a label that the image cannot have: exp(-1e4) is 0, and sums with it are finite.
_IMPOSSIBLE = 1e4


class Filter(enum.Enum):
  """How the sums over all pairs of pixels are computed.

  Attributes:
    LATTICE: approximately, in linear time, as pydensecrf does.
    EXACT: over all pairs, in quadratic time, for small images and accelerators.
  """

  LATTICE = 'lattice'
  EXACT = 'exact'


@dataclasses.dataclass(frozen=True)
class Kernels:
  """The two kernels.

  Attributes:
    gaussian_sxy: Width of the spatial kernel, in pixels.
    gaussian_compat: Potts weight of the spatial kernel.
    bilateral_sxy: Spatial width of the bilateral kernel, in pixels.
    bilateral_srgb: Width in colour of the bilateral kernel, in grey levels of 0..255.
    bilateral_compat: Potts weight of the bilateral kernel.
  """

  gaussian_sxy: float = 3.0
  gaussian_compat: float = 3.0
  bilateral_sxy: float = 50.0
  bilateral_srgb: float = 5.0
  bilateral_compat: float = 10.0

  def __post_init__(self):
    for name in ('gaussian_sxy', 'bilateral_sxy', 'bilateral_srgb'):
      if (width := getattr(self, name)) <= 0:
        raise ValueError(f'{name} is {width}; the width of a kernel is above 0')

  def scaled(self, factor: float) -> 'Kernels':
    """Returns the kernels for an image that is `factor` times smaller: only `sxy` shrinks."""
    return dataclasses.replace(
      self, gaussian_sxy=self.gaussian_sxy / factor, bilateral_sxy=self.bilateral_sxy / factor
    )


# For priors, saliency, affinity labels and pseudo masks.
LABELS = Kernels()
# For the softmax of a segmentation network (DeepLab).
PROBABILITIES = Kernels(1.0, 3.0, 67.0, 3.0, 4.0)


def label_unary(
  labels: types.Array,
  num_labels: int,
  confidence: float,
  *,
  present: types.Array | None = None,
) -> types.Array:
  """Returns the energies of a label map that is right with a given probability.

  -log(p) for the label, -log((1 - p) / (n - 1)) for the n - 1 others.

  Args:
    labels: i32[H, W], in [0, num_labels).
    num_labels: K.
    confidence: p, in (0, 1).
    present: bool[K], the n labels that this image may have; the others get probability 0. So images
      with different labels can share a shape. None: all.

  Returns:
    f32[H, W, K].

  Raises:
    ValueError: `confidence` is not within (0, 1).
  """
  chex.assert_rank(labels, 2)
  if not 0.0 < confidence < 1.0:
    raise ValueError(f'confidence is {confidence}, expected a probability strictly within (0, 1)')
  if present is None:
    present = jnp.ones(num_labels, bool)
  chex.assert_shape(present, (num_labels,))
  others = jnp.maximum(present.sum() - 1, 1).astype(jnp.float32)
  other = jnp.log(others) - math.log1p(-confidence)
  own = labels[..., None] == jnp.arange(num_labels)
  return jnp.where(present, jnp.where(own, -math.log(confidence), other), _IMPOSSIBLE)


def softmax_unary(
  probabilities: types.Array,
  *,
  scale: float | None = None,
  clip: float = 1e-5,
  present: types.Array | None = None,
) -> types.Array:
  """Returns the energies -log(p) of probabilities.

  Args:
    probabilities: f32[H, W, K]; need not sum to 1.
    scale: Confidence in the probabilities: p becomes scale * p + (1 - scale) / n. None: 1.
    clip: The least p.
    present: bool[K], the n labels that this image may have; None: all.

  Returns:
    f32[H, W, K].
  """
  chex.assert_rank(probabilities, 3)
  p = probabilities.astype(jnp.float32)
  if present is None:
    present = jnp.ones(p.shape[-1:], bool)
  chex.assert_shape(present, p.shape[-1:])
  if scale is not None:
    p = scale * p + (1.0 - scale) / present.sum()
  return jnp.where(present, -jnp.log(jnp.clip(p, clip, 1.0)), _IMPOSSIBLE)


def dense_crf(
  unary: types.Array,
  image: types.Array,
  valid: types.Array | None = None,
  *,
  steps: int,
  kernels: Kernels = LABELS,
  filter: Filter = Filter.LATTICE,
) -> types.Array:
  """Returns the marginals of the labels after some steps of mean field.

  At first Q = softmax(-U). Each step sets Q <- softmax(-U + sum_k w_k D_k^-1/2 K_k D_k^-1/2 Q),
  where D_k are the row sums of the kernel K_k (i = j included) and w_k is its Potts weight. The
  result is differentiable in `unary`.

  Args:
    unary: f32[H, W, K], energies: -log of probabilities.
    image: u8[H, W, 3], RGB.
    valid: bool[H, W], the pixels that are image; the result there is as if the others did not
      exist. None: all.
    steps: Number of steps of mean field; 0 gives softmax(-U).
    kernels: The two kernels.
    filter: How the sums over all pairs are computed.

  Returns:
    f32[H, W, K], sums to 1 over K; 0 at pixels that are not valid.
  """
  chex.assert_rank([unary, image], 3)
  height, width, k = unary.shape
  chex.assert_shape(image, (height, width, 3))
  if valid is None:
    valid = jnp.ones((height, width), bool)
  chex.assert_shape(valid, (height, width))
  method = {Filter.LATTICE: lattice, Filter.EXACT: gaussian}[filter]
  infer = method.one_by_one(functools.partial(_mean_field, method, steps, kernels))
  energy = jnp.where(valid[..., None], unary.astype(jnp.float32), 0.0)
  q = infer(energy.reshape(-1, k), image, valid)
  return jnp.where(valid[..., None], q.reshape(unary.shape), 0.0)


def _mean_field(
  method: Any,
  steps: int,
  kernels: Kernels,
  energy: types.Array,
  image: types.Array,
  valid: types.Array,
) -> types.Array:
  """Returns Q, f32[H * W, K], of energies of this shape; `method` is `lattice` or `gaussian`."""
  messages = _messages(method, kernels, image, valid.reshape(-1))
  # The labels come first, because a softmax over a short last axis is slow on CPUs.
  energy = energy.T

  def step(q: types.Array, _: None) -> tuple[types.Array, None]:
    return jax.nn.softmax(-energy + sum(message(q.T).T for message in messages), axis=0), None

  return jax.lax.scan(step, jax.nn.softmax(-energy, axis=0), length=steps)[0].T


def _messages(
  method: Any, kernels: Kernels, image: types.Array, valid: types.Array
) -> tuple[Callable[[types.Array], types.Array], Callable[[types.Array], types.Array]]:
  """Returns the functions Q -> w D^-1/2 K D^-1/2 Q of the two kernels."""
  height, width = image.shape[:2]
  y, x = jnp.indices((height, width), jnp.float32)
  place = jnp.stack([x, y], -1).reshape(-1, 2)
  color = image.astype(jnp.float32).reshape(-1, 3)
  far = (width - 1.0, height - 1.0)

  def scale(values: tuple[float, ...], sigma: float) -> tuple[float, ...]:
    return tuple(value / sigma for value in values)

  spatial = method.make(place / kernels.gaussian_sxy, scale(far, kernels.gaussian_sxy), valid)
  bilateral = method.make(
    jnp.concatenate([place / kernels.bilateral_sxy, color / kernels.bilateral_srgb], 1),
    scale(far, kernels.bilateral_sxy) + scale((255.0,) * 3, kernels.bilateral_srgb),
    valid,
  )

  def make_message(state: Any, compat: float) -> Callable[[types.Array], types.Array]:
    norm = jax.lax.rsqrt(method.apply(state, jnp.ones((height * width, 1))) + 1e-20)
    norm = jnp.where(valid[:, None], norm, 0.0)
    return lambda q: compat * norm * method.apply(state, norm * q)

  return (
    make_message(spatial, kernels.gaussian_compat),
    make_message(bilateral, kernels.bilateral_compat),
  )
