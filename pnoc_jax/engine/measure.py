"""The measurement of a network while it trains, on squares of one size; it chooses nothing."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from pnoc_jax.data import info
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.types import Batch, PyTree, Variables


class Meter(Protocol):
  """What is measured of a network."""

  def forward(self, variables: Variables, batch: Batch) -> PyTree:
    """The network's answer to `image` u8[B, S, S, C] and `box` i32[B, 4]: arrays [B, ...]. Pure."""
    ...

  def begin(self) -> Any:
    """Sums of nothing."""
    ...

  def add(self, sums: Any, found: PyTree, batches: Sequence[Mapping[str, np.ndarray]]) -> Any:
    """Adds one batch: what `forward` found, and the batch as of each target."""
    ...

  def score(self, sums: Any) -> dict[str, float]:
    """Metrics named `eval/...`, in percent."""
    ...


def measured_source(
  config: settings.TrainingConfig, context: Context, *, training: info.Source | None = None
) -> info.Source | None:
  """The split that a network is measured on while it trains; says so where it has no masks.

  Args:
    config: the training's settings, whose `eval_split` names the split.
    context: of the stage that trains.
    training: what is measured where no split is named; by default the training split.

  Returns:
    The split, or None where nothing is measured: then there is no curve.
  """
  if not config.eval_every:
    return None
  if config.eval_split:
    source = context.source(config.eval_split)
  else:
    source = context.train if training is None else training
  if source.has_masks:
    return source
  if hosts.is_main():
    print(f'  {source.split} has no masks: no curve of {context.name}', flush=True)
  return None


def make_forward(meter: Meter, runtime: Runtime) -> compiler.Compiled:
  """Makes the compiled `meter.forward`, on this process's devices."""
  return compiler.jit(meter.forward, runtime.local_mesh, ins=(REPLICATED, BATCH), outs=BATCH)


def rows(config: settings.TrainingConfig, source: info.Source, mesh: Mesh) -> int:
  """How many images go through a network at a time while it is measured."""
  return -(-min(config.batch_size, len(source)) // mesh.size) * mesh.size


def make_measure(
  meter: Meter,
  source: info.Source,
  config: settings.TrainingConfig,
  runtime: Runtime,
  *,
  batch_size: int | None = None,
  targets: Sequence[joins.Target | None] = (None,),
  forward: compiler.Compiled | None = None,
) -> Callable[[int, Variables], dict[str, float]]:
  """Makes the measurement: one scale, no mirror images, squares of `eval_size` px.

  Images are cut or squeezed to the square as `data.augment.transforms.valid` does it for their
  training.

  Differs from the reference: the last, smaller batch is measured, too; because it is dropped there,
  so that 1,440 of the 1,464 images of VOC's `train` count.

  Args:
    meter: what is measured.
    source: the split to measure on.
    config: how much of it, and at what size.
    runtime: where to run.
    batch_size: images at a time; by default as in the training.
    targets: what is compared with; None stands for the masks. Images are read once a target and
      go through the network once.
    forward: of `make_forward`, where something else calls it as well.

  Returns:
    (step, variables) -> metrics; those of a step depend on its variables alone.
  """
  if batch_size is not None:
    config = dataclasses.replace(config, batch_size=batch_size)
  mesh, forward = runtime.local_mesh, forward or make_forward(meter, runtime)
  count = rows(config, source, mesh)

  def measure(step: int, variables: Variables) -> dict[str, float]:
    del step
    local = arrays.replicate(arrays.to_host(variables), mesh)
    sums = meter.begin()
    with contextlib.ExitStack() as stack:
      streams = [
        stack.enter_context(
          pipeline.valid_batches(
            source,
            size=config.eval_size,
            squeeze=config.transform.squeezes,
            tones=config.transform.tones,
            batch_size=count,
            target=target,
          )
        )
        for target in targets
      ]
      for number, batches in enumerate(zip(*streams, strict=True)):
        if config.eval_batches and number >= config.eval_batches:
          break
        inputs = {name: batches[0][name] for name in ('image', 'box')}
        found = jax.tree.map(np.asarray, forward(local, arrays.to_global(inputs, mesh)))
        sums = meter.add(sums, found, batches)
    return meter.score(sums)

  return measure
