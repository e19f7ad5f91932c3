"""How long a run takes on other devices, and whether it fits: from compiled programs, or by guess.

`benchmarks/aot.py` compiles the programs and keeps what it finds in the file that `path` names.
"""

import copy
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pnoc_jax import platforms
from pnoc_jax.config import PipelineConfig
from pnoc_jax.engine import cost, settings
from pnoc_jax.io import user_cache
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.parallel import targets
from pnoc_jax.stages.common import stage


@dataclasses.dataclass(frozen=True)
class Forecast:
  """What is expected of a stage.

  Attributes:
    seconds: that its programs need at best, on all devices together.
    bytes: that its largest program needs on a device; None where it was not compiled.
    compiled: whether all numbers are the compiler's.
  """

  seconds: float
  bytes: float | None
  compiled: bool


def path(config: PipelineConfig, target: targets.Target) -> Path | None:
  """Where the compiled programs of a config are described; None for a user without a home."""
  directory = user_cache.directory('aot')
  name = f'{config.name}_{target.name.replace(":", "_")}.json'
  return None if directory is None else directory / name


def read(file: Path | None) -> dict[str, dict[str, Any]]:
  """Rows of `benchmarks/aot.py` by `<stage>/<program>`; none where there is no such file."""
  if file is None or not file.is_file():
    return {}
  return json.loads(file.read_text(encoding='utf-8'))


def with_loops(config: PipelineConfig) -> PipelineConfig:
  """The config with `scan` in every network: as much work, and traced much sooner."""
  config = copy.deepcopy(config)
  for field in dataclasses.fields(config):
    model = getattr(getattr(config, field.name), 'model', None)
    if isinstance(model, settings.ModelConfig):
      model.scan = True
  return config


def key(entry: stage.Stage, call: compiler.Call) -> str:
  """The name of a program within a run."""
  return f'{entry.name}/{call.name}'


def fingerprint(entry: stage.Stage, config: PipelineConfig) -> Any:
  """What the programs of a stage depend on in the config: a row with another one is out of date."""
  return {
    field: json.loads(json.dumps(settings.as_dict(entry.lookup(config, field))))
    for field in entry.declared(config)
  }


def estimate(call: compiler.Call, target: targets.Target) -> cost.Cost:
  """What a call costs if one device of the target does all of it, from its trace."""
  with platforms.traced_for(target.platform, target.count):
    traced = call.compiled.trace(*call.arguments)
  return cost.estimate(traced.jaxpr, target.device)


def sharing(call: compiler.Call, target: targets.Target) -> int:
  """How many devices of the target work at a time: they share a call, or each has one."""
  if call.padded or call.together > 1:
    return target.count
  return meshes.spread(call.images, 1, target.count).parts


def forecast(
  entry: stage.Stage,
  config: PipelineConfig,
  calls: Iterable[compiler.Call],
  target: targets.Target,
  rows: dict[str, dict[str, Any]],
) -> Forecast:
  """Adds up a stage's programs.

  Args:
    entry: the stage.
    config: the run's.
    calls: of `entry.programs`, for any devices.
    target: the devices that are asked about.
    rows: of `read`.
  """
  made_of, seconds, most, compiled = fingerprint(entry, config), 0.0, 0.0, True
  for call in calls:
    row = rows.get(key(entry, call), {})
    if row.get('settings') == made_of and row.get('status') == 'ok':
      # The same number of images, in batches for the target's devices.
      runs = call.calls * call.images / row['images'] / row['together']
      seconds += runs * (row['seconds'] + row['link_seconds'])
      most = max(most, row['memory']['total'])
    else:
      compiled = False
      seconds += call.calls * estimate(call, target).seconds / sharing(call, target)
  return Forecast(seconds, most if compiled else None, compiled)
