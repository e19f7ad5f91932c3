"""The random walk as its definition has it: a matrix of cells by cells, squared, in float64."""

import numpy as np

from pnoc_jax.ops import paths


def dense_walk(scores, edge, *, radius, beta, exp_times):
  """The walk of scores [h, w, K] within edges [h, w], with no function of the package but paths."""
  height, width, _ = scores.shape
  edge = edge.astype(np.float64)
  matrix = np.eye(height * width)
  for direction in paths.directions(radius):
    for y, x in np.ndindex(height, width):
      to_y, to_x = y + direction[0], x + direction[1]
      if to_y < height and 0 <= to_x < width:
        a = 1 - max(edge[y + p, x + q] for p, q in paths.path(direction))
        i, j = y * width + x, to_y * width + to_x
        matrix[i, j] = matrix[j, i] = a**beta
  matrix /= matrix.sum(0)
  for _ in range(exp_times):
    matrix = matrix @ matrix
  flat = (scores * (1 - edge)[..., None]).reshape(height * width, -1)
  return (flat.T @ matrix).T.reshape(scores.shape)
