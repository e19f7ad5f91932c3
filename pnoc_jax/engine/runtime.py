"""What all work of one run shares: devices, settings of running, the opened data."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh

from pnoc_jax.data import info, sources


@dataclasses.dataclass
class Runtime:
  """What stages share in one run of the launcher.

  Attributes:
    workdir: the run's directory.
    mesh: all devices of all processes, for training.
    local_mesh: this process's devices, for inference.
    config: the run's `runtime` settings.
    quarantined: ids to leave out, a set a split.
    should_stop: whether a signal asked the run to end.
  """

  workdir: Path
  mesh: Mesh
  local_mesh: Mesh
  config: 'RuntimeConfig'
  quarantined: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
  should_stop: Callable[[], bool] = lambda: False

  def source(self, config: info.DatasetConfig, split: str) -> info.Source:
    """Opens a split without its quarantined images."""
    exclude = self.quarantined.get(split, frozenset())
    return sources.open_source(config, split, exclude=exclude)


@dataclasses.dataclass(slots=True)
class RuntimeConfig:
  """How a run runs; no product depends on any of it.

  Attributes:
    workers: processes that load data; 0 loads in a thread.
    log_every: micro-steps between two lines of `metrics.jsonl`.
    save_every: micro-steps between two checkpoints.
    keep: checkpoints kept.
    tensorboard: write TensorBoard files beside `metrics.jsonl`.
    check_dataset: decode every image once before work starts.
    compilation_cache: directory of compiled programs; empty for the user's cache directory.
    coordinator: `host:port` of process 0 in a run of several processes; empty where SLURM or a
      TPU slice tells, or for a single process.
    num_processes: how many processes there are, where a coordinator is given.
    process_id: which of them this is, from 0.
  """

  workers: int = 0
  log_every: int = 20
  save_every: int = 500
  keep: int = 2
  tensorboard: bool = True
  check_dataset: bool = True
  compilation_cache: str = ''
  coordinator: str = ''
  num_processes: int = 1
  process_id: int = 0
