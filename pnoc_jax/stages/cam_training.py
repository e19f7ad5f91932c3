"""Trains classification networks whose maps are wanted: the one trainer of all CAM methods."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from pnoc_jax import keys, states, trees
from pnoc_jax.data import info, pipeline
from pnoc_jax.errors import UserError
from pnoc_jax.io import checkpoints, weights
from pnoc_jax.metrics import classification, thresholds
from pnoc_jax.nn import classifier as classifier_nn
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import normalize
from pnoc_jax.optim import ema, optimizer, schedules
from pnoc_jax.parallel import arrays, hosts, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import cams
from pnoc_jax.stages import networks, settings, stage
from pnoc_jax.training import clock, log, loop
from pnoc_jax.types import Array, PyTree, Variables

_BATCH = sharding.Layout.BATCH

# (state, batch, micro-step) -> (state, metrics), compiled.
Update = Callable[[states.PnocState, dict[str, Array], int], tuple[states.PnocState, dict]]


@dataclasses.dataclass(frozen=True)
class Horizon:
  """How long a training runs.

  Attributes:
    epoch: micro-steps to an epoch.
    total: micro-steps T of the whole run.
  """

  epoch: int
  total: int


def horizon(config: settings.CamTrainingConfig, source: info.Source) -> Horizon:
  """Micro-steps to an epoch of `source`, and in all."""
  epoch = pipeline.steps_per_epoch(source, config.batch_size)
  return Horizon(epoch, epoch * config.epochs)


def describe(config: settings.CamTrainingConfig, source: info.Source) -> str:
  """Says what a training is, for the plan: network, parameters, steps."""
  model = networks.build(config.model, source.info.num_classes)
  count = trees.count(networks.abstract_variables(model, source.info)['params'])
  length = horizon(config, source)
  init = f' from {config.init}' if config.init else ''
  return (
    f'{config.model.backbone}, {count:,} parameters{init}; {config.epochs} epochs of '
    f'{length.epoch} = {length.total} steps at batch {config.batch_size}'
  )


def check(
  config: settings.CamTrainingConfig, source: info.Source, runtime: stage.Runtime, *, name: str
) -> None:
  """Raises UserError if the weights to start from or the batch size do not fit."""
  if config.batch_size % runtime.mesh.size:
    raise UserError(
      f'{name}.batch_size is {config.batch_size}, which does not divide by the '
      f'{runtime.mesh.size} devices; take a multiple of {runtime.mesh.size}'
    )
  model = networks.build(config.model, source.info.num_classes)
  networks.check_init(model, source.info, init=config.init, arch=config.model.backbone)


def make_optimizer(
  config: settings.OptimConfig,
  params: PyTree,
  total: int,
  *,
  frozen: tuple[str, ...] = (),
  rate: Callable[[schedules.Schedule], schedules.Schedule] = lambda schedule: schedule,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
  """Makes the optimiser with the four groups of the field, and its learning rate.

  Args:
    config: its settings.
    params: the params it will move.
    total: micro-steps of the run; the rate decays over `total // accumulate` optimiser steps.
    frozen: names that do not train.
    rate: changes the schedule of the learning rate.

  Returns:
    The optimiser, and the learning rate as a function of the optimiser step.
  """
  steps = max(total // config.accumulate, 1)
  schedule = rate(schedules.polynomial(config.lr, steps, power=config.power, warmup=config.warmup))
  tx = optimizer.make_optimizer(
    params,
    rule=config.rule,
    schedule=schedule,
    groups=optimizer.classifier_groups(
      config.weight_decay, scratch_lr=config.scratch_lr, bias_lr=config.bias_lr, frozen=frozen
    ),
    momentum=config.momentum,
    nesterov=config.nesterov,
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


def make_measure(
  model: classifier_nn.Classifier,
  source: info.Source,
  config: settings.CamTrainingConfig,
  runtime: stage.Runtime,
) -> Callable[[Variables], dict[str, float]]:
  """Makes the in-training measurement of the maps against masks (Table 1's epoch columns).

  No test-time augmentation, on the grid of the maps, best of eight thresholds; with classification
  metrics beside it. It informs people and chooses nothing.

  Args:
    model: the network.
    source: the split to measure on, with masks.
    config: how much of it, and at what size.
    runtime: where to run.

  Returns:
    variables -> metrics named `eval/...`, in percent.
  """
  prepare = make_prepare(source.info)
  devices = runtime.local_mesh.size
  batch_size = -(-min(config.batch_size, len(source)) // devices) * devices

  def forward(variables, batch):
    cam = cams.raw_cams(model, variables, prepare(batch)['image'])
    return cam, cam_ops.logits(cam)

  forward = compiler.jit(forward, runtime.local_mesh, batch_args=(1,), outs=_BATCH)

  def measure(variables: Variables) -> dict[str, float]:
    local = arrays.replicate(arrays.to_host(variables), runtime.local_mesh)
    sums = thresholds.init_sums(source.info.num_classes + 1, thresholds.GRID_THRESHOLDS)
    found = None
    for number, batch in enumerate(
      pipeline.valid_batches(source, size=config.eval_size, batch_size=batch_size)
    ):
      if config.eval_batches and number >= config.eval_batches:
        break
      inputs = {name: batch[name] for name in ('image', 'box')}
      cam, logits = map(np.asarray, forward(local, arrays.to_global(inputs, runtime.local_mesh)))
      sums += thresholds.grid_sweep(
        cam, batch['label'], batch['mask'], box=batch['box'], weight=batch['weight']
      )
      real = batch['weight'] > 0
      part = classification.Predictions(logits[real], batch['label'][real])
      found = part if found is None else found + part
    names = (source.info.background, *source.info.classes)
    best = thresholds.best_score(sums, names)
    scores = classification.score(found)
    result = {f'eval/{name}': best[name] for name in ('miou', 'miou_fg', 'fp', 'fn', 'threshold')}
    for name in ('map', 'precision', 'recall', 'f1', 'roc_auc'):
      if scores[name] is not None:
        result[f'eval/{name}'] = scores[name]
    return result

  return measure


def train(
  update: Update,
  state: states.PnocState,
  config: settings.CamTrainingConfig,
  source: info.Source,
  out: Path,
  runtime: stage.Runtime,
  *,
  seed: int,
  name: str,
  model: classifier_nn.Classifier,
  rates: dict[str, Callable[[int], float]],
) -> None:
  """Runs or resumes a training and leaves `<out>/weights`.

  Args:
    update: `(state, batch, micro-step) -> (state, metrics)`, compiled.
    state: the state of step 0, on the mesh.
    config: the training's settings.
    source: the images.
    out: the stage's directory.
    runtime: devices, logging, saving.
    seed: the run's seed.
    name: the stage's name.
    model: the generator, to measure its maps.
    rates: learning rates to log, as functions of the micro-step.
  """
  length = horizon(config, source)
  store = checkpoints.Checkpoints(out / 'checkpoints', keep=runtime.config.keep)
  start = 0
  restored = store.restore_latest(state)
  if restored is not None:
    start, state = restored.step, restored.state
  batches = pipeline.train_batches(
    source,
    config.transform,
    batch_size=config.batch_size,
    seed=seed,
    start_step=start,
    process_index=hosts.process_index(),
    process_count=hosts.process_count(),
    workers=runtime.config.workers,
  )
  measure = None
  if config.eval_every and source.has_masks:
    measure = make_measure(model, source, config, runtime)
  writer = log.MetricWriter(
    out,
    total_steps=length.total,
    start_step=start,
    steps_per_epoch=length.epoch,
    tensorboard=runtime.config.tensorboard,
    console=lambda line: tqdm.tqdm.write(f'  {line}'),
  )
  bar = tqdm.tqdm(
    desc=name,
    total=length.total * config.batch_size,
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
      metrics = metrics | {f'schedule/{key}': float(rate(step - 1)) for key, rate in rates.items()}
    writer.write(step, metrics)

  def evaluate(step: int, state: states.PnocState) -> dict[str, float] | None:
    del step
    return measure(state.generator.eval_variables) if hosts.is_main() else None

  with store, writer, bar:
    state = loop.fit(
      counted,
      state,
      _placed(batches, runtime),
      total_steps=length.total,
      start_step=start,
      every=loop.Every(
        log=runtime.config.log_every,
        save=runtime.config.save_every,
        evaluate=length.epoch * config.eval_every,
      ),
      save=store.save,
      evaluate=evaluate if measure else None,
      log=write,
      should_stop=runtime.should_stop,
      ids=lambda index: [source.ids[i] for i in index],
      clock=clock.Clock(total_steps=length.total, batch_size=config.batch_size),
    )
  variables = arrays.to_host(state.generator.eval_variables)
  if hosts.is_main():
    weights.save(
      out / 'weights',
      variables,
      meta={'arch': config.model.backbone, 'classes': list(source.info.classes), 'stage': name},
    )
  hosts.barrier(f'{name}/weights')


def _placed(batches: Iterator[dict[str, np.ndarray]], runtime: stage.Runtime) -> Iterator[Any]:
  for batch in batches:
    yield arrays.to_global(batch, runtime.mesh)


def step_key(seed: int, name: str) -> Callable[[int], Array]:
  """Makes the function from a micro-step to its key."""
  root = keys.root_key(seed)
  return lambda step: keys.stream(root, name, step)
