"""Runs the launcher again and again: it dies at each of the moments, and at last runs to the end.

    python tests/dying_run.py SIGKILL:step:c2am:5 SIGTERM:file:priors:6 -- --config=...

The launcher's flags follow the dashes; `--workdir=` is one of them.

`step:STAGE:N` is when the stage logs step N; `file:STAGE:N` is in the middle of writing its Nth
image or archive. After each death a line says how it came and what it left.
"""

import os
import pathlib
import runpy
import signal
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
  """Forks a launcher for each moment, and one more."""
  # What all launchers import anyway; no device is touched before they part.
  from pnoc_jax.runs import runner  # noqa: F401

  split = sys.argv.index('--')
  moments, flags = sys.argv[1:split], sys.argv[split + 1 :]
  workdir = pathlib.Path(next(x for x in flags if x.startswith('--workdir=')).partition('=')[2])
  for moment in (*moments, ''):
    sys.stdout.flush()
    process = os.fork()
    if not process:
      _launch(moment, flags)
      return
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if not moment:
      sys.exit(code)
    name, _, stage, _ = moment.split(':')
    left = 'done' if (workdir / stage / 'DONE').exists() else 'not done'
    print(f'[{moment}] exit {code}, {stage} is {left}', flush=True)
    if code != {'SIGKILL': -signal.SIGKILL, 'SIGTERM': 143}[name]:
      sys.exit(f'{moment}: exit {code}')


def _launch(moment, flags):
  if moment:
    name, kind, stage, count = moment.split(':')
    strike = {'step': _at_step, 'file': _at_file}[kind]
    strike(stage, int(count), signal.Signals[name])
  sys.argv[:] = [str(ROOT / 'launch' / 'run.py'), *flags]
  runpy.run_path(sys.argv[0], run_name='__main__')


def _at_step(stage, count, sent):
  from pnoc_jax.io import records

  write = records.JsonLines.write

  def struck(self, value):
    write(self, value)
    if value['step'] == count and self._path.parent.name == stage:
      os.kill(os.getpid(), sent)

  records.JsonLines.write = struck


def _at_file(stage, count, sent):
  replace, written = os.replace, []

  def struck(source, target, **options):
    path = pathlib.Path(target)
    if path.suffix in ('.png', '.npz') and stage in path.parts:
      written.append(path)
      if len(written) == count:
        if sent is signal.SIGKILL:
          os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), sent)
    replace(source, target, **options)

  os.replace = struck


if __name__ == '__main__':
  main()
