"""The processes of a run: what they compare before work, and how all of them end."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info
from pnoc_jax.engine import loop, settings
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, records
from pnoc_jax.parallel import company, hosts
from pnoc_jax.runs import disk, lock

# What may differ between the processes of a run; ids and labels are compared in place of paths.
_OWN = (
  *(f'runtime.{name}' for name in ('coordinator', 'process_id', 'compilation_cache', 'workers')),
  *(f'dataset.{name}' for name in ('root', 'lists', 'labels', 'masks')),
)

# What the libraries that join devices say where another process is gone: Gloo, and NCCL.
_PARTED = (
  *('Connection closed by peer', 'Connection reset by peer', 'Gloo context initialization failed'),
  'remote process exited',
)


class Crew(NamedTuple):
  """The processes of a run.

  Attributes:
    others: what they tell each other.
    should_stop: whether one of them was asked to stop.
  """

  others: company.Company
  should_stop: Callable[[], bool]


def end(error: BaseException, workdir: Path) -> tuple[str, int] | None:
  """What all processes say of an error, and the code that they end with."""
  if isinstance(error, loop.Interrupted):
    return f'stopped: {error}', 128 + error.signal
  if isinstance(error, UserError):
    return f'error: {error}', 2
  said = disk.failed(error, workdir)
  first = ' '.join(str(error).split())[:200]
  if said is None and company.joined() > 1 and any(words in first for words in _PARTED):
    said = f'another process of this run has ended ({first}); the same command resumes'
  return None if said is None else (f'error: {said}', 1)


def flat(config: PipelineConfig) -> dict[str, str]:
  """{field: its value}, of all fields that processes must have in common."""
  found = {}

  def visit(name: str, value: Any) -> None:
    if isinstance(value, dict) and value:
      for key, below in value.items():
        visit(f'{name}.{key}' if name else key, below)
    elif name not in _OWN:
      found[name] = json.dumps(value)

  visit('', records.plain(settings.as_dict(config)))
  return found


def versions() -> dict[str, str]:
  """The versions of the code, which must be the same for all processes."""
  root, sha = Path(__file__).parents[1], hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    sha.update(path.read_bytes())
  return {'the code of pnoc_jax': sha.hexdigest()[:12], 'the version of JAX': jax.__version__}


@contextlib.contextmanager
def held(workdir: Path, crew: Crew) -> Iterator[None]:
  """Keeps other runs out; one process does so for all, and the others see that it is there."""
  with lock.hold(workdir) if hosts.is_main() else contextlib.nullcontext():
    if hosts.is_main():
      atomic.sweep(workdir, below=False)
    there = crew.others.share(lock.mark(workdir) if hosts.is_main() else '')[0]
    if not hosts.is_main() and lock.mark(workdir) != there:
      raise UserError(
        f'--workdir is {workdir}, and it is not the directory that process 0 works in: all '
        'processes must see the same one'
      )
    yield


def facts(source: info.Source) -> str:
  """What processes must have in common of a split."""
  sha = hashlib.sha256('\n'.join(source.ids).encode(errors='surrogateescape'))
  sha.update(np.ascontiguousarray(source.labels).tobytes())
  return f'{len(source)} images, digest {sha.hexdigest()[:12]}'
