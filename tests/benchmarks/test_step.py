"""Runs benchmarks/step.py as a person would, tiny, and looks at its rows."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import rows, step
from pnoc_jax.updates import pnoc
from tests import machine

_ROOT = Path(__file__).resolve().parent.parent.parent
# Whatever the package depends on beyond jax, flax, optax, chex and numpy (absl is chex's).
_FOREIGN = (
  'grain',
  'matplotlib',
  'ml_collections',
  'orbax',
  'PIL',
  'safetensors',
  'scipy',
  'tensorboardX',
  'tensorflow_datasets',
  'torch',
  'tqdm',
)
_BLOCKED = """
import runpy, sys
for name in {foreign!r}:
  sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def settings(method: str) -> argparse.Namespace:
  return argparse.Namespace(
    backbone='resnest_tiny',
    method=method,
    size=32,
    batch=2,
    classes=3,
    output_stride=8,
    precision='float32',
  )


def test_table_goes_on_after_a_row_that_fails(tmp_path):
  file = tmp_path / 'rows.json'
  command = [
    *(sys.executable, '-c', _BLOCKED.format(foreign=_FOREIGN), 'benchmarks/step.py'),
    *('--backbone', 'resnet19', 'resnet18', '--method', 'vanilla', '--output_stride=32'),
    *('--size=32', '--batch=2', '--classes=3', '--steps=2', '--warmup=1', f'--json={file}'),
  ]
  done = subprocess.run(
    command, cwd=_ROOT, env=machine.environment(), capture_output=True, text=True, timeout=900
  )
  assert done.returncode == 0, done.stderr
  failed, row = json.loads(file.read_text())
  assert 'Known: resnet18' in failed['status']
  assert row['status'] == 'ok'
  assert row['images_per_s'] == pytest.approx(2e3 / row['step_ms'])
  # ResNet-18 makes 1.82 G multiplications at 224 px; forward and backward are three times as many,
  # for two images. XLA leaves out those with padding, which are many at 32 px.
  whole = 2 * 1.82 * (32 / 224) ** 2 * 3 * 2
  assert 0.3 * whole < row['gflop'] < whole
  assert row['mfu'] == pytest.approx(
    100 * row['gflop'] / row['step_ms'] / row['peak_tflops'], rel=1e-6
  )
  assert row['planned_mib'] > 1
  assert all(row[name] > 0 for name in ('trace_s', 'compile_s', 'cached_s'))
  assert 'resnet18' in done.stdout and 'resnet19' in done.stdout


@pytest.mark.parametrize('method', sorted(pnoc.METHODS))
def test_steps_of_the_methods_trace(method):
  parts = pnoc.METHODS[method]
  made = step.make_step(settings(method), remat=False, scan=False)
  generator, noc, judge, split = made.init()
  assert (noc is not None) == parts.noc
  assert (judge is not None) == (parts.judge and not parts.noc)
  batch = rows.make_batch(settings(method))
  variables = judge if noc is None else noc.variables
  key = jax.random.key(0)
  after, _, erasure, metrics = jax.eval_shape(
    made.generator, generator, variables, split, batch, key
  )
  assert jax.tree.structure(after) == jax.tree.structure(generator)
  assert ('loss/cse' in metrics) == parts.judge and ('loss/re' in metrics) == parts.tiles
  if parts.noc:
    _, metrics = jax.eval_shape(made.noc, noc, erasure, batch)
    assert 'loss/noc' in metrics


def test_flops_are_two_a_multiplication():
  flop = step.model_flop(lambda x: jax.numpy.dot(x, x), [jax.ShapeDtypeStruct((64, 64), 'float32')])
  assert flop == pytest.approx(2 * 64**3, rel=0.01)


@pytest.mark.parametrize(
  ('error', 'status'),
  [
    (MemoryError(), 'OOM'),
    (RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 byte'), 'OOM'),
    (RuntimeError('CUDA out of memory. Tried to allocate 2 GiB'), 'OOM'),
    (ValueError('image is too small\nreally'), 'ValueError: image is too small'),
  ],
)
def test_status_names_memory(error, status):
  assert rows.status_of(error) == status


@pytest.mark.parametrize(
  ('kind', 'tflops'), [('NVIDIA H100 80GB HBM3', 989), ('NVIDIA H100 PCIe', 756), ('TPU v6e', 918)]
)
def test_peak_is_the_sheets(kind, tflops):
  flags = argparse.Namespace(peak_tflops=None, precision='bfloat16')
  assert rows.peak_flops(flags, kind, matmul=None)[0] == tflops * 1e12
