"""What the two processes of `test_hosts.py` do."""

import os
import pathlib
import signal

import jax
import numpy as np

from pnoc_jax.engine import log, loop
from pnoc_jax.io import checkpoints, records
from pnoc_jax.parallel import arrays, compile, hosts
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from tests.engine import quadratic


def everything(mesh, folder):
  """Runs all checks in one pair of processes: starting them is most of the time."""
  folder = pathlib.Path(folder)
  return {
    'hosts': _hosts(folder),
    'arrays': _arrays(mesh),
    'training': _training(mesh, folder / 'training'),
    'damaged': _damaged(mesh, folder / 'damaged'),
    'signal': _signal(mesh, folder / 'signal'),
  }


def _hosts(folder):
  me = hosts.process_index()
  # The barrier: what process 0 wrote before it, process 1 reads after it.
  if hosts.is_main():
    (folder / 'flag').write_text('written')
  hosts.barrier('flag')
  return {
    'index': me,
    'count': hosts.process_count(),
    'read': (folder / 'flag').read_text(),
    'any': [hosts.any_host(me == 1), hosts.any_host(False), hosts.any_host(me == 0)],
  }


def _arrays(mesh):
  me = hosts.process_index()
  rows = np.arange(8, dtype=np.float32).reshape(8, 1)[me * 4 : me * 4 + 4]
  batch = arrays.to_global({'x': rows}, mesh)
  key = arrays.replicate(jax.random.key(3), mesh)
  scale = compile.jit(
    lambda x, key: (x / x.max(), jax.random.normal(key, x.shape[:1])),
    mesh,
    ins=(BATCH, REPLICATED),
    outs=(BATCH, REPLICATED),
  )
  x, noise = scale(batch['x'], key)
  return {
    'global': arrays.to_host(batch['x']).ravel().tolist(),
    'scaled': arrays.to_host(x).ravel().tolist(),
    'noise': arrays.to_host(noise).tolist(),
    'traces': scale.traces,
  }


def _training(mesh, folder):
  """Trains ten steps whole, then five and five, and compares."""
  whole = _train(mesh, folder / 'whole', 10)
  _train(mesh, folder / 'cut', 5)
  resumed = _train(mesh, folder / 'cut', 10)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  return {
    'w': resumed.params['w'].tolist(),
    'logged': [line['step'] for line in records.read_jsonl(folder / 'cut' / log.METRICS)],
  }


def _damaged(mesh, folder):
  """Cuts the newest checkpoint: both processes fall back to the one before."""
  state = arrays.replicate(quadratic.init(), mesh)
  with checkpoints.Checkpoints(folder, report=str, agree=hosts.any_host) as saved:
    saved.save(1, state)
    saved.save(2, state)
    saved.wait()
    if hosts.is_main():
      for path in (folder / '2' / 'state').rglob('*'):
        if path.is_file():
          path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    hosts.barrier('damaged')
    step = saved.restore_latest(state).step
    saved.save(2, state)
  return [step, _steps(folder)]


def _steps(folder):
  """Returns the steps that are on the disk."""
  with checkpoints.Checkpoints(folder) as saved:
    return saved.steps()


def _signal(mesh, folder):
  """Sends SIGTERM to one process: both stop at the same step, with a checkpoint."""
  with loop.stop_on_signals() as flag:
    asked = []

    def should_stop():
      asked.append(0)
      if hosts.process_index() == 1 and len(asked) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      return flag()

    try:
      _train(mesh, folder, 1000, should_stop=should_stop)
    except loop.Interrupted as interrupted:
      return [interrupted.step, _steps(folder / 'checkpoints')]
  return 'not stopped'


def _train(mesh, folder, total_steps, **hooks):
  state, step = arrays.replicate(quadratic.init(), mesh), 0
  with checkpoints.Checkpoints(folder / 'checkpoints') as saved:
    restored = saved.restore_latest(state)
    if restored is not None:
      step, state, _ = restored
    with log.MetricWriter(
      folder, total_steps=total_steps, start_step=step, tensorboard=False, console=None
    ) as writer:
      state = loop.fit(
        quadratic.make_update(mesh),
        state,
        quadratic.batches(
          mesh, step, process_index=hosts.process_index(), process_count=hosts.process_count()
        ),
        loop.Hooks(save=saved.save, log=writer.write, **hooks),
        total_steps=total_steps,
        start_step=step,
        every=loop.Every(log=5, save=5, agree=4),
      )
  return arrays.to_host(state)
