"""What does the random walk cost: as a stencil, as a sparse matrix, as the reference's dense one?

    python benchmarks/random_walk.py
    python benchmarks/random_walk.py --size 160 --method steps chebyshev sparse

256 steps, radius 5, on random maps. Each row runs in a process of its own, after one run that does
not count. `seconds`: the stencils include the affinities, the others start from a finished matrix.
Dense squaring multiplies float32 matrices with numpy; beyond `--dense_whole` cells a side one
squaring of eight is timed, and the time is eight times that. `peak MiB`: what the process's
resident memory grows by, compiler included; `plan MiB`: what XLA allocates for the compiled walk.
`error`: largest difference from the sparse walk in float64, relative to its largest score;
`argmax`: share of the cells with the same class. Needs jax, flax, chex, numpy and scipy.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax.ops import paths

_METHODS = ('steps', 'chebyshev', 'sparse', 'dense')
_RADIUS, _BETA, _EXP_TIMES = 5, 10.0, 8


def make_problem(size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns scores f32[size, size, classes] and edges f32[size, size] that are mostly low."""
  rng = np.random.default_rng(size)
  scores = rng.uniform(size=(size, size, classes)).astype(np.float32)
  return scores, (rng.uniform(size=(size, size)) ** 3).astype(np.float32)


def make_matrix(edge: np.ndarray, dtype: type):
  """Returns the transposed transition matrix of the walk, sparse [h * w, h * w]."""
  import scipy.sparse

  height, width = edge.shape
  cells = np.arange(height * width).reshape(height, width)
  r = _RADIUS - 1
  padded = np.pad(edge.astype(np.float64), ((0, r), (r, r)), constant_values=1.0)
  values, sources, targets = [np.ones(height * width)], [cells.ravel()], [cells.ravel()]
  for direction in paths.directions(_RADIUS):
    crops = [padded[y : y + height, r + x : r + x + width] for y, x in paths.path(direction)]
    a = 1.0 - np.maximum.reduce(crops)
    y, x = np.nonzero(a > 0)
    here, there = cells[y, x], cells[y + direction[0], x + direction[1]]
    values += [a[y, x] ** _BETA] * 2
    sources += [here, there]
    targets += [there, here]
  entries = np.concatenate(values), (np.concatenate(targets), np.concatenate(sources))
  matrix = scipy.sparse.csr_matrix(entries, shape=(edge.size, edge.size))
  return (scipy.sparse.diags(1.0 / matrix.sum(1).A1) @ matrix).astype(dtype).tocsr()


def walk_sparse(matrix, scores: np.ndarray, edge: np.ndarray) -> np.ndarray:
  """Returns the walk by 2^8 products with the sparse matrix, in its dtype."""
  x = (scores * (1.0 - edge)[..., None]).reshape(edge.size, -1).astype(matrix.dtype)
  for _ in range(2**_EXP_TIMES):
    x = matrix @ x
  return x.reshape(scores.shape)


def measure(settings: argparse.Namespace) -> dict:
  """Returns the row of one size and one method."""
  scores, edge = make_problem(settings.size, settings.classes)
  before = _peak_mib()
  row = {'size': settings.size, 'method': settings.method}
  if settings.method == 'sparse':
    matrix = make_matrix(edge, np.float32)
    times, found = _time(lambda: walk_sparse(matrix, scores, edge), settings)
    row['seconds'] = rows.median(times)
  elif settings.method == 'dense':
    seconds, found = _walk_dense(scores, edge, settings)
    row['seconds'] = seconds
  else:
    measured, found = _walk_stencil(scores, edge, settings)
    row |= measured
  row['peak_mib'] = _peak_mib() - before
  if found is not None:
    exact = walk_sparse(make_matrix(edge, np.float64), scores, edge)
    row['error'] = float(np.abs(found - exact).max() / exact.max())
    row['argmax'] = float((found.argmax(-1) == exact.argmax(-1)).mean())
  return row


def _peak_mib() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _time(run, settings) -> tuple[list[float], np.ndarray]:
  times, found, clock = [], run(), rows.CLOCKS[settings.clock]
  for _ in range(settings.steps):
    start = clock()
    found = run()
    times.append(clock() - start)
  return times, found


def _walk_dense(scores, edge, settings) -> tuple[float, np.ndarray | None]:
  whole, clock = settings.size <= settings.dense_whole, rows.CLOCKS[settings.clock]
  matrix = make_matrix(edge, np.float32).toarray()
  start = clock()
  for _ in range(_EXP_TIMES if whole else 1):
    matrix = matrix @ matrix
  seconds = clock() - start
  if not whole:
    return _EXP_TIMES * seconds, None
  x = (scores * (1.0 - edge)[..., None]).reshape(edge.size, -1)
  return seconds, (matrix @ x).reshape(scores.shape)


def _walk_stencil(scores, edge, settings) -> tuple[dict, np.ndarray]:
  import jax

  from pnoc_jax.ops import random_walk

  form = random_walk.Form(settings.method)

  def walk(scores, edge):
    return random_walk.random_walk(
      scores, edge, radius=_RADIUS, beta=_BETA, exp_times=_EXP_TIMES, form=form
    )

  scores, edge = jax.device_put((scores, edge))
  start = time.perf_counter()
  compiled = jax.jit(walk).lower(scores, edge).compile()
  compile_s = time.perf_counter() - start
  plan = compiled.memory_analysis()
  times, found = _time(lambda: jax.block_until_ready(compiled(scores, edge)), settings)
  planned = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
  row = {'seconds': rows.median(times), 'compile_s': compile_s, 'plan_mib': planned / 2**20}
  return row, np.asarray(found)


def format_row(row: dict) -> str:
  """Returns a line of the table; a number that was not measured is a dash."""
  cells = [f'{row["size"]:>6}  {row["method"]:>9}']
  for key, form in (
    ('seconds', '9.4f'),
    ('compile_s', '9.1f'),
    ('peak_mib', '9.0f'),
    ('plan_mib', '9.1f'),
    ('error', '9.1e'),
    ('argmax', '9.5f'),
  ):
    cells.append(f'{"-":>9}' if row.get(key) is None else format(row[key], form))
  return '  '.join(cells)


def main(argv: list[str] | None = None) -> list[dict]:
  """Reads the flags and prints the table as it grows; returns its rows."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--size', type=int, nargs='+', default=[32, 64, 96, 128, 160], help='cells a side')
  add('--method', nargs='+', choices=_METHODS, default=list(_METHODS))
  add('--classes', type=int, default=3)
  add('--clock', choices=rows.CLOCKS, default='wall', help='cpu: time of a CPU shared with others')
  add('--steps', type=int, default=5, help='timed runs of each; the median counts')
  add('--dense_whole', type=int, default=64, help='cells a side up to which all squarings run')
  add('--dense_limit', type=int, default=128, help='cells a side up to which one squaring runs')
  add('--json', type=Path, help='also write the rows to this file')
  settings = parser.parse_args(argv)
  titles = ('seconds', 'compile s', 'peak MiB', 'plan MiB', 'error', 'argmax')
  print('  '.join([f'{"size":>6}  {"method":>9}', *(f'{title:>9}' for title in titles)]))
  found = []
  context = multiprocessing.get_context('spawn')
  for size in settings.size:
    for method in settings.method:
      if method == 'dense' and size > settings.dense_limit:
        continue
      one = argparse.Namespace(**{**vars(settings), 'size': size, 'method': method})
      with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        found.append(pool.submit(measure, one).result())
      print(format_row(found[-1]), flush=True)
      if settings.json:
        settings.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
  return found


if __name__ == '__main__':
  main()
