"""Seeded random weights by torch name and shape, for both sides of a parity fixture."""

import zlib

import numpy as np


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns f32[shape] that depends on the name alone, of a size that keeps activations near 1."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  if name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  if len(shape) == 1:
    return rng.normal(0.0, 0.2, shape).astype(np.float32)
  fan_in = int(np.prod(shape[1:]))
  return rng.normal(0.0, (1.5 / fan_in) ** 0.5, shape).astype(np.float32)


def image(shape: tuple[int, ...]) -> np.ndarray:
  """Returns normalised images f32[B, H, W, 3]."""
  return np.random.default_rng(7).normal(0.0, 1.0, shape).astype(np.float32)
