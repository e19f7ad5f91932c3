import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.ops import lpcam

RNG = np.random.default_rng(0)


def _unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_clusters_are_those_of_a_loop_over_points():
  key, clusters, steps = jax.random.key(3), 4, 5
  points = RNG.gamma(1.0, size=(40, 6)).astype(np.float32)
  valid = RNG.random(40) < 0.8
  chance = np.where(valid, np.asarray(jax.random.uniform(key, (40,))), -1)
  centres = points[np.argsort(-chance)[:clusters]].astype(np.float64)

  def members():
    found = [[] for _ in range(clusters)]
    for point in points[valid]:
      found[int(np.argmax(_unit(centres) @ _unit(point)))].append(point)
    return found

  for _ in range(steps):
    centres = np.array([np.mean(x, axis=0) for x in members()])
  found, count = lpcam.cluster(key, points, valid, clusters=clusters, steps=steps)
  np.testing.assert_allclose(found, centres, rtol=1e-5)
  np.testing.assert_array_equal(count, [len(x) for x in members()])
  assert count.sum() == valid.sum()


def test_fewer_points_than_clusters_leave_clusters_empty():
  points = np.diag([1.0, 2.0, 3.0, 4.0, 5.0]).astype(np.float32)
  valid = np.array([1, 0, 1, 0, 0], bool)
  centres, count = lpcam.cluster(jax.random.key(0), points, valid, clusters=4)
  assert sorted(count.tolist()) == [0, 0, 1, 1]
  np.testing.assert_array_equal(np.asarray(centres)[np.asarray(count) > 0].sum(0), [1, 0, 3, 0, 0])


def _vector(foreground, counts, context, context_counts, kernel, index):
  """The definition, centre by centre."""

  def p(centre):
    z = np.exp(centre @ kernel - (centre @ kernel).max())
    return z[index] / z.sum()

  own = [c for c, n in zip(foreground, counts, strict=True) if n and p(c) > 0.9]
  if not own:
    own = [max((c for c, n in zip(foreground, counts, strict=True) if n), key=p)]
  other = [c for c, n in zip(context, context_counts, strict=True) if n and 0.05 < p(c) < 0.9]
  vector = np.mean([_unit(c) for c in own], axis=0)
  return vector - (np.mean([_unit(c) for c in other], axis=0) if other else 0), (own, other)


@pytest.mark.parametrize('scale', [6.0, 0.1])
def test_prototypes_are_chosen_by_their_probability(scale):
  """With weak weights no centre is probable: the most probable one stands in."""
  kernel = (scale * RNG.normal(size=(6, 3))).astype(np.float32)
  foreground, context = (RNG.gamma(1.0, size=(8, 6)).astype(np.float32) for _ in range(2))
  counts, others = np.array([3, 0, 1, 1, 1, 0, 2, 4]), np.array([0, 5, 1, 1, 1, 1, 1, 1])
  for index in range(3):
    expected, (own, other) = _vector(foreground, counts, context, others, kernel, index)
    vector, number = lpcam.class_vector(
      lpcam.Clusters(foreground, counts), lpcam.Clusters(context, others), kernel, index
    )
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert number.tolist() == [len(own), len(other)]
    assert scale > 1 or len(own) == 1


def test_a_class_without_points_has_no_vector():
  none = lpcam.Clusters(jnp.ones((4, 3)), jnp.zeros(4, jnp.int32))
  context = none._replace(counts=none.counts + 1)
  vector, number = lpcam.class_vector(none, context, jnp.eye(3), 0)
  assert not np.asarray(vector).any() and not np.asarray(number).any()


def test_maps_are_mean_cosines_with_both_kinds_of_prototypes():
  own, other = RNG.gamma(1.0, size=(3, 5)), RNG.gamma(1.0, size=(2, 5))
  features = RNG.gamma(1.0, size=(2, 3, 4, 5)).astype(np.float32)
  features[0, 1, 2] = 0
  vector = _unit(own).mean(0) - _unit(other).mean(0)
  maps = lpcam.maps(features, jnp.asarray(np.stack([vector, -vector], 1), jnp.float32))
  for at in np.ndindex(2, 3, 4):
    f = features[at] / max(np.linalg.norm(features[at]), 1e-12)
    score = np.mean([_unit(c) @ f for c in own]) - np.mean([_unit(c) @ f for c in other])
    np.testing.assert_allclose(maps[at], [max(score, 0), max(-score, 0)], atol=1e-6)
