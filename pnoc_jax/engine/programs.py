"""What a training is, as plain functions of its state, and how a network's program is made."""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from pnoc_jax import keys, states
from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import health, networks, settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.ops import normalize
from pnoc_jax.optim import ema, optimizer, schedules
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.types import Array, Batch, Metrics, PyTree, Variables
from pnoc_jax.updates import update as updates

State = TypeVar('State')
Prepare = Callable[[Batch], Batch]


class Program(NamedTuple, Generic[State]):
  """A training: `engine.train.train` runs it.

  Attributes:
    init: `() -> state` of step 0, on the mesh.
    step: `(state, batch, number) -> (state, metrics)`; compiled, and the state given is gone
      afterwards. `number` counts micro-steps from 0, for what the host decides.
    variables: of a state, what is measured and kept.
    rates: by name, numbers to log as functions of the micro-step: `schedule/<name>`.
    calls: what `step` calls, to be looked at without running it.
    chance: what its losses are compared with while it runs; None for nothing.
    measured: of a state, what a measurement is given; None for the variables.
  """

  init: Callable[[], State]
  step: Callable[[State, Batch, int], tuple[State, Metrics]]
  variables: Callable[[State], Variables]
  rates: Mapping[str, Callable[[int], Any]]
  calls: Callable[[], list[compiler.Call]]
  chance: health.Chance | None = types.MappingProxyType({})
  measured: Callable[[State], PyTree] | None = None


class Horizon(NamedTuple):
  """How long a training runs.

  Attributes:
    epoch: micro-steps to an epoch.
    total: micro-steps T of the whole run.
    measured: micro-steps between two measurements; 0 for none.
  """

  epoch: int
  total: int
  measured: int


def horizon(config: settings.TrainingConfig, examples: pipeline.Examples) -> Horizon:
  """Micro-steps to an epoch of the examples, in all, and between measurements."""
  epoch = examples.steps_per_epoch(config.batch_size)
  epochs = config.epochs_of(epoch)
  return Horizon(epoch, epoch * epochs, epoch * config.eval_every * (epochs // config.epochs))


def make_program(
  loss: updates.Loss,
  variables: Variables,
  config: settings.TrainingConfig,
  examples: pipeline.Examples,
  context: Context,
  *,
  groups: Sequence[optimizer.Group],
  prepare: Prepare | None = None,
) -> Program[states.TrainState]:
  """Makes the program of a network that trains alone.

  Args:
    loss: of the network, its options bound.
    variables: those of step 0, host arrays; or their shapes, for a program that is only looked at.
    config: the training's settings.
    examples: what it sees; says how long it runs.
    context: the stage's; names the stream of its draws, `<name>/dropout`.
    groups: the optimiser's, as of `field_groups`.
    prepare: the first operation on the device, by default that of `make_prepare`.
  """
  total = horizon(config, examples).total
  tx, rate = make_optimizer(config.optim, variables['params'], total, groups=groups)
  update = updates.make_update(loss, tx, update_ema=make_update_ema(config.optim))
  prepare = prepare or make_prepare(networks.colours(config.model, examples.source.info))
  root = keys.root_key(context.seed)
  mesh = context.runtime.training_mesh(config.batch_size)

  def step(state: states.TrainState, batch: Batch) -> tuple[states.TrainState, Metrics]:
    key = keys.stream(root, f'{context.name}/dropout', state.step)
    return update(state, prepare(batch), key)

  def init(variables: Variables) -> states.TrainState:
    return states.init_state(variables, tx, ema=config.optim.ema is not None)

  compiled = compiler.jit(step, mesh, ins=(REPLICATED, BATCH), donate=(0,))
  return Program(
    init=lambda: compiler.jit(init, mesh)(arrays.replicate(variables, mesh)),
    step=lambda state, batch, number: compiled(state, batch),
    variables=lambda state: state.eval_variables,
    rates={'lr': lambda step: rate(step // config.optim.accumulate)},
    calls=lambda: [
      compiler.Call(
        'update',
        compiled,
        (jax.eval_shape(init, variables), batch_shapes(config, examples)),
        images=config.batch_size,
        calls=total,
      )
    ],
  )


def batch_shapes(
  config: settings.TrainingConfig, examples: pipeline.Examples
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a training's global batch, as of `pipeline.train_batches`."""
  dataset, count, side = examples.source.info, config.batch_size, config.transform.crop
  found = {
    'image': ((count, side, side, len(dataset.mean)), jnp.uint8),
    'box': ((count, 4), jnp.int32),
    'label': ((count, dataset.num_classes), jnp.float32),
    'index': ((count,), jnp.int32),
  }
  if examples.target is not None:
    found['target'] = ((count, side, side), jnp.uint8)
  return {name: jax.ShapeDtypeStruct(*what) for name, what in found.items()}


def make_optimizer(
  config: settings.OptimConfig,
  params: PyTree,
  total: int,
  *,
  groups: Sequence[optimizer.Group],
  change: Callable[[schedules.Schedule], schedules.Schedule] = lambda schedule: schedule,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
  """Makes an optimiser and its learning rate.

  Args:
    config: its settings.
    params: the params that it will move.
    total: micro-steps of the run; the rate decays over `total // accumulate` optimiser steps.
    groups: which params learn and decay at which factor.
    change: makes the schedule used of the config's.

  Returns:
    The optimiser, and the learning rate as a function of the optimiser step.
  """
  steps = max(total // config.accumulate, 1)
  plain = schedules.polynomial(config.lr, steps, power=config.power, warmup=config.warmup)
  schedule = change(plain)
  tx = optimizer.make_optimizer(
    params,
    descent=optimizer.Descent(config.rule, config.momentum, config.nesterov),
    schedule=schedule,
    groups=groups,
    clip_norm=config.clip_norm,
    accumulate=config.accumulate,
    grad_mean=config.grad_mean,
  )
  return tx, schedule


def field_groups(
  config: settings.TrainingConfig,
  scratch: tuple[str, ...] = ('classifier',),
  *,
  frozen: tuple[str, ...] | None = None,
) -> list[optimizer.Group]:
  """The four groups of the field: pretrained and new layers, each with weights and biases.

  Args:
    config: the training's settings.
    scratch: the parts without pretrained weights, which learn at `scratch_lr` times the rate.
    frozen: names that do not train; by default those that `config.model` freezes.
  """
  if frozen is None:
    frozen = networks.frozen_patterns(config.model)
  groups = optimizer.classifier_groups(
    config.optim.weight_decay,
    scratch=scratch,
    scratch_lr=config.optim.scratch_lr,
    bias_lr=config.optim.bias_lr,
    frozen=frozen,
  )
  # A ViT has no BatchNorm, and of other networks all of it may lie in frozen stages.
  return [
    dataclasses.replace(group, optional=group.optional or group.pattern == networks.NORM_PARAMS)
    for group in groups
  ]


def make_update_ema(config: settings.OptimConfig) -> updates.UpdateEma | None:
  """Makes the moving average's update, which moves when the optimiser does."""
  decay = config.ema
  if decay is None:
    return None

  def update(average: PyTree, params: PyTree, step: Array) -> PyTree:
    moved = ema.update(average, params, decay, step // config.accumulate)
    due = (step + 1) % config.accumulate == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, average)

  return update


def make_prepare(dataset: info.DatasetInfo) -> Prepare:
  """Makes the first operation on the device: u8 images and boxes to normalised images."""

  def prepare(batch: Batch) -> Batch:
    image = normalize.normalize(batch['image'], batch['box'], mean=dataset.mean, std=dataset.std)
    return {**batch, 'image': image}

  return prepare
