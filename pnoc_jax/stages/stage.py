"""What a stage is: a function from files to files, with a record of what it was made from."""

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the pipeline.

  Attributes:
    name: its directory's and its config field's name.
    needs: config -> names of the stages whose products it reads.
    settings: config -> the part of the config that its product depends on.
    run: `(config, inputs, out, runtime) -> facts`; reads the directories `inputs[name]`, writes
      below `out`, and continues what an interrupted call left there. The facts, a dict or None,
      are kept in the record that it is done.
    describe: (config, training split) -> a few words on its size for the plan.
    check: `(config, inputs, training split, runtime) -> None`; raises UserError for what is wrong
      with files that the stage will read, before any work; `inputs` holds what is there already.
  """

  name: str
  needs: Callable[[Any], tuple[str, ...]]
  settings: Callable[[Any], dict[str, Any]]
  run: Callable[[Any, dict[str, Path], Path, Runtime], dict[str, Any] | None]
  describe: Callable[[Any, info.Source], str]
  check: Callable[[Any, dict[str, Path], info.Source, Runtime], None] = lambda *_: None


def as_dict(config: Any, *, product_only: bool = False) -> Any:
  """Turns a config into what JSON can hold.

  Args:
    config: a dataclass, enum, sequence, mapping or scalar.
    product_only: leave out the fields marked as not changing the product.

  Returns:
    Nested dicts and lists; enums by value.
  """
  if dataclasses.is_dataclass(config):
    return {
      f.name: as_dict(getattr(config, f.name), product_only=product_only)
      for f in dataclasses.fields(config)
      if not product_only or f.metadata.get('product', True)
    }
  if isinstance(config, enum.Enum):
    return config.value
  if isinstance(config, dict):
    return {str(k): as_dict(v, product_only=product_only) for k, v in config.items()}
  if isinstance(config, (tuple, list)):
    return [as_dict(x, product_only=product_only) for x in config]
  if isinstance(config, np.generic):
    return config.item()
  return config
