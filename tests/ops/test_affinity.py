import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.ops import affinity, paths

_RADIUS = 4
_RNG = np.random.default_rng(0)


def _sources(height, width):
  r = _RADIUS - 1
  return [(y, x) for y in range(height - r) for x in range(r, width - r)]


def test_affinities_match_a_loop_over_pairs():
  edge = _RNG.uniform(size=(2, 7, 10)).astype(np.float32)
  found = affinity.affinities(jnp.asarray(edge), radius=_RADIUS)
  directions = paths.directions(_RADIUS)
  assert found.shape == (len(directions), 2, 4, 4)
  expected = [
    [[1 - max(e[y + p, x + q] for p, q in paths.path(d)) for y, x in _sources(7, 10)] for e in edge]
    for d in directions
  ]
  np.testing.assert_allclose(found.reshape(len(directions), 2, -1), expected, atol=1e-7)


def test_pairs_are_background_a_class_different_or_unknown():
  labels = _RNG.choice([0, 1, 2, 3, 255], size=(2, 8, 9))
  for d in paths.directions(_RADIUS):
    kinds = affinity.pairs(jnp.asarray(labels), jnp.array(d), num_classes=2, radius=_RADIUS)
    found = np.stack(kinds, -1).reshape(2, -1, 3)
    for b, one in enumerate(labels):
      for i, (y, x) in enumerate(_sources(8, 9)):
        here, there = one[y, x], one[y + d[0], x + d[1]]
        # 3 is no class of two, 255 is unknown.
        known = max(here, there) <= 2
        expected = (
          known and here == there == 0,
          known and here == there > 0,
          known and here != there,
        )
        assert tuple(found[b, i]) == expected


def test_one_scan_visits_every_direction_and_is_differentiable():
  edge = jnp.asarray(_RNG.uniform(size=(6, 9)).astype(np.float32))

  def scanned(edge):
    def add(total, direction, cells):
      values = affinity.path_affinity(edge, cells, radius=_RADIUS)
      return total + (values * affinity.at_offset(edge, direction, radius=_RADIUS)).sum()

    return affinity.scan_directions(add, jnp.zeros(()), radius=_RADIUS)

  def direct(edge):
    a = affinity.affinities(edge, radius=_RADIUS)
    there = jnp.stack(
      [affinity.at_offset(edge, jnp.array(d), radius=_RADIUS) for d in paths.directions(_RADIUS)]
    )
    return (a * there).sum()

  np.testing.assert_allclose(jax.jit(scanned)(edge), direct(edge), rtol=1e-5)
  np.testing.assert_allclose(
    jax.jit(jax.grad(scanned))(edge), jax.jit(jax.grad(direct))(edge), atol=1e-4
  )


def test_a_map_without_pairs_is_refused():
  with pytest.raises(ValueError, match=r'at least \(4, 7\)'):
    affinity.affinities(jnp.zeros((4, 6)), radius=_RADIUS)
