"""The dense CRF: mean field over two Gaussian kernels, by the lattice or over all pairs."""

from pnoc_jax.ops.crf.mean_field import (
  LABELS,
  PROBABILITIES,
  Filter,
  Kernels,
  dense_crf,
  label_unary,
  softmax_unary,
)

__all__ = [
  'LABELS',
  'PROBABILITIES',
  'Filter',
  'Kernels',
  'dense_crf',
  'label_unary',
  'softmax_unary',
]
