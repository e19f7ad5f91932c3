"""Kills a run again and again: what it leaves must be, bit by bit, what an undisturbed run leaves.

    python tests/faults/killed_runs.py --config=configs/pnoc_shapes.py:smoke --kills=50
    python tests/faults/killed_runs.py --config=tests/configs/tiny.py --renames
    python tests/faults/killed_runs.py --config=tests/configs/tiny.py --kills=10 --processes=2

The moments are drawn over the time that an undisturbed run takes, from its start to its end. After
each kill the same command goes on. `--renames` kills right before and right after the first rename
of each kind of file. With two processes one of them is killed, and the other one has to end by
itself. SIGKILL is sent from outside, or by the process itself where it is about a rename.
"""

import argparse
import bisect
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from faults import launches  # noqa: E402

ALONE = 120.0
"""Seconds that a process may take to end after another one was killed."""


class Moment(NamedTuple):
  """When to kill.

  Attributes:
    event: after this one has happened.
    stage: in which it happens; a launch that finds it done counts from the stage's beginning.
    delay: and so much later, s; at once where what came next in the undisturbed run has happened.
    later: what came next, and what followed.
  """

  event: str
  stage: str
  delay: float
  later: frozenset[str]


def record(flags: list[str], workdir: pathlib.Path, processes: int) -> list[tuple[float, str]]:
  """Makes an undisturbed run; returns its events with their times, the last one its end."""
  launch = launches.start([*flags, f'--workdir={workdir}'], _log(workdir), processes=processes)
  events = [(0.0, 'start'), *((launch.age, x) for x in launch.events())]
  codes = launch.end(60.0)
  if any(codes.values()):
    raise RuntimeError(f'the undisturbed run ended with {codes}; see {_log(workdir)}')
  return [*events, (launch.age, 'end')]


def _log(workdir: pathlib.Path) -> pathlib.Path:
  return workdir.with_name(f'{workdir.name}.log')


def draw(events: list[tuple[float, str]], kills: int, seed: int) -> list[Moment]:
  """Moments that are spread evenly over a run's time, in their order."""
  rng, times = random.Random(seed), [at for at, _ in events]
  moments = []
  for at in sorted(rng.uniform(0.0, times[-1]) for _ in range(kills)):
    place = bisect.bisect(times, at) - 1
    stage = next((x for _, x in events[place::-1] if x.startswith('stage ')), 'start')
    passed = {x for _, x in events[: place + 1]}
    later = frozenset(x for _, x in events[place + 1 :]) - passed
    moments.append(Moment(events[place][1], stage, at - times[place], later))
  return moments


def strike(
  flags: list[str],
  workdir: pathlib.Path,
  moment: Moment,
  seen: set[str],
  *,
  processes: int = 1,
  victim: int = 0,
) -> str:
  """Launches and kills at a moment; returns `killed`, `finished` or, in words, what is wrong.

  Args:
    flags: of the launcher.
    workdir: of the run.
    moment: when.
    seen: the events of earlier launches; those of this one are added.
    processes: how many the run has.
    victim: which of them is killed.
  """
  launch = launches.start([*flags, f'--workdir={workdir}'], _log(workdir), processes=processes)
  _wait(launch, moment, seen, str(workdir))
  code = os.waitpid(launch.pids[victim], os.WNOHANG)
  if code[0]:
    launch.codes[launch.pids[victim]] = os.waitstatus_to_exitcode(code[1])
  else:
    os.kill(launch.pids[victim], signal.SIGKILL)
  begun = time.monotonic()
  codes = launch.end(ALONE)
  if not any(codes.values()):
    return 'finished'
  if codes[launch.pids[victim]] != -signal.SIGKILL:
    return f'the launch ended by itself, with {list(codes.values())}'
  if 999 in codes.values():
    return f'the other process had not ended after {time.monotonic() - begun:.0f} s'
  return 'killed'


def _wait(launch: launches.Launch, moment: Moment, seen: set[str], home: str) -> None:
  """Waits for a moment, or for the end of the launch."""
  awaited = moment.stage if moment.event in seen else moment.event
  due = moment.delay if awaited == 'start' else None
  while True:
    event = launch.event(None if due is None else max(due - launch.age, 0.0))
    if event is None:
      return
    event = event.replace(home, '')  # Of both runs the same.
    seen.add(event)
    if event in moment.later:
      return
    if event == awaited and due is None:
      due = launch.age + moment.delay


def kills(
  flags: list[str], root: pathlib.Path, count: int, seed: int, processes: int = 1
) -> list[str]:
  """Kills a run at so many random moments; returns what is wrong, in words.

  Args:
    flags: of the launcher, without `--workdir`.
    root: an empty directory.
    count: of kills.
    seed: of the moments, and of which process is killed.
    processes: how many the run has.
  """
  whole, killed = root / 'whole', root / 'killed'
  events = [(at, x.replace(str(whole), '')) for at, x in record(flags, whole, processes)]
  print(f'undisturbed: {events[-1][0]:.0f} s, {len(events)} events', flush=True)
  rng, seen, faults, done = random.Random(f'{seed} victims'), set(), [], 0
  for number, moment in enumerate(draw(events, count, seed)):
    victim = rng.randrange(processes)
    outcome = strike(flags, killed, moment, seen, processes=processes, victim=victim)
    done += outcome == 'killed'
    print(
      f'{number + 1}/{count}: {moment.delay:.2f} s after {moment.event} in {moment.stage}, '
      f'process {victim}: {outcome}',
      flush=True,
    )
    if outcome not in ('killed', 'finished'):
      faults.append(f'{moment}: {outcome}')
  print(f'{done} of {count} launches were killed')
  return faults + _finish(flags, whole, killed, processes)


def _finish(
  flags: list[str], whole: pathlib.Path, killed: pathlib.Path, processes: int
) -> list[str]:
  """The last launch, and how what it leaves differs from the undisturbed run's."""
  launch = launches.start([*flags, f'--workdir={killed}'], _log(killed), processes=processes)
  for _ in launch.events():
    pass
  codes = launch.end(60.0)
  faults = [f'the last launch ended with {list(codes.values())}'] if any(codes.values()) else []
  expected, found = launches.lasting(whole), launches.lasting(killed)
  if processes > 1:
    del expected['config.json'], found['config.json']  # It names the port of the launch.
  print(f'{len(expected)} files are compared')
  return faults + [f'{path} differs' for path in launches.differences(found, expected)]


def renames(flags: list[str], root: pathlib.Path) -> list[str]:
  """Kills a run before and after the first rename of each kind of file.

  Args:
    flags: of the launcher, without `--workdir`.
    root: an empty directory.

  Returns:
    What is wrong, in words.
  """
  whole, killed = root / 'whole', root / 'killed'
  record(flags, whole, 1)
  struck: set[str] = set()

  def fault(tell: launches.Hear) -> launches.Hear:
    def hear(event: str) -> None:
      what, _, path = event.partition(' ')
      if what in ('before', 'file') and path.startswith(f'{killed}/'):
        name = f'{what} {launches.kind(event, killed)}'
        if name not in struck:
          tell(f'strikes {name}')
          os.kill(os.getpid(), signal.SIGKILL)

    return hear

  faults = []
  while True:
    launch = launches.start([*flags, f'--workdir={killed}'], _log(killed), fault=fault)
    found = [x.partition(' ')[2] for x in launch.events() if x.startswith('strikes ')]
    code = launch.end(60.0)[launch.pids[0]]
    if code != -signal.SIGKILL:
      break
    print(f'{len(struck) + 1}: killed {found[0].replace("file", "after", 1)}', flush=True)
    struck.update(found[:1])
  print(f'{len(struck)} launches were killed, about {len({x.split()[1] for x in struck})} kinds')
  faults += [] if not code else [f'the last launch ended with {code}']
  return faults + _finish(flags, whole, killed, 1)


def main() -> int:
  """Reads the arguments and kills."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', default='configs/pnoc_shapes.py:smoke')
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--renames', action='store_true', help='kill around renames instead')
  parser.add_argument('--processes', type=int, default=1)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--root', help='a new directory to work in; by default one that is removed')
  arguments, more = parser.parse_known_args()
  from pnoc_jax.runs import runner  # noqa: F401

  flags = [f'--config={arguments.config}', *more]
  with tempfile.TemporaryDirectory() as kept:
    root = pathlib.Path(arguments.root or kept).absolute()
    root.mkdir(parents=True, exist_ok=True)
    if arguments.renames:
      faults = renames(flags, root)
    else:
      faults = kills(flags, root, arguments.kills, arguments.seed, arguments.processes)
  print('\n'.join(faults))
  print(f'{len(faults)} faults')
  return 1 if faults else 0


if __name__ == '__main__':
  sys.exit(main())
