"""What all work of one run shares: devices, settings of running, opened data; one stage's place."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jax.sharding import Mesh

from pnoc_jax.data import info, sources
from pnoc_jax.parallel import mesh as mesh_lib

if TYPE_CHECKING:
  from pnoc_jax.config import PipelineConfig


_MANY_CORES, _MOST_LOADERS = 8, 16
_SHARED, _SHARED_BYTES = Path('/dev/shm'), 2**30


@dataclasses.dataclass(slots=True)
class RuntimeConfig:
  """How a run runs; no product depends on any of it, but for rounding.

  Attributes:
    workers: processes that load data; 0 loads in threads of this process. None takes half of the
      cores that this process may use, at most 16, and threads where there are fewer than 8 cores or
      less than 1 GiB of shared memory, by which processes hand batches over.
    log_every: micro-steps between two lines of `metrics.jsonl`.
    save_every: micro-steps between two checkpoints.
    keep: checkpoints kept.
    discard_unreadable: go on without checkpoints that cannot be read, from the one before or from
      the beginning, though nothing proves that they are damaged.
    tensorboard: write TensorBoard files beside `metrics.jsonl`.
    check_dataset: decode every image once before work starts.
    compilation_cache: directory of compiled programs; empty for the user's cache directory.
    quick_compiling: compile programs for CPUs in half of the time, for runs of a few steps; a step
      takes longer, and results differ by rounding.
    coordinator: `host:port` of process 0 in a run of several processes; empty where SLURM or a
      TPU slice tells, or for a single process.
    num_processes: how many processes there are, where a coordinator is given.
    process_id: which of them this is, from 0.
  """

  workers: int | None = 0
  log_every: int = 20
  save_every: int = 500
  keep: int = 2
  discard_unreadable: bool = False
  tensorboard: bool = True
  check_dataset: bool = True
  compilation_cache: str = ''
  quick_compiling: bool = False
  coordinator: str = ''
  num_processes: int = 1
  process_id: int = 0

  @property
  def loaders(self) -> int:
    """The number of processes that load data."""
    if self.workers is not None:
      return self.workers
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    narrow = _SHARED.is_dir() and shutil.disk_usage(_SHARED).total < _SHARED_BYTES
    return 0 if cores < _MANY_CORES or narrow else min(cores // 2, _MOST_LOADERS)


@dataclasses.dataclass
class Runtime:
  """What stages share in one run of the launcher.

  Attributes:
    workdir: the run's directory.
    mesh: all devices of all processes; `training_mesh` tells which of them train.
    local_mesh: this process's devices, for inference.
    config: the run's `runtime` settings.
    quarantined: ids to leave out, a set a split.
    should_stop: whether a signal asked the run to end.
  """

  workdir: Path
  mesh: Mesh
  local_mesh: Mesh
  config: RuntimeConfig
  quarantined: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
  should_stop: Callable[[], bool] = lambda: False
  _opened: dict[tuple, info.Source] = dataclasses.field(default_factory=dict, repr=False)

  def training_mesh(self, batch_size: int) -> Mesh:
    """The devices that train on batches of this size: all of them where the batch divides."""
    return mesh_lib.for_batch(self.mesh, batch_size)

  def source(
    self, config: info.DatasetConfig, split: str, *, without: frozenset[str] = frozenset()
  ) -> info.Source:
    """Opens a split without its quarantined images and those of `without`; each but once."""
    exclude = self.quarantined.get(split, frozenset()) | without
    key = repr(config), split, exclude
    if key not in self._opened:
      self._opened[key] = sources.open_source(config, split, exclude=exclude)
    return self._opened[key]


@dataclasses.dataclass(frozen=True)
class Context:
  """Where one stage works, and on what.

  Attributes:
    name: the stage's name.
    config: the run's config, of which the stage may read what it declared.
    inputs: directories of the stages that it needs; before work starts, of those that are there.
    out: its own directory.
    runtime: devices, logging, saving.
  """

  name: str
  config: 'PipelineConfig'
  inputs: Mapping[str, Path]
  out: Path
  runtime: Runtime

  @property
  def seed(self) -> int:
    """The run's seed."""
    return self.config.seed

  @property
  def train(self) -> info.Source:
    """The training split."""
    return self.source(self.config.dataset.train_split)

  def source(self, split: str) -> info.Source:
    """A split of the run's data set."""
    return self.runtime.source(self.config.dataset, split)
