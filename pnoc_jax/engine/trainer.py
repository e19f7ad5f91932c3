"""Runs or resumes the training of any network: the one trainer of all stages."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import clock, log, loop, settings
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import checkpoints, weights
from pnoc_jax.ops import normalize
from pnoc_jax.optim import ema, optimizer, schedules
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.types import Array, PyTree, Variables

State = TypeVar('State')


@dataclasses.dataclass(frozen=True)
class Horizon:
  """How long a training runs.

  Attributes:
    epoch: micro-steps to an epoch.
    total: micro-steps T of the whole run.
  """

  epoch: int
  total: int


def horizon(config: settings.TrainingConfig, source: info.Source, **options) -> Horizon:
  """Micro-steps to an epoch of `source`, and in all; `options` of `pipeline.steps_per_epoch`."""
  epoch = pipeline.steps_per_epoch(source, config.batch_size, **options)
  return Horizon(epoch, epoch * config.epochs)


def check(
  config: settings.TrainingConfig,
  source: info.Source,
  runtime: Runtime,
  *,
  name: str,
  paired: bool = False,
) -> None:
  """Raises UserError if the batch does not divide by the devices, or the transform cannot work.

  Args:
    config: the training's settings.
    source: the images.
    runtime: the devices.
    name: the stage's name.
    paired: images have a target.
  """
  if config.batch_size % runtime.mesh.size:
    raise UserError(
      f'{name}.batch_size is {config.batch_size}, which does not divide by the '
      f'{runtime.mesh.size} devices; take a multiple of {runtime.mesh.size}'
    )
  try:
    transforms.validate(config.transform, paired=paired, channels=len(source.info.mean))
  except UserError as error:
    raise UserError(f'{name}.transform: {error}') from error


def make_optimizer(
  config: settings.OptimConfig,
  params: PyTree,
  total: int,
  *,
  frozen: tuple[str, ...] = (),
  scratch: tuple[str, ...] = ('classifier',),
  groups: Sequence[optimizer.Group] | None = None,
  rate: Callable[[schedules.Schedule], schedules.Schedule] = lambda schedule: schedule,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
  """Makes the optimiser with the four groups of the field, and its learning rate.

  Args:
    config: its settings.
    params: the params it will move.
    total: micro-steps of the run; the rate decays over `total // accumulate` optimiser steps.
    frozen: names that do not train.
    scratch: the parts without pretrained weights, which learn at `scratch_lr` times the rate.
    groups: the params' groups where they are not the field's four; then `frozen` and `scratch` say
      nothing.
    rate: changes the schedule of the learning rate.

  Returns:
    The optimiser, and the learning rate as a function of the optimiser step.
  """
  steps = max(total // config.accumulate, 1)
  schedule = rate(schedules.polynomial(config.lr, steps, power=config.power, warmup=config.warmup))
  if groups is None:
    groups = optimizer.classifier_groups(
      config.weight_decay,
      scratch=scratch,
      scratch_lr=config.scratch_lr,
      bias_lr=config.bias_lr,
      frozen=frozen,
    )
  tx = optimizer.make_optimizer(
    params,
    schedule=schedule,
    groups=groups,
    descent=optimizer.Descent(config.rule, config.momentum, config.nesterov),
    clip_norm=config.clip_norm,
    accumulate=config.accumulate,
    grad_mean=config.grad_mean,
  )
  return tx, schedule


def make_update_ema(config: settings.OptimConfig) -> Callable | None:
  """Makes the moving average's update, which moves when the optimiser does."""
  if config.ema is None:
    return None

  def update(average: PyTree, params: PyTree, step: Array) -> PyTree:
    moved = ema.update(average, params, config.ema, step // config.accumulate)
    due = (step + 1) % config.accumulate == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, average)

  return update


def make_prepare(dataset: info.DatasetInfo) -> Callable[[dict[str, Array]], dict[str, Array]]:
  """Makes the first operation on the device: u8 images and boxes to normalised images."""

  def prepare(batch: dict[str, Array]) -> dict[str, Array]:
    image = normalize.normalize(batch['image'], batch['box'], mean=dataset.mean, std=dataset.std)
    return {**batch, 'image': image}

  return prepare


def make_batches(
  config: settings.TrainingConfig,
  source: info.Source,
  runtime: Runtime,
  *,
  seed: int,
  **more,
) -> Callable[[int], pipeline.Batches]:
  """Makes the function from a micro-step to this process's batches from there on.

  Args:
    config: the training's settings.
    source: the images.
    runtime: says how many workers load them.
    seed: the run's seed.
    **more: what else `pipeline.train_batches` takes.
  """

  def batches(start_step: int) -> pipeline.Batches:
    return pipeline.train_batches(
      source,
      config.transform,
      batch_size=config.batch_size,
      seed=seed,
      start_step=start_step,
      process_index=hosts.process_index(),
      process_count=hosts.process_count(),
      workers=runtime.config.workers,
      **more,
    )

  return batches


def run(
  update: Callable[[State, dict[str, Array], int], tuple[State, dict]],
  state: State,
  batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
  *,
  horizon: Horizon,
  config: settings.TrainingConfig,
  source: info.Source,
  out: Path,
  runtime: Runtime,
  name: str,
  variables: Callable[[State], Variables],
  meta: Callable[[Variables], dict[str, Any]] | dict[str, Any] | None = None,
  rates: dict[str, Callable[[int], float]] | None = None,
  evaluate: Callable[[Variables], dict[str, float] | None] | None = None,
) -> Variables:
  """Runs or resumes a training and leaves `<out>/weights.safetensors`: always the last ones.

  Args:
    update: `(state, batch, micro-step) -> (state, metrics)`, compiled.
    state: the state of step 0, on the mesh.
    batches: makes this process's batches from a micro-step on.
    horizon: how long it runs.
    config: the training's settings.
    source: the images, whose ids are named if a loss is not finite.
    out: the stage's directory.
    runtime: devices, logging, saving.
    name: the stage's name.
    variables: what of the state is measured and kept.
    meta: what else the weights' file says; beside `arch`, `classes` and `stage`. A function of the
      final variables where it depends on them.
    rates: learning rates to log, as functions of the micro-step.
    evaluate: measures variables every `eval_every` epochs, for people; chooses nothing.

  Returns:
    The final variables, on the host.
  """
  store = checkpoints.Checkpoints(out / 'checkpoints', keep=runtime.config.keep)
  start = 0
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
    desc=name,
    total=horizon.total * config.batch_size,
    initial=start * config.batch_size,
    unit='img',
    disable=None if hosts.is_main() else True,
    dynamic_ncols=True,
  )

  def counted(state, batch, step):
    state, metrics = update(state, batch, step)
    bar.update(config.batch_size)
    return state, metrics

  def write(step: int, metrics: dict[str, float]) -> None:
    if any(key.startswith('loss/') for key in metrics):
      found = {f'schedule/{key}': float(rate(step - 1)) for key, rate in (rates or {}).items()}
      metrics = metrics | found
    writer.write(step, metrics)

  def measure(step: int, state: State) -> dict[str, float] | None:
    del step
    return evaluate(variables(state)) if hosts.is_main() else None

  with store, writer, bar:
    state = loop.fit(
      counted,
      state,
      _placed(batches(start), runtime),
      total_steps=horizon.total,
      start_step=start,
      every=loop.Every(
        log=runtime.config.log_every,
        save=runtime.config.save_every,
        evaluate=horizon.epoch * config.eval_every,
      ),
      save=store.save,
      evaluate=measure if evaluate and config.eval_every else None,
      log=write,
      should_stop=runtime.should_stop,
      ids=lambda index: [source.ids[i] for i in index],
      clock=clock.Clock(total_steps=horizon.total, batch_size=config.batch_size),
    )
  final = arrays.to_host(variables(state))
  said = meta(final) if callable(meta) else meta or {}
  if hosts.is_main():
    common = {
      'arch': config.model.backbone,
      'classes': list(source.info.classes),
      'stage': name,
    }
    weights.save(out, final, meta=common | said)
  hosts.barrier(f'{name}/weights')
  return final


def _placed(batches: Iterator[dict[str, np.ndarray]], runtime: Runtime) -> Iterator[Any]:
  for batch in batches:
    yield arrays.to_global(batch, runtime.mesh)
