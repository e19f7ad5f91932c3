"""Runs or resumes the training of any network: the one trainer of all stages."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tqdm
from jax.sharding import Mesh

from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import batches, clock, health, log, loop, programs, settings
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import checkpoints, weights
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.types import Batch, Metrics, Variables

# Measures variables; for people: it chooses nothing.
Measure = Callable[[Variables], dict[str, float] | None]


def check(config: settings.TrainingConfig, context: Context, *, paired: bool = False) -> None:
  """Raises UserError for batches that devices cannot share, a bad transform, or a missing split.

  Args:
    config: the training's settings.
    context: the stage's.
    paired: images have a target.
  """
  name = context.name
  if config.eval_every and config.eval_split:
    context.source(config.eval_split)  # Refuses a split that the data set lacks.
  if fault := batches.fault(name, config, context.runtime.mesh):
    raise UserError(fault)
  try:
    channels = len(context.train.info.mean)
    transforms.validate(config.transform, paired=paired, channels=channels)
  except UserError as error:
    raise UserError(f'{name}.transform: {error}') from error


def train(
  program: programs.Program,
  examples: pipeline.Examples,
  config: settings.TrainingConfig,
  context: Context,
  *,
  meta: Callable[[Variables], dict[str, Any]] | None = None,
  measure: Measure | None = None,
) -> Variables:
  """Runs or resumes a training and leaves `<out>/weights.safetensors`: always the last ones.

  Args:
    program: what trains.
    examples: what it sees.
    config: the training's settings.
    context: the stage's.
    meta: what the weights' file says of the final variables beside `arch`, `classes`, `stage`.
    measure: is called every `eval_every` epochs.

  Returns:
    The final variables, on the host.
  """
  runtime, out = context.runtime, context.out
  horizon = programs.horizon(config, examples)
  start, state = 0, program.init()
  store = checkpoints.Checkpoints(out / 'checkpoints', keep=runtime.config.keep)
  restored = store.restore_latest(state)
  if restored is not None:
    start, state = restored.step, restored.state
  writer = log.MetricWriter(
    out,
    total_steps=horizon.total,
    start_step=start,
    steps_per_epoch=horizon.epoch,
    tensorboard=runtime.config.tensorboard,
    console=lambda line: tqdm.tqdm.write(f'  {line}'),
  )
  bar = tqdm.tqdm(
    desc=context.name,
    total=horizon.total * config.batch_size,
    initial=start * config.batch_size,
    unit='img',
    disable=None if hosts.is_main() else True,
    dynamic_ncols=True,
  )

  losses = health.Losses(context.name, horizon.total, program.chance)

  def step(state: Any, batch: Batch, number: int) -> tuple[Any, Metrics]:
    state, metrics = program.step(state, batch, number)
    bar.update(config.batch_size)
    return state, metrics

  def write(number: int, metrics: loop.Metrics) -> None:
    if any(key.startswith('loss/') for key in metrics):
      rates = {f'schedule/{key}': float(rate(number - 1)) for key, rate in program.rates.items()}
      metrics = {**metrics, **rates}
    writer.write(number, metrics)
    said = losses.look(number, metrics) if hosts.is_main() else []
    for text in said:
      tqdm.tqdm.write(f'  warning: {text}')
    health.keep(out, said)

  def evaluate(number: int, state: Any) -> dict[str, float] | None:
    del number
    return measure(program.variables(state)) if measure and hosts.is_main() else None

  stream = pipeline.train_batches(
    examples,
    config.transform,
    batch_size=config.batch_size,
    seed=context.seed,
    start_step=start,
    share=share(runtime, config.batch_size),
  )
  with store, writer, bar, stream:
    state = loop.fit(
      step,
      state,
      _placed(stream, runtime.training_mesh(config.batch_size)),
      loop.Hooks(
        save=store.save,
        log=write,
        evaluate=evaluate if measure and config.eval_every else None,
        should_stop=runtime.should_stop,
        ids=lambda index: [examples.source.ids[i] for i in index],
      ),
      total_steps=horizon.total,
      start_step=start,
      every=loop.Every(
        log=runtime.config.log_every,
        save=runtime.config.save_every,
        evaluate=horizon.epoch * config.eval_every,
      ),
      clock=clock.Clock(total_steps=horizon.total, batch_size=config.batch_size),
    )
  final = arrays.to_host(program.variables(state))
  if meshes.spread_on(runtime.mesh, config.batch_size).copies > 1:
    # Nothing has kept the copies alike to the last bit.
    final = hosts.from_main(final)
  facts = meta(final) if meta else {}
  if hosts.is_main():
    common = {
      'arch': config.model.backbone,
      'classes': list(examples.source.info.classes),
      'stage': context.name,
    }
    weights.save(out, final, meta=common | facts)
  hosts.barrier(f'{context.name}/weights')
  return final


def share(runtime: Runtime, batch_size: int) -> pipeline.Share:
  """This process's share of every batch."""
  sharing = meshes.spread_on(runtime.mesh, batch_size).processes
  return pipeline.Share(hosts.process_index() % sharing, sharing, runtime.config.loaders)


def _placed(batches: Iterator[dict[str, np.ndarray]], mesh: Mesh) -> Iterator[Batch]:
  for batch in batches:
    yield arrays.to_global(batch, mesh)
