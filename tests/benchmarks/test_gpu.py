"""benchmarks/gpu.sh ends whatever its parts do, and says of each what came of it."""

import json
import os
import pathlib
import subprocess

from benchmarks import agreement, gpu_table

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Stands in for Python: the first benchmark writes a row, torch's is missing, the walk hangs.
_PYTHON = """#!/bin/bash
case "$*" in
  *gpu_table.py*) exec python3 "$@" ;;
  *torch_step.py*) echo "torch failed to import: none"; echo "pip install it"; exit 1 ;;
  *random_walk.py*) sleep 60 ;;
  *crf*) printf 'Traceback\\n\\nValueError: broken\\n'; exit 1 ;;
  *) for word; do [[ $word == --json=* ]] && echo '[{"step_ms": 2.5}]' >"${word#--json=}"; done ;;
esac
"""


def test_the_script_ends_and_tells_of_every_part(tmp_path):
  python = tmp_path / 'python'
  python.write_text(_PYTHON)
  python.chmod(0o755)
  out = tmp_path / 'gpu'
  environment = os.environ | {
    'OUT': str(out),
    'PYTHON': str(python),
    'NETS': 'resnest14 resnest269',
    'LIMIT': '3',
  }
  done = subprocess.run(
    ['benchmarks/gpu.sh'], cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads((out / 'gpu.json').read_text())
  assert found['jax_resnest269'] == found['agreement'] == [{'step_ms': 2.5}]
  assert found['torch_resnest14'] == [{'status': 'torch failed to import: none'}]
  assert found['crf'] == [{'status': 'ValueError: broken'}]
  assert 'stopped at' in found['walk'][0]['status']
  assert 'are over' in found['depthwise'][0]['status'] and 'torch_compile_resnest14' in found
  table = (out / 'gpu.md').read_text()
  assert '| jax_resnest269 | step_ms 2.5 |' in table and '| crf | ValueError: broken |' in table
  assert 'jax_resnest269' in (out / 'log').read_text()


def test_a_row_of_every_kind_has_a_line():
  rows = {'a': [{'status': 'OOM', 'form': 'jax'}], 'b': [{'images_per_s': 2.0, 'mfu': None}]}
  assert list(gpu_table.lines(rows))[2:] == ['| a | form jax, OOM |', '| b | images_per_s 2.0 |']


def test_ways_of_weights_are_compared_by_their_length():
  expected = {'loss/a': 2.0}, {'w': agreement.np.array([3.0, 4.0])}
  found = {'loss/a': 2.1}, {'w': agreement.np.array([3.0, 3.5])}
  row = agreement._compare('x', found, expected)
  assert abs(row['difference'] - 0.05) < 1e-9 and abs(row['weights'] - 0.1) < 1e-9
