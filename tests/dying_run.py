"""Runs the launcher and sends itself a signal at a chosen moment.

    python tests/dying_run.py SIGKILL step 7 --config=... --workdir=...

`step N` is when the generator logs step N; `prior N` is in the middle of writing the Nth prior.
"""

import os
import pathlib
import runpy
import signal
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
  """Arms the moment, then becomes the launcher."""
  name, moment, count = sys.argv[1:4]
  die = {'step': _at_step, 'prior': _at_prior}[moment]
  die(int(count), lambda: os.kill(os.getpid(), signal.Signals[name]))
  sys.argv[:] = [str(ROOT / 'launch' / 'run.py'), *sys.argv[4:]]
  runpy.run_path(sys.argv[0], run_name='__main__')


def _at_step(count, strike):
  from pnoc_jax.training import log

  write = log.MetricWriter.write

  def struck(self, step, metrics):
    write(self, step, metrics)
    if step == count and 'loss/noc' in metrics:
      strike()

  log.MetricWriter.write = struck


def _at_prior(count, strike):
  from pnoc_jax.io import products

  write, done = products.write_atomic, []

  def struck(path, fill):
    done.append(path)
    if str(path).endswith('.npz') and 'priors' in str(path) and len(done) == count:
      pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
      pathlib.Path(path).with_name(f'.{pathlib.Path(path).name}.tmp').write_bytes(b'PK\x03\x04')
      strike()
    write(path, fill)

  products.write_atomic = struck


if __name__ == '__main__':
  main()
