"""LPCAM: maps of a class from its local prototypes, against those of its context.

Prototypes are the centres of clusters of features. A map is the mean cosine with the class's own
prototypes less that with its context's: a scalar product with one vector a class, which is all
that inference needs.
"""

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types


def cluster(
  key: types.Key, points: types.Array, valid: types.Array, *, clusters: int = 12, steps: int = 20
) -> tuple[types.Array, types.Array]:
  """k-means by cosine: a point goes to the centre of the smallest angle; centres are plain means.

  Differs from the reference: the number of iterations is fixed; because its tolerance of 5 is in
  units of the features: it stops at once or never, depending on the network.

  Args:
    key: draws the first centres among the points.
    points: f32[N, D].
    valid: bool[N], the points that exist.
    clusters: M, at most N.
    steps: iterations.

  Returns:
    The centres f32[M, D], and i32[M] the points of each: 0 for a cluster that does not exist.
  """
  chex.assert_rank(points, 2)
  chex.assert_shape(valid, points.shape[:1])
  chance = jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0)
  chance, first = jax.lax.top_k(chance, clusters)
  exists = chance >= 0
  unit = _unit(points)

  def members(centres):
    cosine = jnp.where(exists, _dot(unit, _unit(centres).T), -jnp.inf)
    return jax.nn.one_hot(cosine.argmax(1), clusters) * valid[:, None]

  def step(_, centres):
    found = members(centres)
    number = found.sum(0)[:, None]
    return jnp.where(number > 0, _dot(found.T, points) / jnp.maximum(number, 1.0), centres)

  centres = jax.lax.fori_loop(0, steps, step, points[first])
  return centres, members(centres).sum(0).astype(jnp.int32)


def class_vector(
  foreground: types.Array,
  foreground_count: types.Array,
  context: types.Array,
  context_count: types.Array,
  kernel: types.Array,
  index: int | types.Array,
  *,
  foreground_min: float = 0.9,
  context_min: float = 0.05,
  context_max: float = 0.9,
) -> tuple[types.Array, types.Array]:
  """Chooses the prototypes of a class, and makes the vector that its maps are products with.

  A centre's probability is the softmax over the classes of its products with the classifier's
  weights.

  Differs from the reference: if no centre of the foreground is probable enough, the most probable
  one is taken; because the class would have no map.

  Args:
    foreground: f32[M, D], centres of features where the class's map is high.
    foreground_count: i32[M], their points.
    context: f32[M, D], centres of features of the same images where it is low.
    context_count: i32[M].
    kernel: f32[D, K], the classifier's weights.
    index: the class.
    foreground_min: centres of the foreground are prototypes above this probability.
    context_min: centres of the context are prototypes between this probability
    context_max: and this one.

  Returns:
    f32[D], the mean of the class's prototypes less that of its context's, each of length 1; and
    i32[2], how many there are of either. Without a point of the foreground all is 0.
  """

  def probability(centres):
    return jax.nn.softmax(_dot(centres, kernel), axis=1)[:, index]

  exists = foreground_count > 0
  p = jnp.where(exists, probability(foreground), -1.0)
  own = exists & ((p > foreground_min) | (p == p.max()))
  p = probability(context)
  other = (context_count > 0) & (p > context_min) & (p < context_max) & exists.any()
  vector = _mean_unit(foreground, own) - _mean_unit(context, other)
  return vector, jnp.stack([own.sum(), other.sum()])


def maps(features: types.Array, vectors: types.Array) -> types.Array:
  """Rectified maps: the features' cosines with the prototypes.

  Args:
    features: [B, h, w, D], perhaps a sum over mirror images.
    vectors: f32[D, K], a `class_vector` a class.

  Returns:
    f32[B, h, w, K]; 0 where the features are 0.
  """
  chex.assert_rank([features, vectors], [4, 2])
  return jax.nn.relu(_dot(_unit(features), vectors))


def _mean_unit(centres, chosen):
  """f32[D]: the mean of the chosen centres, each of length 1; 0 without any."""
  return (_unit(centres) * chosen[:, None]).sum(0) / jnp.maximum(chosen.sum(), 1)


def _unit(x, eps=1e-12):
  x = x.astype(jnp.float32)
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), eps)


def _dot(a, b):
  # Accelerators would round the factors, and cosines near each other decide on clusters.
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
