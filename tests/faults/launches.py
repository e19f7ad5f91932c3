"""Launches of a run that meet a fault on their way, and what a run leaves for good.

A launcher is forked from a process that has imported everything, so one more launch is cheap. What
it does is told through a pipe: `stage NAME` as a stage begins to run, `step NAME N` as a line of a
training's log is written, `file PATH` as a file gets its name.
"""

import dataclasses
import os
import pathlib
import re
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
_LOCK = '.lock'
_CLOCKS = {
  *('seconds', 'images', 'images_per_second', 'seconds_for_disk'),
  *('programs', 'programs_late'),
}
"""Facts of a stage's record that a run which was stopped tells of its last call alone."""

_PORT = re.compile(rb'localhost:\d+')
"""Where the processes of one launch meet; the run's config names it."""

Hear = Callable[[str], None]


@dataclasses.dataclass
class Launch:
  """A run's launcher at work.

  Attributes:
    pids: of its processes.
    begun: when it was forked, s.
    ears: the ends of the pipes that its processes tell what they do through.
    codes: how each process has ended, once it has.
  """

  pids: list[int]
  begun: float
  ears: list[int]
  codes: dict[int, int] = dataclasses.field(default_factory=dict)
  _told: list[str] = dataclasses.field(default_factory=list)
  _rest: dict[int, bytes] = dataclasses.field(default_factory=dict)

  def event(self, seconds: float | None = None) -> str | None:
    """What happens next in process 0; None once all have ended, or after so many seconds."""
    limit = None if seconds is None else time.monotonic() + seconds
    while self.ears and not self._told:
      wait = None if limit is None else max(limit - time.monotonic(), 0.0)
      ready = select.select(self.ears, [], [], wait)[0]
      if not ready:
        return None
      for ear in ready:
        self._read(ear)
    return self._told.pop(0) if self._told else None

  def _read(self, ear: int) -> None:
    data = os.read(ear, 1 << 16)
    if not data:
      self.ears.remove(ear)
      os.close(ear)
    *lines, self._rest[ear] = (self._rest.get(ear, b'') + data).split(b'\n')
    for line in lines:
      process, _, said = line.decode().partition(' ')
      if process == '0':
        self._told.append(said)

  def events(self) -> Iterator[str]:
    """Yields what happens in process 0, until all processes have ended."""
    while (found := self.event()) is not None:
      yield found

  @property
  def age(self) -> float:
    """Seconds since the fork."""
    return time.monotonic() - self.begun

  def end(self, seconds: float) -> dict[int, int]:
    """Waits for all processes and returns their codes; who takes longer is killed, and has 999."""
    limit = time.monotonic() + seconds
    while len(self.codes) < len(self.pids):
      for pid in self.pids:
        if pid not in self.codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
          self.codes[pid] = os.waitstatus_to_exitcode(found[1])
        elif pid not in self.codes and time.monotonic() > limit:
          os.kill(pid, signal.SIGKILL)
          os.waitpid(pid, 0)
          self.codes[pid] = 999
      time.sleep(0.02)
    for ear in self.ears:
      os.close(ear)
    self.ears.clear()
    return self.codes


def start(
  flags: list[str],
  log: pathlib.Path,
  *,
  processes: int = 1,
  fault: Callable[[Hear], Hear] = lambda hear: hear,
) -> Launch:
  """Starts `launch/run.py`.

  Args:
    flags: its flags.
    log: what it prints is appended there; process 1 has a file of its own.
    processes: how many, joined on this machine.
    fault: is called in each new process, with what hears of events; what it returns hears them in
      its place, and of `before PATH`, too: a file is about to get its name.
  """
  joined = []
  if processes > 1:
    with socket.socket() as free:
      free.bind(('localhost', 0))
      port = free.getsockname()[1]
    joined = [
      f'--config.runtime.coordinator=localhost:{port}',
      f'--config.runtime.num_processes={processes}',
    ]
  sys.stdout.flush()
  launch = Launch([], time.monotonic(), [])
  for process in range(processes):
    ear, mouth = os.pipe()
    pid = os.fork()
    if not pid:
      own = [*joined, f'--config.runtime.process_id={process}'] if joined else []
      text = os.open(
        log if not process else log.with_suffix(f'.{process}{log.suffix}'),
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
      )
      os.dup2(text, 1)
      os.dup2(text, 2)
      _launch([*flags, *own], lambda event, p=process, m=mouth: _tell(m, p, event), fault)
    os.close(mouth)
    launch.pids.append(pid)
    launch.ears.append(ear)
  return launch


def _tell(mouth: int, process: int, event: str) -> None:
  os.write(mouth, f'{process} {event}\n'.encode())


def _launch(flags: list[str], tell: Hear, fault: Callable[[Hear], Hear]) -> None:
  """What a new process does; it does not return."""
  code = 1
  try:
    _listen(fault(tell))
    sys.argv[:] = [str(ROOT / 'launch' / 'run.py'), *flags]
    try:
      runpy.run_path(sys.argv[0], run_name='__main__')
      code = 0
    except SystemExit as end:
      code = end.code if isinstance(end.code, int) else int(end.code is not None)
  except BaseException:
    import traceback

    traceback.print_exc()
  finally:
    _part()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _part() -> None:
  """Waits for the other processes, as JAX does at an interpreter's end.

  A fork leaves without one, since that would remove its parent's temporary directories. Where
  process 0 does not wait, the others lose their coordinator in the middle of their last words.
  """
  import traceback

  import jax

  try:
    jax.distributed.shutdown()
  except Exception:  # Nor does it change the code of an interpreter.
    traceback.print_exc()


def _listen(hear: Hear) -> None:
  """Lets `hear` hear of what this process does."""
  from pnoc_jax.io import records
  from pnoc_jax.runs import runner

  run_stage, write, main = runner._run_stage, records.JsonLines.write, os.getpid()

  def staged(config: Any, item: Any, *rest: Any) -> None:
    hear(f'stage {item.stage.name}')
    run_stage(config, item, *rest)

  def written(self: Any, value: Any) -> None:
    write(self, value)
    hear(f'step {self._path.parent.name} {value.get("step")}')

  def renamed(rename: Callable[..., None]) -> Callable[..., None]:
    def call(source: Any, target: Any, **options: Any) -> None:
      ours = os.getpid() == main  # Workers that load data rename nothing.
      if ours:
        hear(f'before {target}')
      rename(source, target, **options)
      if ours:
        hear(f'file {target}')

    return call

  runner._run_stage, records.JsonLines.write = staged, written
  os.rename, os.replace = renamed(os.rename), renamed(os.replace)


def new_directory(path: str | os.PathLike[str]) -> pathlib.Path:
  """Makes a directory to work in; what an earlier call left there would pass for this one's runs.

  Raises:
    ValueError: if there is something in it.
  """
  found = pathlib.Path(path).absolute()
  found.mkdir(parents=True, exist_ok=True)
  if any(found.iterdir()):
    raise ValueError(f'{found} is not empty: what is there would be taken for runs of this call')
  return found


def kind(event: str, workdir: pathlib.Path) -> str:
  """A file's kind: its path in the run's directory, without numbers and what is drawn."""
  name = event.partition(' ')[2].removeprefix(f'{workdir}/')
  return re.sub(r'[0-9a-f]{16,}|\d+', 'N', name)


def lasting(workdir: pathlib.Path) -> dict[str, Any]:
  """{path: content} of all that a run leaves for good, without what clocks have written."""
  from pnoc_jax.io import records

  result = {}
  for file in sorted(workdir.rglob('*')):
    if not file.is_file() or file.name == _LOCK:
      continue
    path = str(file.relative_to(workdir))
    stage, _, rest = path.partition('/')
    if (stage == 'report' and rest) or rest.startswith(('checkpoints', 'tensorboard/')):
      continue
    content: Any = file.read_bytes()
    if path == 'config.json':
      content = _PORT.sub(b'', content)
    elif rest == records.DONE:
      done = records.read_done(workdir / stage)
      assert done is not None
      facts = {name: x for name, x in done.products.items() if name not in _CLOCKS}
      content = done.fingerprint, facts
    elif rest == 'metrics.jsonl':
      lines = records.read_jsonl(file)
      content = [{k: x for k, x in line.items() if 'time/' not in k} for line in lines]
    result[path] = content
  return result


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
  """The paths that are not the same in both.

  Args:
    found: what `lasting` gave of a run.
    expected: likewise, of the undisturbed one.

  Raises:
    ValueError: if the undisturbed run has not a finished stage: nothing would be compared.
  """
  from pnoc_jax.io import records

  if not any(path.endswith(f'/{records.DONE}') for path in expected):
    raise ValueError(f'the undisturbed run has no finished stage among {len(expected)} files')
  return [path for path in sorted(found.keys() | expected) if found.get(path) != expected.get(path)]
