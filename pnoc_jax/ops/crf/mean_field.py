"""The fully connected CRF of Kraehenbuehl and Koltun 2011: label maps that follow the image.

Mean field over Potts compatibilities with one spatial and one bilateral Gaussian kernel, each
normalised symmetrically; by default the same numbers as pydensecrf's. All functions take one image;
`jax.vmap` makes them take batches, whose images then go through the lattice one by one.
"""

import dataclasses
import enum
import functools
import math

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types
from pnoc_jax.ops.crf import gaussian, lattice

# The energy of a label that the image cannot have: exp(-it) is 0, and sums with it are finite.
_IMPOSSIBLE = 1e4


class Filter(enum.Enum):
  """How the sums over all pairs of pixels are formed."""

  LATTICE = 'lattice'
  """Approximately, in linear time, as pydensecrf does."""
  EXACT = 'exact'
  """All pairs, in quadratic time: for small images and accelerators."""


@dataclasses.dataclass(frozen=True)
class Kernels:
  """The two kernels; widths in pixels and in grey levels of 0..255.

  Attributes:
    gaussian_sxy: Width of the spatial kernel.
    gaussian_compat: Its Potts weight.
    bilateral_sxy: Spatial width of the bilateral kernel.
    bilateral_srgb: Its width in colour.
    bilateral_compat: Its Potts weight.
  """

  gaussian_sxy: float = 3.0
  gaussian_compat: float = 3.0
  bilateral_sxy: float = 50.0
  bilateral_srgb: float = 5.0
  bilateral_compat: float = 10.0

  def scaled(self, factor: float) -> 'Kernels':
    """Returns the kernels for an image that is `factor` times smaller: only `sxy` shrinks."""
    return dataclasses.replace(
      self, gaussian_sxy=self.gaussian_sxy / factor, bilateral_sxy=self.bilateral_sxy / factor
    )


LABELS = Kernels()
"""For priors, saliency, affinity labels and pseudo masks."""
PROBABILITIES = Kernels(1.0, 3.0, 67.0, 3.0, 4.0)
"""For a segmentation network's softmax (DeepLab)."""


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
    present: bool[K], the labels that this image may have (n of them): others get probability 0,
      so that images with different labels share a shape. None: all.

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
    scale: Confidence in them: p becomes scale * p + (1 - scale) / n. None: 1.
    clip: The least p.
    present: bool[K], the labels that this image may have (n of them); None: all.

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

  Q = softmax(-U), then each step Q <- softmax(-U + sum_k w_k D_k^-1/2 K_k D_k^-1/2 Q), with D_k the
  row sums of the kernel K_k (i = j included) and w_k its Potts weight. Differentiable in `unary`.

  Args:
    unary: f32[H, W, K], energies: -log of probabilities.
    image: u8[H, W, 3], RGB.
    valid: bool[H, W], the pixels that are image: the result there is as if the others did not
      exist. None: all.
    steps: Of mean field; 0 gives softmax(-U).
    kernels: Widths and weights.
    filter: How to sum over all pairs.

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


def _mean_field(method, steps, kernels, energy, image, valid):
  """Returns Q, f32[H * W, K], of energies of that shape."""
  messages = _messages(method, kernels, image, valid.reshape(-1))
  # Labels first: CPUs are slow at a softmax over a short last axis.
  energy = energy.T

  def step(q, _):
    return jax.nn.softmax(-energy + sum(message(q.T).T for message in messages), axis=0), None

  return jax.lax.scan(step, jax.nn.softmax(-energy, axis=0), length=steps)[0].T


def _messages(method, kernels, image, valid):
  """Returns the functions Q -> w D^-1/2 K D^-1/2 Q of the two kernels."""
  height, width = image.shape[:2]
  y, x = jnp.indices((height, width), jnp.float32)
  place = jnp.stack([x, y], -1).reshape(-1, 2)
  color = image.astype(jnp.float32).reshape(-1, 3)
  far = (width - 1.0, height - 1.0)

  def scale(values, sigma):
    return tuple(value / sigma for value in values)

  spatial = method.make(place / kernels.gaussian_sxy, scale(far, kernels.gaussian_sxy), valid)
  bilateral = method.make(
    jnp.concatenate([place / kernels.bilateral_sxy, color / kernels.bilateral_srgb], 1),
    scale(far, kernels.bilateral_sxy) + scale((255.0,) * 3, kernels.bilateral_srgb),
    valid,
  )

  def make_message(state, compat):
    norm = jax.lax.rsqrt(method.apply(state, jnp.ones((height * width, 1))) + 1e-20)
    norm = jnp.where(valid[:, None], norm, 0.0)
    return lambda q: compat * norm * method.apply(state, norm * q)

  return (
    make_message(spatial, kernels.gaussian_compat),
    make_message(bilateral, kernels.bilateral_compat),
  )
