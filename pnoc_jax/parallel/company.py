"""What the processes of a run tell each other beside arrays: facts, a wish to stop, an end.

It goes through the store of the coordinator and not over devices, so it also arrives where another
process waits for devices that will never answer.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from jax._src import distributed  # The store has no public name.

from pnoc_jax import errors

_ROOT = 'pnoc_jax'
_END, _STOP, _ALIVE, _HEARD = (f'{_ROOT}/{name}' for name in ('end', 'stop', 'alive', 'heard'))
_GONE = 'ended'
_SHOWN = 20  # Differences that a message lists.
_SIGNALLED = 128  # Codes of a process that a signal ended begin here.


class Patience(NamedTuple):
  """Seconds that processes wait for each other.

  Attributes:
    poll: between two looks at what the others have told.
    error: for the main thread to end by itself, after another process has failed.
    stop: likewise, after another process was told to stop and has saved.
    quiet: without a sign of a process until it counts as gone.
    facts: for the facts of another process: it may still read its data.
  """

  poll: float = 0.5
  error: float = 3.0
  stop: float = 60.0
  quiet: float = 60.0
  facts: float = 7200.0


class Ended(Exception):
  """The run ends in all processes, with one message.

  Attributes:
    code: of the process's end.
  """

  def __init__(self, message: str, code: int):
    super().__init__(message)
    self.code = code


def joined() -> int:
  """How many processes were joined; asks no device, which could wait for one that has ended."""
  return distributed.global_state.num_processes


class Company:
  """The processes of a run, as one of them sees the others; alone it does nothing.

  An error that passes a `with` block of it is told to the others, which end within seconds, also
  those that wait in a computation. It leaves the block as an `Ended`.
  """

  def __init__(
    self,
    describe: Callable[[BaseException], tuple[str, int] | None],
    patience: Patience = Patience(),  # noqa: B008
  ):
    """Notes who is there.

    Args:
      describe: error -> what to tell of it and the code to end with; None for one that is not the
        user's.
      patience: how long to wait.
    """
    self._describe, self._patience = describe, patience
    # JAX's own count would wait here for the devices of a process that has died.
    self._me, self._count = distributed.global_state.process_id, joined()
    self._store: Any = distributed.global_state.client if self._count > 1 else None
    self._stop, self._told, self._ended = threading.Event(), False, threading.Event()
    self._left = threading.Event()
    self._shared = 0
    self._signals: socket.socket | None = None
    self._restore: Callable[[], None] = lambda: None

  def __enter__(self) -> 'Company':
    if self._store is not None:
      self._heed_signals()
      threading.Thread(target=self._watch, daemon=True).start()
    return self

  def _heed_signals(self) -> None:
    """Lets the watching thread hear of signals while the main thread waits for the others.

    Python calls its own handlers in the main thread alone, once this is back from a computation.
    """
    if threading.current_thread() is not threading.main_thread():
      return
    read, write = socket.socketpair()
    read.setblocking(False)
    write.setblocking(False)
    before = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    self._signals = read
    # What a forked process receives is not for this one.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def restore() -> None:
      signal.set_wakeup_fd(before)
      write.close()
      read.close()

    self._restore = restore

  def _signalled(self) -> bool:
    """Whether this process was just told to stop."""
    try:
      came = b'' if self._signals is None else self._signals.recv(64)
    except OSError:  # There is nothing to read, or no more.
      return False
    return any(number in (signal.SIGTERM, signal.SIGINT) for number in came)

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self._store is None:
      return
    self._restore()
    self._ended.set()
    if error is None:
      self._left.set()
      self._store.key_value_set(f'{_ALIVE}/{self._me}', _GONE, True)
      return
    known = self._describe(error)
    first = (str(error).strip().splitlines() or [''])[0][:300]
    text, code = known or (f'error: {type(error).__name__}: {first}', 1)
    text, code, by = self._announce(f'{text} ({self._name()})', code)
    if known is None and by == self._me:  # Else it follows from another one's end.
      traceback.print_exception(error)
    raise Ended(text, code) from error

  def _name(self) -> str:
    return f'process {self._me} of {self._count}, on {socket.gethostname()}'

  def should_stop(self, asked: Callable[[], bool]) -> Callable[[], bool]:
    """Makes the question whether this process, or another one, was asked to stop.

    Args:
      asked: whether this process was.
    """

    def stops() -> bool:
      if self._store is not None and asked() and not self._told:
        self._told = True
        self._store.key_value_set(_STOP, str(self._me), True)
      return asked() or self._stop.is_set()

    return stops

  def share(self, text: str) -> list[str]:
    """Tells a text to all processes; returns theirs, in order. All must call it, as often."""
    if self._store is None:
      return [text]
    self._shared += 1
    key = f'{_ROOT}/shared/{self._shared}'
    self._store.key_value_set(f'{key}/{self._me}', text)
    wait = int(1000 * self._patience.facts)
    return [self._store.blocking_key_value_get(f'{key}/{i}', wait) for i in range(self._count)]

  def compare(self, facts: Mapping[str, str]) -> None:
    """Refuses to go on where processes have other facts than this one.

    Args:
      facts: by what they are of, in words.

    Raises:
      UserError: in all processes, with what differs.
    """
    found = [json.loads(text) for text in self.share(json.dumps(dict(facts)))]
    names = dict.fromkeys(name for theirs in found for name in theirs)
    lines = []
    for name in names:
      values = [theirs.get(name, 'nothing') for theirs in found]
      other = next((i for i, x in enumerate(values) if x != values[0]), None)
      if other is not None:
        lines.append(f'  {name}: {values[0]} at process 0, {values[other]} at process {other}')
    if lines:
      more = [f'  ... and {len(lines) - _SHOWN} more'] if len(lines) > _SHOWN else []
      raise errors.UserError(
        'the processes of this run do not agree, so nothing was begun:\n'
        + '\n'.join(lines[:_SHOWN] + more)
        + '\nGive all of them the same command, code, data and --workdir'
      )

  def _announce(self, text: str, code: int) -> tuple[str, int, int]:
    """Tells the others that the run ends; returns what was told first, and by whom."""
    store, me = self._store, self._me
    try:
      store.key_value_set(_END, json.dumps({'text': text, 'code': code, 'by': me}))
      by = me
    except Exception:  # Another one was quicker, or the coordinator is gone.
      told = None
      with contextlib.suppress(Exception):
        told = self._get(_END)
        self._heard()
      if told is None:
        return text, code, me
      found = json.loads(told)
      text, code, by = found['text'], found['code'], found['by']
    if me == 0:
      # The store ends with this process: the others read it first.
      wait = self._patience.stop if code >= _SIGNALLED else 2 * self._patience.error
      limit = time.monotonic() + wait + self._patience.error
      others = set(range(1, self._count)) - {by}
      while others and time.monotonic() < limit:
        others -= {i for i in others if self._get(f'{_HEARD}/{i}') is not None}
        time.sleep(0.05)
    return text, code, by

  def _heard(self) -> None:
    self._store.key_value_set(f'{_HEARD}/{self._me}', '', True)

  def _get(self, key: str) -> str | None:
    try:
      return self._store.key_value_try_get(key)
    except Exception as error:
      if 'NOT_FOUND' in str(error):
        return None
      raise

  def _watch(self) -> None:
    """Looks at what the others tell; ends this process where its main thread cannot."""
    lost, beat, seen = 0, 0, {i: ('', time.monotonic()) for i in range(self._count)}
    while not self._left.wait(self._patience.poll):
      try:
        if self._signalled():
          self._store.key_value_set(_STOP, str(self._me), True)
        if self._get(_STOP) is not None:
          self._stop.set()
        told = self._get(_END)
        beat += 1
        self._store.key_value_set(f'{_ALIVE}/{self._me}', str(beat), True)
        if told is None and not self._ended.is_set():
          self._look_for_gone(seen)
        lost = 0
      except Exception:
        lost += 1
        if lost >= 3 and not self._ended.is_set():
          _leave('error: process 0 cannot be reached; the same command resumes', 1)
        continue
      if told is not None and not self._ended.is_set():
        found = json.loads(told)
        wait = self._patience.error if found['code'] < _SIGNALLED else self._patience.stop
        if not self._ended.wait(wait):
          self._heard()
          if self._me == 0:
            self._announce(found['text'], found['code'])
          _leave(found['text'], found['code'])

  def _look_for_gone(self, seen: dict[int, tuple[str, float]]) -> None:
    """Announces the end of the run where a process has shown no sign for long, or never one."""
    now = time.monotonic()
    signs = dict(self._store.key_value_dir_get(_ALIVE))
    for number, (before, since) in seen.items():
      value = signs.get(f'{_ALIVE}/{number}', '')
      if value != before:
        seen[number] = value, now
      elif value != _GONE and now - since > self._patience.quiet:
        text = f'error: process {number} has ended or hangs; the same command resumes'
        self._store.key_value_set(_END, json.dumps({'text': text, 'code': 1, 'by': number}))


def _leave(text: str, code: int) -> Any:
  """Ends this process at once: its main thread waits for what will never come."""
  print(text, file=sys.stderr, flush=True)
  for child in multiprocessing.active_children():
    child.kill()
  os._exit(code)
