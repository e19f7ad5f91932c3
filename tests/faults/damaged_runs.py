"""Damages what a run has left, and gives the same command: it mends the damage, or refuses by name.

    python tests/faults/damaged_runs.py --config=tests/configs/tiny.py --count=20

In turn: half of the files of a finished stage are deleted, of a stage that is half done, with its
record; the newest checkpoint of a training is cut, changed, or lacks a file. What is refused names
a path, and `--config.rerun` of the stage, or `discard_unreadable`, leads to the end. In any case
the products are, bit by bit, what they were; pictures of a training's past epochs may be gone.
"""

import argparse
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from faults import launches  # noqa: E402

from pnoc_jax.report import files  # noqa: E402

_KEPT = ('config.json', 'DONE')


def check(flags: list[str], root: pathlib.Path, count: int, seed: int) -> list[str]:
  """Damages a finished run so many times, each time another copy of it.

  Args:
    flags: of the launcher, without `--workdir`.
    root: a directory; `whole` in it, if it is there, is the finished run.
    count: of damages.
    seed: of what is damaged.

  Returns:
    What is wrong, in words.
  """
  whole, faults = root / 'whole', []
  if _launch(flags, whole, root / 'whole.log'):
    return [f'the undisturbed run failed, see {root / "whole.log"}']
  expected = launches.lasting(whole)
  stages = sorted(path.parent.name for path in whole.glob('*/DONE'))
  order = sorted(stages, key=lambda x: (whole / x / 'DONE').stat().st_mtime_ns)
  for number in range(count):
    rng = random.Random(f'{seed} {number}')
    damage = (_halve_done, _halve_begun, _break_checkpoint)[number % 3]
    copied, log = root / f'damaged{number}', root / f'damaged{number}.log'
    shutil.copytree(whole, copied)
    stage, what = damage(copied, order, rng)
    code, remedy = _launch(flags, copied, log), ''
    if code == 2:
      text = log.read_text(encoding='utf-8', errors='replace')
      said = text.strip().splitlines()[-1]
      remedy = (
        '--config.runtime.discard_unreadable=True'
        if 'discard_unreadable' in text
        else f'--config.rerun={stage}'
      )
      if str(copied) not in said or 'Traceback' in text:
        faults.append(f'{what}: refused without the path, see {log}: {said}')
      code = _launch([*flags, remedy], copied, log)
    print(f'{number + 1}/{count}: {what}: {remedy or "the same command"}: exit {code}', flush=True)
    if code:
      faults.append(f'{what}: exit {code}, see {log}')
    found = {k: x for k, x in launches.lasting(copied).items() if '.old' not in k}
    # Maps over the epochs are drawn while a network trains, for the report, and never again.
    other = launches.differences(found, expected)
    drawn = (f'/{files.HISTORY}/', f'/{files.JUDGED}/')
    other = [x for x in other if x in found or not any(folder in x for folder in drawn)]
    # The remedy stands in the run's config.
    faults += [f'{what}: {x} differs' for x in other if not (remedy and x == 'config.json')]
    if not faults:
      shutil.rmtree(copied)
  return faults


def _launch(flags: list[str], workdir: pathlib.Path, log: pathlib.Path) -> int:
  launch = launches.start([*flags, f'--workdir={workdir}'], log)
  for _ in launch.events():
    pass
  return launch.end(60.0)[launch.pids[0]]


def _halve_done(run: pathlib.Path, order: list[str], rng: random.Random) -> tuple[str, str]:
  """Deletes half of a finished stage's files, and all that came after the stage."""
  stage = rng.choice(order)
  _forget(run, order, order.index(stage) + 1)
  return stage, f'half of {stage}, which is done, is gone: {_halve(run / stage, rng)} files'


def _halve_begun(run: pathlib.Path, order: list[str], rng: random.Random) -> tuple[str, str]:
  """Likewise, of a stage that is not done."""
  stage = rng.choice(order)
  _forget(run, order, order.index(stage) + 1)
  (run / stage / 'DONE').unlink()
  return stage, f'half of {stage}, which is half done, is gone: {_halve(run / stage, rng)} files'


def _halve(folder: pathlib.Path, rng: random.Random) -> int:
  there = [path for path in sorted(folder.rglob('*')) if path.is_file()]
  there = [path for path in there if path.name not in _KEPT and path.parent.name != 'checkpoints']
  gone = [path for path in there if rng.random() < 0.5] or there[:1]
  for path in gone:
    path.unlink()
  return len(gone)


def _break_checkpoint(run: pathlib.Path, order: list[str], rng: random.Random) -> tuple[str, str]:
  """Damages a file of the newest checkpoint of a training that has not come to its end."""
  stage = rng.choice([x for x in order if (run / x / 'checkpoints').is_dir()])
  _forget(run, order, order.index(stage) + 1)
  (run / stage / 'DONE').unlink()
  (run / stage / 'weights.safetensors').unlink()
  steps = [path for path in (run / stage / 'checkpoints').iterdir() if path.name.isdecimal()]
  newest = max(steps, key=lambda x: int(x.name))
  path = rng.choice([x for x in sorted(newest.rglob('*')) if x.is_file() and x.stat().st_size])
  ways: dict[str, Callable[[bytes], bytes]] = {
    'is cut': lambda data: data[: len(data) // 2],
    'has other bytes': lambda data: bytes(x ^ 0x55 for x in data),
    'is gone': lambda data: b'',
  }
  way = rng.choice(sorted(ways))
  data = ways[way](path.read_bytes())
  path.write_bytes(data) if data else path.unlink()
  return stage, f'{path.relative_to(run)} {way}'


def _forget(run: pathlib.Path, order: list[str], begin: int) -> None:
  for stage in order[begin:]:
    shutil.rmtree(run / stage)


def main() -> int:
  """Reads the arguments and damages runs."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', default='tests/configs/tiny.py')
  parser.add_argument('--count', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--root', help='a directory to work in; by default one that is removed')
  arguments, more = parser.parse_known_args()
  from pnoc_jax.runs import runner  # noqa: F401

  with tempfile.TemporaryDirectory() as kept:
    root = pathlib.Path(arguments.root or kept).absolute()
    root.mkdir(parents=True, exist_ok=True)
    flags = [f'--config={arguments.config}', *more]
    faults = check(flags, root, arguments.count, arguments.seed)
  print('\n'.join(faults))
  print(f'{len(faults)} faults')
  return 1 if faults else 0


if __name__ == '__main__':
  sys.exit(main())
