"""benchmarks/proxy.py: its rank correlation, and the networks that it makes of checkpoints."""

import numpy as np
import pytest

from benchmarks import proxy
from pnoc_jax.io import checkpoints, records, weights


def test_the_rank_correlation_is_spearmans():
  assert proxy.rank_correlation([1.0, 2, 3], [10.0, 200, 3000]) == pytest.approx(1)
  assert proxy.rank_correlation([1.0, 2, 3], [3.0, 2, 1]) == pytest.approx(-1)
  # Ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3.
  expected = np.corrcoef([0, 1.5, 1.5, 3], [0, 1, 2, 3])[0, 1]
  assert proxy.rank_correlation([1.0, 5, 5, 9], [1.0, 2, 3, 4]) == pytest.approx(expected)
  assert proxy.rank_correlation([100.0, 100], [1.0, 2]) is None


def test_a_checkpoint_becomes_what_the_stage_leaves(tmp_path):
  stage, out = tmp_path / 'generator', tmp_path / 'then'
  params = {'classifier': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)}}
  state = {'params': params, 'batch_stats': {'norm': {'mean': np.ones(2, np.float32)}}}
  with checkpoints.Checkpoints(stage / 'checkpoints') as store:
    for step in (3, 6):
      shifted = {
        **state,
        'params': {'classifier': {'kernel': params['classifier']['kernel'] + step}},
      }
      store.save(step, {'generator': shifted, 'noc': state, 'step': np.int32(step)})
  weights.save(stage, state, meta={'arch': 'x'})
  records.write_done(stage, {}, {}, {})
  proxy._write_generator(stage, 3, out)
  variables, meta = weights.load(out)
  assert variables.keys() == {'params', 'batch_stats'} and meta['arch'] == 'x'
  kernel = variables['params']['classifier']['kernel']
  np.testing.assert_array_equal(kernel, params['classifier']['kernel'] + 3)
  assert records.read_done(out) is not None
