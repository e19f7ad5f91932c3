"""Kills a run again and again: what it leaves must be, bit by bit, what an undisturbed run leaves.

    python tests/faults/killed_runs.py --config=configs/pnoc_shapes.py:smoke --kills=50
    python tests/faults/killed_runs.py --config=tests/configs/tiny.py --renames
    python tests/faults/killed_runs.py --config=tests/configs/tiny.py --kills=10 --processes=2

The moments are drawn over the time that an undisturbed run takes, from its start to its end. After
each kill the same command goes on. `--renames` kills right before and right after the first rename
of each kind of file. With two processes one of them is killed, both in turn as often, and the other
one has to end by itself; process 0 without a traceback. SIGKILL is sent from outside, or by the
process itself where it is about a rename. A call that killed nothing or compared nothing fails.
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
JOINING = 400.0
"""Likewise where process 0 may not have been met yet: JAX waits 300 s for one that is not there."""


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

  What begins with `killed` goes on with how the other process has ended.

  Args:
    flags: of the launcher.
    workdir: of the run.
    moment: when.
    seen: the events of earlier launches; those of this one are added.
    processes: how many the run has.
    victim: which of them is killed.
  """
  log = _log(workdir)
  said = log.stat().st_size if log.exists() else 0
  launch = launches.start([*flags, f'--workdir={workdir}'], log, processes=processes)
  heard = _wait(launch, moment, seen, str(workdir))
  code = os.waitpid(launch.pids[victim], os.WNOHANG)
  if code[0]:
    launch.codes[launch.pids[victim]] = os.waitstatus_to_exitcode(code[1])
  else:
    os.kill(launch.pids[victim], signal.SIGKILL)
  begun = time.monotonic()
  codes = launch.end(ALONE if heard else JOINING)
  passed = time.monotonic() - begun
  if not any(codes.values()):
    return 'finished'
  if codes[launch.pids[victim]] != -signal.SIGKILL:
    return f'the launch ended by itself, with {list(codes.values())}'
  if 999 in codes.values():
    return f'the other process had not ended after {passed:.0f} s'
  if victim and b'Traceback' in log.read_bytes()[said:]:
    return f'process 0, which was not killed, ended with a traceback; see {log}'
  others = [codes[pid] for pid in launch.pids if pid != launch.pids[victim]]
  return f'killed; {passed:.0f} s later the others had ended with {others}' if others else 'killed'


def _wait(launch: launches.Launch, moment: Moment, seen: set[str], home: str) -> bool:
  """Waits for a moment, or for the end of the launch; returns whether process 0 told anything."""
  heard = False
  awaited = moment.stage if moment.event in seen else moment.event
  due = moment.delay if awaited == 'start' else None
  while True:
    event = launch.event(None if due is None else max(due - launch.age, 0.0))
    if event is None:
      return heard
    heard = True
    event = event.replace(home, '')  # Of both runs the same.
    seen.add(event)
    if event in moment.later:
      return heard
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
  victims = [number % processes for number in range(count)]
  random.Random(f'{seed} victims').shuffle(victims)
  seen: set[str] = set()
  faults, done = [], 0
  for number, (moment, victim) in enumerate(zip(draw(events, count, seed), victims, strict=True)):
    outcome = strike(flags, killed, moment, seen, processes=processes, victim=victim)
    done += outcome.startswith('killed')
    print(
      f'{number + 1}/{count}: {moment.delay:.2f} s after {moment.event} in {moment.stage}, '
      f'process {victim}: {outcome}',
      flush=True,
    )
    if not outcome.startswith(('killed', 'finished')):
      faults.append(f'{moment}: {outcome}')
  print(f'{done} of {count} launches were killed')
  if 2 * done < count:
    faults.append(f'{count - done} of {count} launches came to their end before their moment')
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
  faults += [] if struck else ['no launch was killed']
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
    root = launches.new_directory(arguments.root or kept)
    if arguments.renames:
      faults = renames(flags, root)
    else:
      faults = kills(flags, root, arguments.kills, arguments.seed, arguments.processes)
  print('\n'.join(faults))
  print(f'{len(faults)} faults')
  return 1 if faults else 0


if __name__ == '__main__':
  sys.exit(main())
