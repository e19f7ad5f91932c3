"""Calls stages as the runner does: of the config they see what they declared, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from pnoc_jax import config as config_lib
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.runs import graph, runner
from pnoc_jax.stages.common import stage


def make(
  entry: stage.Stage,
  config: config_lib.PipelineConfig,
  inputs: Mapping[str, Path],
  out: Path,
  runtime: Runtime,
) -> Context:
  """The runner's context of a stage that works in `out`; `inputs` are all that is there."""
  item = graph.Planned(entry, out, graph.Status.RUN, {}, {})
  return runner.context(item, config, inputs, runtime)


def nowhere(entry: stage.Stage, config: config_lib.PipelineConfig, mesh: Mesh) -> Context:
  """The context of a stage of which no directory is there, to look at its programs."""
  path = Path('/nowhere')
  inputs = {other.name: path / other.name for other in stage.stages(config)}
  runtime = Runtime(path, mesh, mesh, config.runtime)
  return make(entry, config, inputs, path / entry.name, runtime)


def run(entry: stage.Stage, *where: Any) -> dict[str, Any]:
  """Runs a stage and returns its facts; the arguments are those of `make`."""
  return entry.run(make(entry, *where)) or {}


def check(entry: stage.Stage, *where: Any) -> None:
  """Checks the files that a stage will read; the arguments are those of `make`."""
  entry.check(make(entry, *where))
