"""LPCAM: maps of a class from its local prototypes and from those of its context.

Prototypes are the centres of clusters of features. A map is the mean cosine of a feature with the
class's own prototypes less that with its context's prototypes. This is a scalar product with one
vector for each class, which is all that inference needs.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types


class Clusters(NamedTuple):
  """Clusters of points.

  Attributes:
    centres: f32[M, D].
    counts: i32[M], the points of each; 0 for a cluster that does not exist.
  """

  centres: types.Array
  counts: types.Array


def cluster(
  key: types.Key, points: types.Array, valid: types.Array, *, clusters: int = 12, steps: int = 20
) -> Clusters:
  """k-means by cosine: a point goes to the centre at the smallest angle; centres are plain means.

  Differs from the reference: the number of iterations of k-means is fixed; because its tolerance of
  5 is in units of the features, so that it stops at once or never, depending on the network.

  Args:
    key: draws the first centres among the points.
    points: f32[N, D].
    valid: bool[N], the points that exist.
    clusters: M, at most N.
    steps: iterations.
  """
  chex.assert_rank(points, 2)
  chex.assert_shape(valid, points.shape[:1])
  chance = jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0)
  chance, first = jax.lax.top_k(chance, clusters)
  exists = chance >= 0
  unit = _unit(points)

  def members(centres: types.Array) -> types.Array:
    cosine = jnp.where(exists, _dot(unit, _unit(centres).T), -jnp.inf)
    return jax.nn.one_hot(cosine.argmax(1), clusters) * valid[:, None]

  def step(_: types.Array, centres: types.Array) -> types.Array:
    found = members(centres)
    number = found.sum(0)[:, None]
    return jnp.where(number > 0, _dot(found.T, points) / jnp.maximum(number, 1.0), centres)

  centres = jax.lax.fori_loop(0, steps, step, points[first])
  return Clusters(centres, members(centres).sum(0).astype(jnp.int32))


def class_vector(
  foreground: Clusters,
  context: Clusters,
  kernel: types.Array,
  index: int | types.Array,
  *,
  foreground_min: float = 0.9,
  context_min: float = 0.05,
  context_max: float = 0.9,
) -> tuple[types.Array, types.Array]:
  """Chooses the prototypes of a class; products of the vector with features are the class's map.

  A centre's probability is the softmax over the classes of its products with the classifier's
  weights.

  Differs from the reference: if no centre of a class is probable enough, the most probable one is
  taken; because the class would have no map otherwise.

  Args:
    foreground: of features where the class's map is high.
    context: of features of the same images where it is low.
    kernel: f32[D, K], the classifier's weights.
    index: the class.
    foreground_min: centres of the foreground are prototypes above this probability.
    context_min: centres of the context are prototypes above this probability
    context_max: and below this one.

  Returns:
    f32[D], the mean of the class's prototypes less that of its context's, each of length 1; and
    i32[2], the numbers of prototypes of the class and of its context. Without a point of the
    foreground all of these are 0.
  """

  def probability(centres: types.Array) -> types.Array:
    return jax.nn.softmax(_dot(centres, kernel), axis=1)[:, index]

  exists = foreground.counts > 0
  p = jnp.where(exists, probability(foreground.centres), -1.0)
  own = exists & ((p > foreground_min) | (p == p.max()))
  p = probability(context.centres)
  other = (context.counts > 0) & (p > context_min) & (p < context_max) & exists.any()
  vector = _mean_unit(foreground.centres, own) - _mean_unit(context.centres, other)
  return vector, jnp.stack([own.sum(), other.sum()])


def maps(features: types.Array, vectors: types.Array) -> types.Array:
  """Returns rectified maps: the features' mean cosines with the prototypes.

  Args:
    features: [B, h, w, D], perhaps a sum over mirror images.
    vectors: f32[D, K], a `class_vector` a class.

  Returns:
    f32[B, h, w, K]; 0 where the features are 0.
  """
  chex.assert_rank([features, vectors], [4, 2])
  return jax.nn.relu(_dot(_unit(features), vectors))


def _mean_unit(centres: types.Array, chosen: types.Array) -> types.Array:
  """f32[D]: the mean of the chosen centres, each of length 1; 0 without any."""
  return (_unit(centres) * chosen[:, None]).sum(0) / jnp.maximum(chosen.sum(), 1)


def _unit(x: types.Array, eps: float = 1e-12) -> types.Array:
  x = x.astype(jnp.float32)
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), eps)


def _dot(a: types.Array, b: types.Array) -> types.Array:
  # HIGHEST: accelerators would round the factors, and clusters depend on small differences.
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
