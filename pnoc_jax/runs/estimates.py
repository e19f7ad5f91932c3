"""Whether what a run will do fits the memory: asked before any work, and by the doctor."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax

from pnoc_jax.config import PipelineConfig
from pnoc_jax.data import info
from pnoc_jax.engine import infer, memory
from pnoc_jax.engine.runtime import Context
from pnoc_jax.runs import graph

FULL = 0.9
"""Share of a device's memory, or of the disk, that an estimate may fill without a remark."""
_AT_MOST = 100_000
"""Bytes to a pixel that no training here needs: those that fit with it are not looked at."""


class Room(NamedTuple):
  """What a training must fit in.

  Attributes:
    bytes: of a device.
    compiled: stage -> bytes that its programs need on one, where they were compiled.
  """

  bytes: float
  compiled: Mapping[str, float]


class Estimate(NamedTuple):
  """What a stage will hold.

  Attributes:
    stage: its name.
    text: the estimate in words, with what to do where it does not fit.
    fits: whether it fits as it is configured.
    training: of a stage that trains, its parts.
  """

  stage: str
  text: str
  fits: bool
  training: memory.Memory | None = None


def works(
  config: PipelineConfig,
  plan: Iterable[graph.Planned],
  sources: Mapping[str, info.Source],
  context_of: Callable[[graph.Planned], Context],
) -> Iterator[Estimate]:
  """Estimates inference, CRF and walk of the stages that run.

  Args:
    config: the run's.
    plan: its stages.
    sources: the splits that could be opened.
    context_of: makes the context of a stage.
  """
  devices = len(jax.local_devices())
  for item in plan:
    made = [sources[split] for split in item.stage.splits(config) if split in sources]
    if not item.runs or item.stage.work is None or not made:
      continue
    for work in item.stage.work(context_of(item), infer.images_of(*made)):
      fitting = work.fitting(devices)
      yield Estimate(item.stage.name, work.describe(fitting), fitting >= work.at_once)


def trainings(
  config: PipelineConfig,
  plan: Iterable[graph.Planned],
  dataset: info.DatasetInfo,
  load: memory.Load,
  *,
  room: Room | None = None,
  every: bool = True,
) -> Iterator[Estimate]:
  """Estimates the trainings that run.

  Args:
    config: the run's.
    plan: its stages.
    dataset: of the training split.
    load: devices and the largest training image.
    room: what they must fit in; by default a device that is here.
    every: also those of which it is plain that they fit; networks take seconds.
  """
  room = room or Room(memory.device_bytes(), {})
  for item in plan:
    name, estimate = item.stage.name, item.stage.memory
    if not item.runs or estimate is None:
      continue
    ours = getattr(config, name)
    pixels = (ours.transform.crop or load.largest) ** 2 * ours.batch_size / load.devices
    if not every and pixels * _AT_MOST <= FULL * room.bytes:
      continue
    need = estimate(config, dataset, load)
    text = (
      f'about {readable(need.total)} on a device at batch {ours.batch_size}: '
      f'variables {readable(need.variables)}, optimiser {readable(need.optimizer)}, '
      f'gradients {readable(need.gradients)}, activations at most {readable(need.activations)}'
    )
    most = need.total
    if name in room.compiled:
      most = room.compiled[name]
      text = f'{readable(most)} on a device by the compiler, at batch {ours.batch_size}'
    fits = most <= FULL * room.bytes
    if not fits:
      text += (
        f'; there are {readable(room.bytes)}. Lower {name}.batch_size and raise '
        f'{name}.optim.accumulate, or set {name}.model.remat, or model.precision=bfloat16'
      )
    yield Estimate(name, text, fits, need)


def readable(count: float) -> str:
  """Bytes for people: 1.5 GiB."""
  for unit in ('bytes', 'KiB', 'MiB', 'GiB'):
    if count < 1024:
      return f'{count:.3g} {unit}' if count < 100 else f'{count:.0f} {unit}'
    count /= 1024
  return f'{count:.3g} TiB'
