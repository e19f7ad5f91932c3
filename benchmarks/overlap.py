"""Does the device work while an inference reads images and writes results? A profile tells.

    python benchmarks/overlap.py --config=configs/pnoc_folder.py --config.dataset.root=ROOT \\
      --config.inputs.generator=RUN/generator --config.only=priors --workdir=DIR

What the config says is run under JAX's profiler, and then the profile is read: the time from the
first program's beginning to the last one's end, the share of it in which a device computed, and the
longest of the times between. Where the host compiled, or took a program from the cache, it says so:
with many images of few sizes that is the first minute alone. On a CPU the device shares its cores
with the readers and writers, so a share near 1 says that programs never wait for them, not that
they are as fast as alone.
"""

import itertools
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax import config_flags
from pnoc_jax.errors import UserError
from pnoc_jax.runs import runner

# What a program is in a profile. A CPU's client has threads that execute; a GPU has streams of
# kernels, and a TPU a line of modules.
_CPU_THREAD, _CPU_PROGRAM = 'tf_XLAPjRtCpuClient', 'ThunkExecutor::Execute'
_DEVICE, _TPU_PROGRAMS, _STREAM = '/device:', 'XLA Modules', 'Stream'
_LONGEST = 5  # So many of the times between are told.
_COMPILES = ('backend_compile', 'PjRtCompile', 'CompileAndLoad', 'Deserialize')


class Interval(NamedTuple):
  """A part of the profile's time, in nanoseconds."""

  start: float
  end: float


class Overlap(NamedTuple):
  """How a profile's time went.

  Attributes:
    seconds: from the first program's beginning to the last one's end.
    busy: of that, in which a program ran.
    compiling: of that, in which none ran and the host compiled or loaded one.
    gaps: the rest, each in seconds, the longest first.
  """

  seconds: float
  busy: float
  compiling: float
  gaps: tuple[float, ...]


def union(intervals: Iterable[Interval]) -> list[Interval]:
  """The same time as intervals apart from each other, in order."""
  joined: list[Interval] = []
  for each in sorted(intervals):
    if joined and each.start <= joined[-1].end:
      joined[-1] = Interval(joined[-1].start, max(joined[-1].end, each.end))
    else:
      joined.append(each)
  return joined


def without(intervals: Sequence[Interval], taken: Sequence[Interval]) -> list[Interval]:
  """What of some intervals lies in no other ones; both apart from each other and in order."""
  left = []
  for start, end in intervals:
    for other in taken:
      if other.end > start and other.start < end:
        if other.start > start:
          left.append(Interval(start, other.start))
        start = min(other.end, end)
    if start < end:
      left.append(Interval(start, end))
  return left


def judge(programs: Iterable[Interval], compiling: Iterable[Interval]) -> Overlap:
  """Tells how the time between the first program and the last went.

  Raises:
    UserError: no program ran.
  """
  ran = union(programs)
  if not ran:
    raise UserError('the profile holds no program: was everything there already?')
  between = [Interval(a.end, b.start) for a, b in itertools.pairwise(ran)]
  idle = without(between, union(compiling))
  total, busy = _seconds([Interval(ran[0].start, ran[-1].end)]), _seconds(ran)
  gaps = tuple(sorted(((b - a) / 1e9 for a, b in idle), reverse=True))
  return Overlap(total, busy, total - busy - sum(gaps), gaps)


def _seconds(intervals: Iterable[Interval]) -> float:
  return sum(end - start for start, end in intervals) / 1e9


def read(directory: Path) -> Overlap:
  """Reads the profile that lies below a directory."""
  (path,) = directory.glob('**/*.xplane.pb')
  programs, compiling = [], []
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      on_device = plane.name.startswith(_DEVICE) and line.name.startswith((_TPU_PROGRAMS, _STREAM))
      for event in line.events:
        span = Interval(event.start_ns, event.start_ns + event.duration_ns)
        on_cpu = line.name.startswith(_CPU_THREAD) and event.name.startswith(_CPU_PROGRAM)
        if on_device or on_cpu:
          programs.append(span)
        elif any(word in event.name for word in _COMPILES):
          compiling.append(span)
  return judge(programs, compiling)


def main(argv: list[str]) -> None:
  """Runs the config under the profiler and prints how the time went."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # Calls of Python would be millions of events.
  with tempfile.TemporaryDirectory() as place:
    try:
      with jax.profiler.trace(place, profiler_options=options):
        runner.execute(config.value, Path(workdir.value))
      found = read(Path(place))
    except UserError as error:
      sys.exit(f'error: {error}')
  idle = sum(found.gaps)
  print(f'{found.seconds:.1f} s from the first program to the last')
  print(f'{found.busy:.1f} s of them a program ran: {100 * found.busy / found.seconds:.1f} %')
  print(f'{found.compiling:.1f} s none ran and one was compiled or loaded')
  print(f'{idle:.1f} s none ran, {len(found.gaps)} times')
  print(f'the longest, ms: {", ".join(f"{1e3 * gap:.0f}" for gap in found.gaps[:_LONGEST])}')


if __name__ == '__main__':
  # Flags of a name can be defined once in a process, and tests import several programs.
  config = config_flags.define_config('config')
  workdir = flags.DEFINE_string('workdir', None, "The run's directory.", required=True)
  flags.declare_key_flag('config')
  app.run(main)
