"""Processes: joining them, telling them apart, and making them agree."""

import enum
import os
import socket
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pnoc_jax import errors

_SLURM = 'SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID'
"""What JAX reads of the variables that SLURM sets for a task."""

_JOINING = 300.0
"""Seconds that a process waits for process 0, as long as JAX does: hosts start at various times."""


class Distributed(enum.Enum):
  """Whether to join other processes.

  Attributes:
    AUTO: if a coordinator is given, in a SLURM step of several tasks, and on a TPU slice of several
      hosts.
    ON: always; the cluster tells the rest.
    OFF: never.
  """

  AUTO = 'auto'
  ON = 'on'
  OFF = 'off'


def initialize(
  distributed: Distributed = Distributed.AUTO,
  *,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> bool:
  """Joins the processes of one run. Call it before anything touches a device.

  Args:
    distributed: whether to join.
    coordinator: `host:port` of process 0. It and the two numbers below are for processes that no
      cluster manages.
    num_processes: how many processes the run has.
    process_id: which of them this is, from 0.

  Returns:
    Whether processes were joined.

  Raises:
    UserError: only a part of coordinator, num_processes and process_id is given, or the processes
      do not find each other.
  """
  if distributed is Distributed.OFF:
    return False
  given = (coordinator, num_processes, process_id)
  explicit = any(x is not None for x in given)
  if explicit and any(x is None for x in given):
    raise errors.UserError(
      f'to join processes by hand give all of coordinator (host:port), num_processes and '
      f'process_id; got {coordinator!r}, {num_processes!r}, {process_id!r}.'
    )
  if not explicit and distributed is Distributed.AUTO and not _in_cluster():
    return False
  # CPU processes cannot exchange arrays without it; other backends ignore it.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    if explicit:
      if process_id:
        _await(str(coordinator))
      jax.distributed.initialize(coordinator, num_processes, process_id)
    else:
      jax.distributed.initialize()
  except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
    raise errors.UserError(_explain(error, explicit=explicit)) from error
  return True


def _await(coordinator: str) -> None:
  """Waits until something answers at an address; JAX aborts with a trace where nothing does.

  Raises:
    OSError: nothing did, for as long as JAX would wait.
  """
  host, _, port = coordinator.rpartition(':')
  proxied = any('_proxy' in name.lower() for name in os.environ)  # JAX may reach it another way.
  if proxied or not host or not port.isdecimal():
    return
  limit = time.monotonic() + _JOINING
  while True:
    try:
      socket.create_connection((host.strip('[]'), int(port)), timeout=5.0).close()
      return
    except (OSError, OverflowError) as error:
      if time.monotonic() > limit:
        raise OSError(
          f'nothing has answered at {coordinator} for {_JOINING:.0f} s: {error}'
        ) from error
    time.sleep(0.2)


def _explain(error: Exception, *, explicit: bool) -> str:
  said = ' '.join(str(error).split()) or 'no reason is given'
  text = f'the processes cannot be joined ({type(error).__name__}: {said})'
  if explicit:
    return f'{text}; is coordinator HOST:PORT of process 0, and can all processes reach it?'
  missing = [name for name in _SLURM if name not in os.environ]
  if len(missing) == len(_SLURM):
    where = 'no SLURM job is seen here'
  elif missing:
    where = f'of what SLURM tells a task, {", ".join(missing)} is missing: start it with srun'
  else:
    where = 'SLURM tells all that is needed'
  return (
    f'{text}; {where}. Without a cluster give each process config.runtime.coordinator, '
    'num_processes and process_id; a single process needs --distributed=off.'
  )


def _in_cluster() -> bool:
  # SLURM_STEP_*, not SLURM_NTASKS: the latter is also set in a shell that `salloc` opened.
  tasks = os.environ.get('SLURM_STEP_NUM_TASKS', '1')
  slurm = tasks.isdecimal() and int(tasks) > 1
  tpu = ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')
  return slurm or tpu


def process_index() -> int:
  """Returns which process this is, from 0."""
  return jax.process_index()


def process_count() -> int:
  """Returns how many processes the run has."""
  return jax.process_count()


def is_main() -> bool:
  """Tells whether this process is the one that writes logs and shared files."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has come here; `name` must be the same in all of them."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def any_host(flag: bool) -> bool:
  """Returns whether the flag is set in any process; all must call it at the same point.

  With several processes it waits for the devices, so call it every few steps, not at each.
  """
  if jax.process_count() == 1:
    return bool(flag)
  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag, np.uint8))))


def from_main(tree: Any) -> Any:
  """Returns process 0's values of host arrays in every process; all must call it together."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)
