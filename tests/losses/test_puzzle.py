import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax.losses import puzzle

_RNG = np.random.default_rng(0)
_CAM, _CAM_RE = _RNG.normal(size=(2, 3, 2, 4, 5)).astype(np.float32)
_LABEL = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], np.float32)


def _normalized(x):
  x = np.maximum(x, 0)
  return x / (x.max((1, 2), keepdims=True) + 1e-5)


@pytest.mark.parametrize('level', list(puzzle.Level))
@pytest.mark.parametrize('distance', list(puzzle.Distance))
def test_reconstruction_matches_a_loop(level, distance):
  a, b = _CAM, _CAM_RE
  if level is puzzle.Level.CAM:
    a, b = _normalized(a), _normalized(b)
  apart = np.abs(a - b) if distance is puzzle.Distance.L1 else (a - b) ** 2
  masked, selected = 0.0, []
  for i, row in enumerate(_LABEL):
    present = np.flatnonzero(row)
    masked += apart[i][..., present].sum()
    selected.append(apart[i][..., present].mean() if len(present) else 0.0)
  expected = {
    # The mean counts the zeros of absent classes.
    puzzle.Selection.MASK: masked / apart.size,
    puzzle.Selection.SELECTION: np.mean(selected),
    puzzle.Selection.NONE: apart.mean(),
  }
  for selection, value in expected.items():
    loss = puzzle.reconstruction_loss(
      *map(jnp.asarray, (_CAM, _CAM_RE, _LABEL)),
      level=level,
      distance=distance,
      selection=selection,
    )
    np.testing.assert_allclose(loss, value, rtol=1e-5, err_msg=str(selection))


def test_confidence_is_the_entropy_like_sum():
  z = _CAM[:, 0, 0]
  p = 1 / (1 + np.exp(-z))
  expected = np.mean([-sum(q * np.log(q + 1e-5) for q in row) for row in p])
  np.testing.assert_allclose(puzzle.confidence_loss(jnp.asarray(z)), expected, rtol=1e-5)
