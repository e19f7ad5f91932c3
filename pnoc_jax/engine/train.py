"""Runs or resumes the training of any network: the one trainer of all stages."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tqdm
from jax.sharding import Mesh

from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import clock, health, log, loop, programs, settings
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import checkpoints, records, weights
from pnoc_jax.nn import layers
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.types import Batch, Metrics, Variables

# (step, what the program says of its state) -> metrics; for people: it chooses nothing.
Measure = Callable[[int, Any], dict[str, float] | None]
_SLOWEST = 2
"""A device may have so many times the images that an even split would give it."""


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
  if fault := batch_fault(name, config, context.runtime.mesh):
    raise UserError(fault)
  try:
    channels = len(context.train.info.mean)
    transforms.validate(config.transform, paired=paired, channels=channels)
  except UserError as error:
    raise UserError(f'{name}.transform: {error}') from error


def on_devices(config: settings.TrainingConfig, mesh: Mesh) -> str:
  """Says which devices train, if these are not all; empty otherwise.

  Args:
    config: the training's settings.
    mesh: all devices of the run.
  """
  spread = meshes.spread_on(mesh, config.batch_size)
  if spread.parts == mesh.size:
    return ''
  rows = config.batch_size // spread.parts
  images = 'an image' if rows == 1 else f'{rows} images'
  text = f'on {spread.parts} of {mesh.size} devices, {images} each'
  if spread.copies > 1:
    text += f'; {spread.copies} groups of processes compute the same'
  return text


def batch_fault(name: str, config: settings.TrainingConfig, mesh: Mesh) -> str | None:
  """Says what to do about a batch that splits so badly that most of the machine would wait.

  Args:
    name: the field of the run's config that holds the settings.
    config: the training's settings.
    mesh: all devices of the run.
  """
  batch = config.batch_size
  if _fits(batch, mesh):
    return None
  parts = meshes.spread_on(mesh, batch).parts
  text = (
    f'{name}.batch_size is {batch}, which the {mesh.size} devices cannot share: its equal parts '
    f'would be {batch // parts} images on {parts} of them. Take {_neighbours(batch, mesh)}'
  )
  return text + _pair(name, config, mesh)


def _fits(batch: int, mesh: Mesh) -> bool:
  rows = batch // meshes.spread_on(mesh, batch).parts
  return rows <= _SLOWEST * math.ceil(batch / mesh.size)


def _neighbours(batch: int, mesh: Mesh) -> str:
  """The nearest sizes that can be split: a batch of one can, and a multiple of the devices can."""
  below = next(x for x in range(batch - 1, 0, -1) if _fits(x, mesh))
  above = next(x for x in range(batch + 1, batch + mesh.size + 1) if _fits(x, mesh))
  return f'{below} or {above}'


def _pair(name: str, config: settings.TrainingConfig, mesh: Mesh) -> str:
  """A smaller batch that is accumulated to as many images, where the gradients stay the same."""
  optim, normalises = config.optim, config.model.norm is layers.Norm.BATCH
  if optim.accumulate > 1 and not optim.grad_mean:
    return ''  # The gradients are added up: another number of them is another learning rate.
  images = config.batch_size * optim.accumulate
  # The statistics of a single image's normalisation are of no use.
  smaller = range(config.batch_size - 1, 1 if normalises else 0, -1)
  found = next((x for x in smaller if images % x == 0 and _fits(x, mesh)), None)
  if found is None:
    return ''
  text = f'; or {found} with {name}.optim.accumulate={images // found}'
  if not optim.grad_mean:
    text += f' and {name}.optim.grad_mean=true'
  text += f', which are as many images to an optimiser step, {images}'
  if normalises:
    text += f' (BatchNorm, and what else looks across a batch, then sees {found})'
  return text


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
  store = checkpoints.Checkpoints(
    out / 'checkpoints',
    keep=runtime.config.keep,
    agree=hosts.any_host,
    discard_unreadable=runtime.config.discard_unreadable,
  )
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
  before = records.read_jsonl(out / log.METRICS) if hosts.is_main() else ()
  losses = health.Losses(context.name, horizon.total, program.chance, before=before)

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

  def save(number: int, state: Any) -> None:
    writer.sync()
    store.save(number, state)

  def evaluate(number: int, state: Any) -> dict[str, float] | None:
    found = program.measured or program.variables
    return measure(number, found(state)) if measure and hosts.is_main() else None

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
        save=save,
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
        evaluate=horizon.measured,
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
