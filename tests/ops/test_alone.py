"""Walk and CRF in a project that uses nothing else of this package."""

import subprocess
import sys

_PROGRAM = """
import sys
import pnoc_jax as pj
pj.ops.random_walk.random_walk, pj.ops.crf.dense_crf, pj.ops.pseudo_labels.normalize_walk
heavy = {'tensorflow_datasets', 'tensorflow', 'orbax', 'grain', 'matplotlib', 'torch', 'optax'}
print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))
"""


def test_nothing_heavy_is_imported_for_them():
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM], capture_output=True, text=True, timeout=120, check=True
  )
  assert done.stdout.strip() == '[]'
