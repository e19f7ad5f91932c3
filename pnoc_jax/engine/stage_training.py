"""Trains a network that follows the generator: C2AM, PoolNet, AffinityNet, DeepLabV3+."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import linen as nn

from pnoc_jax import states
from pnoc_jax.data import info
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import networks, settings, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.optim import optimizer
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.types import Array, Variables


def check(
  model: nn.Module,
  *,
  scratch: tuple[str, ...],
  config: settings.StageTrainingConfig,
  source: info.Source,
  inputs: Mapping[str, Path],
  runtime: Runtime,
  name: str,
  paired: bool = True,
) -> None:
  """Raises UserError if batch size, transform or the weights to start from do not fit.

  Args:
    model: the network.
    scratch: the parts that start from a draw.
    config: the training's settings.
    source: the images.
    inputs: directories of the stages that it needs; weights yet to be made are not read.
    runtime: the devices.
    name: the stage's name.
    paired: images have a target.
  """
  trainer.check(config, source, runtime, name=name, paired=paired)
  networks.check_start(model, source.info, config=config, inputs=inputs, scratch=scratch)


def train(
  model: nn.Module,
  make_update: Callable[..., Callable[[states.TrainState, dict], tuple[states.TrainState, dict]]],
  *,
  scratch: tuple[str, ...],
  config: settings.StageTrainingConfig,
  source: info.Source,
  inputs: Mapping[str, Path],
  out: Path,
  runtime: Runtime,
  seed: int,
  name: str,
  prepare: Callable[[dict[str, Array]], dict[str, Array]] | None = None,
  groups: Sequence[optimizer.Group] | None = None,
  target: joins.Maps | None = None,
  images: pipeline.Images = pipeline.Images.LABELLED,
  meta: Callable[[Variables], dict[str, Any]] | dict[str, Any] | None = None,
  evaluate: Callable[[Variables], dict[str, float] | None] | None = None,
) -> Variables:
  """Trains a network that follows the generator, or resumes it; leaves `<out>/weights.safetensors`.

  Args:
    model: the network: `backbone` and the parts `scratch`.
    make_update: `(optimiser, update_ema=)` -> pure `(state, batch) -> (state, metrics)`.
    scratch: the parts that start from a draw.
    config: the training's settings.
    source: the images.
    inputs: directories of the stages that it needs.
    out: the stage's directory.
    runtime: devices, logging, saving.
    seed: the run's seed.
    name: the stage's name.
    prepare: the first operation on the device; by default that of `trainer.make_prepare`.
    groups: as of `trainer.make_optimizer`.
    target: what lies beside each image.
    images: which images are shown.
    meta: as of `trainer.run`.
    evaluate: as of `trainer.run`.

  Returns:
    The final variables, on the host.
  """
  variables = networks.start_variables(
    model,
    source.info,
    runtime,
    seed=seed,
    name=name,
    config=config,
    inputs=inputs,
    scratch=scratch,
  )
  length = trainer.horizon(config, source, images=images)
  frozen = networks.frozen_patterns(config.model)
  tx, rate = trainer.make_optimizer(
    config.optim, variables['params'], length.total, frozen=frozen, scratch=scratch, groups=groups
  )
  prepare = prepare or trainer.make_prepare(source.info)
  update = make_update(tx, update_ema=trainer.make_update_ema(config.optim))
  step = compiler.jit(
    lambda state, batch: update(state, prepare(batch)), runtime.mesh, batch_args=(1,), donate=(0,)
  )
  init = compiler.jit(
    lambda v: states.init_state(v, tx, ema=config.optim.ema is not None), runtime.mesh
  )
  return trainer.run(
    lambda state, batch, _: step(state, batch),
    init(arrays.replicate(variables, runtime.mesh)),
    trainer.make_batches(config, source, runtime, seed=seed, target=target, images=images),
    horizon=length,
    config=config,
    source=source,
    out=out,
    runtime=runtime,
    name=name,
    variables=lambda state: state.eval_variables,
    meta=meta,
    rates={'lr': lambda step: rate(step // config.optim.accumulate)},
    evaluate=evaluate,
  )
