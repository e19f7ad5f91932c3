"""The program of networks whose maps are wanted, by any CAM method: generator, judge, noc."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import keys, states
from pnoc_jax.data.streams import pipeline, sampling
from pnoc_jax.engine import health, networks, programs, settings
from pnoc_jax.engine.programs import Program
from pnoc_jax.engine.runtime import Context
from pnoc_jax.losses import multilabel
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.nn import classifier, layers
from pnoc_jax.ops import label_split
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.types import Batch, Metrics, Variables
from pnoc_jax.updates import pnoc

if TYPE_CHECKING:
  from pnoc_jax.stages.generator import GeneratorConfig


class Judge(NamedTuple):
  """The trained classifier that judges erased images.

  Attributes:
    model: its network, BatchNorm frozen.
    variables: its weights, on the host; or their shapes.
    config: its settings.
  """

  model: classifier.Classifier
  variables: Variables
  config: settings.ModelConfig


class Measured(NamedTuple):
  """What a measurement is given.

  Attributes:
    generator: its variables, those of the moving average where one is kept.
    judge: the variables of who judges erased images at this step; None without one.
  """

  generator: Variables
  judge: Variables | None = None


def judge_model(config: settings.ModelConfig, num_classes: int) -> classifier.Classifier:
  """Makes the network that judges erased images: BatchNorm frozen, open to gradients throughout.

  The gradient of the erasing loss runs through the whole of it to the mask. Stages that are frozen
  in training would stop it; here the optimiser alone keeps them.
  """
  open_config = dataclasses.replace(config, frozen_stages=0)
  return networks.build(open_config, num_classes, norm=layers.Norm.FROZEN)


def make_program(
  config: 'GeneratorConfig',
  model: classifier.Classifier,
  variables: Variables,
  judge: Judge | None,
  examples: pipeline.Examples,
  context: Context,
) -> Program[states.PnocState]:
  """Makes the program of any method: the generator's step, then the noc's when it is due.

  Args:
    config: the training's settings.
    model: the generator's network.
    variables: those of step 0, on the host; or their shapes, for a program that is only looked at.
    judge: who judges erased images; given exactly when the method has one.
    examples: what is seen.
    context: of the stage that trains.
  """
  mesh = context.runtime.training_mesh(config.batch_size)
  method, leaks = config.parts, config.leak_noc_grad
  total = programs.horizon(config, examples).total
  tx, rate = programs.make_optimizer(
    config.optim, variables['params'], total, groups=programs.field_groups(config)
  )
  terms = config.terms(examples.source)
  generate = pnoc.make_generator_update(
    model,
    judge.model if judge else None,
    tx,
    lambda_re=config.lambda_re.over(total) if method.tiles else None,
    lambda_cse=config.lambda_cse.over(total) if judge else None,
    terms=terms,
    leak_noc_grad=leaks,
    update_ema=programs.make_update_ema(config.optim),
  )
  dataset = networks.colours(config.model, examples.source.info)
  prepare, root = programs.make_prepare(dataset), keys.root_key(context.seed)

  def generator_step(
    generator: states.TrainState,
    noc_variables: Variables | None,
    split: label_split.LabelSplitState | None,
    batch: Batch,
  ) -> pnoc.Generated:
    key = keys.stream(root, 'generator/split', generator.step)
    made = generate(generator, noc_variables, split, prepare(batch), key)
    if judge is None or made.erasure is None or made.erasure.leak is None:
      return made
    leak = optimizer.zero_matching(made.erasure.leak, _noc_frozen(judge))
    return made._replace(erasure=dataclasses.replace(made.erasure, leak=leak))

  layout = pnoc.Erasure(BATCH, BATCH, REPLICATED if leaks else None) if judge else None
  compiled = compiler.jit(
    generator_step,
    mesh,
    ins=(REPLICATED, REPLICATED, REPLICATED, BATCH),
    outs=pnoc.Generated(REPLICATED, REPLICATED, layout, REPLICATED),
    donate=(0, 2),
  )
  noc = None
  if judge and method.noc:
    noc = _make_noc(config, judge, total, terms, prepare, context)
  fixed = arrays.replicate(judge.variables, mesh) if judge else None

  def init(variables: Variables, fixed: Variables | None) -> states.PnocState:
    generator = states.init_state(variables, tx, ema=config.optim.ema is not None)
    if fixed is None:
      return states.PnocState(generator)
    return states.PnocState(
      generator,
      noc.init(fixed) if noc else None,
      label_split.init_label_split(examples.source.info.num_classes),
      jax.tree.map(jnp.zeros_like, fixed['params']) if leaks else None,
    )

  def judges(state: states.PnocState) -> Variables | None:
    return fixed if state.noc is None else state.noc.variables

  # The leak of the generator's updates since the noc's last one.
  add = compiler.jit(lambda a, b: jax.tree.map(jnp.add, a, b), mesh, donate=(0,))
  clear = compiler.jit(lambda a: jax.tree.map(jnp.zeros_like, a), mesh)

  def step(state: states.PnocState, batch: Batch, number: int) -> tuple[states.PnocState, Metrics]:
    generator, split, erasure, metrics = compiled(
      state.generator, judges(state), state.split, batch
    )
    state = dataclasses.replace(state, generator=generator, split=split)
    if noc is None or erasure is None:
      return state, metrics
    leak = None if state.leak is None else add(state.leak, erasure.leak)
    if (number + 1) % config.noc_every == 0:
      trained, noc_metrics = noc.step(state.noc, dataclasses.replace(erasure, leak=leak), batch)
      state, metrics = dataclasses.replace(state, noc=trained), metrics | noc_metrics
      leak = None if leak is None else clear(leak)
    return dataclasses.replace(state, leak=leak), metrics

  def calls() -> list[compiler.Call]:
    state = jax.eval_shape(init, variables, judge.variables if judge else None)
    batch = programs.batch_shapes(config, examples)
    noc_variables = judge.variables if judge else None
    count = config.batch_size
    arguments = (state.generator, noc_variables, state.split, batch)
    found = [compiler.Call('generator', compiled, arguments, images=count, calls=total)]
    if noc is not None:
      erasure = jax.eval_shape(generator_step, *arguments).erasure
      arguments = (state.noc, erasure, batch)
      often = total // config.noc_every
      found.append(compiler.Call('noc', noc.step, arguments, images=count, calls=often))
    return found

  rates = {'lr': lambda step: rate(step // config.optim.accumulate)}
  return Program(
    init=lambda: compiler.jit(init, mesh)(arrays.replicate(variables, mesh), fixed),
    step=step,
    variables=lambda state: state.generator.eval_variables,
    rates=rates | (noc.rates if noc else {}),
    calls=calls,
    chance=_chance(config, examples, noc),
    measured=lambda state: Measured(state.generator.eval_variables, judges(state)),
  )


def _chance(
  config: 'GeneratorConfig', examples: pipeline.Examples, noc: '_Noc | None'
) -> health.Chance | None:
  """What the losses of labels are without an image; None where classes have weights.

  Of a noc that is told that classes are gone it is not known.
  """
  if config.class_weight is not sampling.ClassWeight.NONE:
    return None
  labels, weights = examples.source.labels[examples.indices], None
  if config.draw is sampling.Sampling.BALANCED:
    weights = sampling.example_weights(labels)
  smooth = np.asarray(multilabel.smooth_label(jnp.asarray(labels), config.smoothing))
  value = health.chance(smooth, weights)
  found = {'loss/cls': lambda step: value}
  if noc is not None and config.noc_views is losses.Views.ERASED:
    found['loss/noc'] = lambda step: value * noc.factor(step)
  return found


class _Noc(NamedTuple):
  """What makes the judge train.

  Attributes:
    init: `variables -> state` of step 0.
    step: `(state, erasure, batch) -> (state, metrics)`, compiled.
    rates: as those of a program.
    factor: on its loss, by the micro-step.
  """

  init: Callable[[Variables], states.TrainState]
  step: compiler.Compiled
  rates: dict[str, Callable[[int], Any]]
  factor: Callable[[int], float]


def _noc_frozen(judge: Judge) -> tuple[str, ...]:
  """Regular expressions of the noc's params that do not learn."""
  return networks.frozen_patterns(judge.config, norm=layers.Norm.FROZEN)


def _make_noc(
  config: 'GeneratorConfig',
  judge: Judge,
  total: int,
  terms: losses.Terms,
  prepare: programs.Prepare,
  context: Context,
) -> _Noc:
  every, accumulate = config.noc_every, config.optim.accumulate
  updates = max(total // every, 1)
  ramp = config.lambda_noc.over(updates)
  adaptive = config.optim.rule is not optimizer.Rule.SGD

  # Differs from the reference: with an adaptive optimiser lambda_noc scales the learning rate;
  # because a factor on the loss cancels in Adam-like rules.
  def change(schedule: schedules.Schedule) -> schedules.Schedule:
    scaled = schedules.product(schedule, schedules.constant(config.noc_lr))
    if not adaptive:
      return scaled
    return schedules.product(scaled, lambda step: ramp(step * accumulate))

  tx, rate = programs.make_optimizer(
    config.optim,
    judge.variables['params'],
    updates,
    groups=programs.field_groups(config, frozen=_noc_frozen(judge)),
    change=change,
  )
  update = pnoc.make_noc_update(
    judge.model,
    tx,
    lambda_noc=schedules.constant(1.0) if adaptive else ramp,
    threshold=config.threshold,
    terms=terms,
  )
  layout = pnoc.Erasure(BATCH, BATCH, REPLICATED if config.leak_noc_grad else None)
  return _Noc(
    init=lambda variables: states.init_state(variables, tx),
    step=compiler.jit(
      lambda noc, erasure, batch: update(noc, erasure, prepare(batch)),
      context.runtime.training_mesh(config.batch_size),
      ins=(REPLICATED, layout, BATCH),
      donate=(0,),
    ),
    rates={
      'lr_noc': lambda step: rate(step // every // accumulate),
      # With adaptive optimisers the update itself does not know the ramp.
      'lambda_noc': lambda step: ramp(step // every),
    },
    factor=lambda step: 1.0 if adaptive else float(ramp(step // every)),
  )
