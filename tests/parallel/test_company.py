"""Processes that fail, stop or disagree: told to all at once, with one message."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from pnoc_jax import errors
from pnoc_jax.parallel import company
from tests.parallel import two_processes

QUICK = company.Patience(poll=0.01, error=0.05, stop=0.05, quiet=0.2, facts=5.0)


class _Store:
  """The coordinator's store, in memory."""

  def __init__(self):
    self.values, self.lock = {}, threading.Condition()

  def key_value_set(self, key, value, allow_overwrite=False):
    with self.lock:
      if key in self.values and not allow_overwrite:
        raise RuntimeError('ALREADY_EXISTS')
      self.values[key] = value
      self.lock.notify_all()

  def key_value_try_get(self, key):
    if key not in self.values:
      raise RuntimeError('NOT_FOUND')
    return self.values[key]

  def blocking_key_value_get(self, key, milliseconds):
    with self.lock:
      assert self.lock.wait_for(lambda: key in self.values, milliseconds / 1000)
      return self.values[key]

  def key_value_dir_get(self, root):
    return [(key, x) for key, x in self.values.items() if key.startswith(root)]


@pytest.fixture
def make(monkeypatch):
  """Makes one of two processes; those that would end at once say so in `left`."""
  store, left = _Store(), []
  monkeypatch.setattr(company.distributed.global_state, 'client', store)
  monkeypatch.setattr(company.distributed.global_state, 'num_processes', 2)
  monkeypatch.setattr(company, '_leave', lambda *end: left.append(end))

  def make(process):
    monkeypatch.setattr(company.distributed.global_state, 'process_id', process)
    return company.Company(
      lambda error: (f'error: {error}', 1) if isinstance(error, errors.UserError) else None, QUICK
    )

  make.left = left
  return make


def _wait(condition, seconds=5.0):
  limit = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < limit
    time.sleep(0.01)


def test_one_process_has_no_company():
  with pytest.raises(KeyError), company.Company(lambda error: None) as alone:
    alone.compare({'config': 'x'})
    assert alone.share('x') == ['x'] and not alone.should_stop(lambda: False)()
    raise KeyError


def test_other_facts_are_an_error_in_all_processes(make):
  crews, told = [make(0), make(1)], []

  def compare(crew, facts):
    try:
      crew.compare(facts)
      told.append('')
    except errors.UserError as error:
      told.append(str(error))

  for ids in (('32 images', '32 images'), ('32 images', '31 images')):
    threads = [
      threading.Thread(target=compare, args=(crew, {'seed': '0', 'ids of train': x}))
      for crew, x in zip(crews, ids, strict=True)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert told[:2] == ['', ''] and told[2] == told[3]
  assert 'ids of train: 32 images at process 0, 31 images at process 1' in told[2]
  assert 'seed' not in told[2]


def test_an_error_ends_the_others_with_the_same_message(make):
  with make(0):  # It waits in a computation.
    with pytest.raises(company.Ended) as end, make(1):
      raise errors.UserError('no disk')
    _wait(lambda: make.left)
  assert make.left[0] == (str(end.value), 1)
  assert str(end.value).startswith('error: no disk (process 1 of 2, on ')


def test_who_fails_later_tells_what_was_told_first(make):
  with pytest.raises(company.Ended) as first, make(1):
    raise errors.UserError('no disk')
  with pytest.raises(company.Ended) as second, make(0):
    raise RuntimeError('connection closed by peer')
  assert str(first.value) == str(second.value)


def test_a_wish_to_stop_reaches_the_others(make):
  with make(0) as one, make(1) as other:
    stops = one.should_stop(lambda: False)
    assert not stops()
    assert other.should_stop(lambda: True)()
    _wait(stops)


def test_a_signal_is_told_while_the_main_thread_waits(make):
  before = signal.set_wakeup_fd(-1)
  handler = signal.signal(signal.SIGTERM, lambda *_: None)  # Which is called when it is back.
  try:
    with make(0) as one:
      signal.raise_signal(signal.SIGTERM)
      _wait(lambda: 'pnoc_jax/stop' in one._store.values)
      _wait(one.should_stop(lambda: False))
    assert signal.set_wakeup_fd(-1) == -1
  finally:
    signal.signal(signal.SIGTERM, handler)
    signal.set_wakeup_fd(before)


@pytest.mark.filterwarnings('ignore::RuntimeWarning')  # JAX warns of any fork.
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_a_signal_to_a_forked_process_is_not_for_this_one(make):
  handler = signal.signal(signal.SIGTERM, lambda *_: None)
  try:
    with make(0) as one:
      child = os.fork()
      if not child:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
      os.waitpid(child, 0)
      time.sleep(10 * QUICK.poll)
      assert 'pnoc_jax/stop' not in one._store.values
  finally:
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize('signs', [1, 0])
def test_a_process_without_a_sign_is_gone(make, signs):
  with make(0) as one:
    if signs:  # Else it died before its first one.
      one._store.key_value_set('pnoc_jax/alive/1', '7')
    _wait(lambda: make.left)
  assert make.left[0][0].startswith('error: process 1 has ended or hangs')
  make.left.clear()


_WORK = """
import os, sys
from pnoc_jax import errors
from pnoc_jax.parallel import company, hosts
process, port = int(sys.argv[1]), sys.argv[2]
hosts.initialize(coordinator=f'localhost:{port}', num_processes=2, process_id=process)
try:
  with company.Company(lambda error: (f'error: {error}', 1)) as crew:
    crew.compare({'config': 'the same'})
    hosts.barrier('begin')
    if process == 1:
      raise errors.UserError('no disk')
    hosts.barrier('never')
except company.Ended as end:
  print(end, file=sys.stderr, flush=True)
  os._exit(end.code)
"""


_DEAD = """
import os, signal, sys, jax
from pnoc_jax.parallel import company, hosts
process, port = int(sys.argv[1]), sys.argv[2]
hosts.initialize(coordinator=f'localhost:{port}', num_processes=2, process_id=process)
if process == 1:
  os.kill(os.getpid(), signal.SIGKILL)
with company.Company(lambda error: None, company.Patience(quiet=2.0)):
  jax.process_count()  # Waits for the devices of both.
"""


def _end_of_both(work):
  """What two processes tell, their codes, and the seconds from the end of the second one."""
  port, root = two_processes._free_port(), pathlib.Path(__file__).parents[2]
  env = two_processes._environment(1)
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', work, str(i), str(port)],
      cwd=root, env=env, stderr=subprocess.PIPE, text=True,
    )
    for i in range(2)
  ]  # fmt: skip
  try:
    processes[1].wait(120)
    begun = time.monotonic()
    told = [process.communicate(timeout=60)[1] for process in processes]
  finally:
    for process in processes:
      process.kill()
  return told, [process.returncode for process in processes], time.monotonic() - begun


def test_a_process_that_dies_before_its_devices_are_known_ends_the_other():
  told, codes, seconds = _end_of_both(_DEAD)
  assert codes == [1, -9] and seconds < 30
  assert told[0].strip().endswith('error: process 1 has ended or hangs; the same command resumes')


def test_two_real_processes_end_within_seconds():
  told, codes, seconds = _end_of_both(_WORK)
  assert seconds < 20 and codes == [1, 1]
  last = [text.strip().splitlines()[-1] for text in told]
  assert last[0] == last[1] and last[0].startswith('error: no disk (process 1 of 2, on ')
  assert 'Traceback' not in told[0]
