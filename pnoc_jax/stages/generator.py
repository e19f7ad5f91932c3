"""Stage `generator`: the network whose maps become priors, by one of five methods."""

import dataclasses
import enum
import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from pnoc_jax import states
from pnoc_jax.data.augment import transforms
from pnoc_jax.engine import cam_training, networks, settings, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.losses import puzzle as puzzle_loss
from pnoc_jax.nn import classifier, layers
from pnoc_jax.ops import erase, label_split
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.parallel import arrays, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages import classifier as classifier_stage
from pnoc_jax.stages.common import stage
from pnoc_jax.updates import pnoc


class Method(enum.Enum):
  """How the generator is kept from covering only the most telling parts."""

  VANILLA = 'vanilla'
  PUZZLE = 'puzzle'
  OCCSE = 'occse'
  POC = 'poc'
  PNOC = 'pnoc'

  @property
  def uses_tiles(self) -> bool:
    """Whether a second pass sees the image's quarters."""
    return self in (Method.PUZZLE, Method.POC, Method.PNOC)

  @property
  def uses_classifier(self) -> bool:
    """Whether a trained classifier judges erased images."""
    return self in (Method.OCCSE, Method.POC, Method.PNOC)


class Start(enum.Enum):
  """Whose weights the generator starts from."""

  PRETRAINED = 'pretrained'
  """Those that `init` names for the backbone, or random ones."""
  CLASSIFIER = 'classifier'
  """This run's classifier, its head included."""


@dataclasses.dataclass(slots=True)
class RampConfig:
  """A coefficient that goes linearly from `start` to `end` over the first `portion` of the run."""

  start: float = 0.0
  end: float = 1.0
  portion: float = 1.0


@dataclasses.dataclass(slots=True)
class GeneratorConfig(settings.CamTrainingConfig):
  """The CAM generator.

  Attributes:
    method: the CAM method.
    start: whose weights it starts from.
    lambda_re: weight of the reconstruction loss (0 to 4 over the first half).
    lambda_cse: weight of the class-specific erasing loss (.3 to 1).
    lambda_noc: weight of the noc's loss (0 to 1). Adaptive optimisers cancel a factor on the loss,
      so with them it scales the noc's learning rate.
    lambda_conf: weight of the confidence loss of the tiles (0).
    soft_mask: over what the maximum that normalises the soft mask is taken; the hard mask's is each
      image's. With the batch's, images whose maps are weak are erased weakly.
    threshold: delta_noc of the hard mask.
    strategy: how the erased class is picked.
    level: what the reconstruction loss compares.
    distance: how a difference counts there.
    selection: which classes count there.
    noc_every: generator updates to an update of the noc (k_noc).
    noc_lr: factor on the noc's learning rate.
    leak_noc_grad: as in the reference, gradients of the generator's loss reach the noc.
  """

  method: Method = Method.PNOC
  start: Start = Start.PRETRAINED
  # The paper: RandAugment for the ordinary classifier, colour jitter for the generators.
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=lambda: transforms.TransformConfig(augment=transforms.Augment.COLORJITTER)
  )
  batch_size: int = 16
  smoothing: float = 0.1
  lambda_re: RampConfig = dataclasses.field(default_factory=lambda: RampConfig(0.0, 4.0, 0.5))
  lambda_cse: RampConfig = dataclasses.field(default_factory=lambda: RampConfig(0.3, 1.0, 1.0))
  lambda_noc: RampConfig = dataclasses.field(default_factory=lambda: RampConfig(0.0, 1.0, 1.0))
  lambda_conf: float = 0.0
  soft_mask: erase.Over = erase.Over.BATCH
  threshold: float = 0.2
  strategy: label_split.Strategy = label_split.Strategy.RANDOM
  level: puzzle_loss.Level = puzzle_loss.Level.FEATURE
  distance: puzzle_loss.Distance = puzzle_loss.Distance.L1
  selection: puzzle_loss.Selection = puzzle_loss.Selection.MASK
  noc_every: int = 1
  noc_lr: float = 1.0
  leak_noc_grad: bool = False


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Trains the generator; leaves `<out>/weights.safetensors`, `metrics.jsonl` and checkpoints."""
  ours = config.generator
  source = runtime.source(config.dataset, config.dataset.train_split)
  start = _start(config, inputs)
  if ours.method is Method.VANILLA:
    classifier_stage.train_vanilla(
      ours, source, out, runtime, seed=config.seed, name='generator', start=start
    )
    return
  length = trainer.horizon(ours, source)
  judge = None
  if ours.method.uses_classifier:
    judge = _load_judge(config, inputs['classifier'], source.info)
  class_weight = cam_training.class_weight(ours, source)
  updates = _Updates(
    config, source.info, length, judge, runtime, class_weight=class_weight, start=start
  )
  cam_training.train(
    updates.update,
    updates.init(),
    ours,
    source,
    out,
    runtime,
    seed=config.seed,
    name='generator',
    model=updates.model,
    rates=updates.rates(),
  )


def _needs(config) -> tuple[str, ...]:
  ours = config.generator
  starts_there = ours.start is Start.CLASSIFIER
  return ('classifier',) if starts_there or ours.method.uses_classifier else ()


def _start(config, inputs: dict[str, Path]) -> Path | None:
  return inputs['classifier'] if config.generator.start is Start.CLASSIFIER else None


def _load_judge(config, directory: Path, dataset):
  """Returns the classifier's model, its BatchNorm frozen, and its weights."""
  model = judge_model(config.classifier.model, dataset.num_classes)
  return model, networks.load(model, dataset, directory)


def judge_model(config: settings.ModelConfig, num_classes: int) -> classifier.Classifier:
  """Makes the network that judges erased images: BatchNorm frozen, open to gradients throughout.

  The gradient of the erasing loss runs through the whole of it to the mask. Stages that are frozen
  in training would stop it; here the optimiser alone keeps them.
  """
  open_config = dataclasses.replace(config, frozen_stages=0)
  return networks.build(open_config, num_classes, norm=layers.Norm.FROZEN)


class _Updates:
  """The compiled updates of a method and the state that they start from."""

  def __init__(
    self, pipeline_config, dataset, length, judge, runtime, *, class_weight=None, start=None
  ):
    config, seed = pipeline_config.generator, pipeline_config.seed
    self.config, self.dataset, self.runtime = config, dataset, runtime
    self.model = networks.build(config.model, dataset.num_classes)
    self._variables = cam_training.first_variables(
      self.model, dataset, config, runtime, seed=seed, name='generator', start=start
    )
    self._noc_model, self._judge = judge or (None, None)
    self._noc_model_config = pipeline_config.classifier.model
    self._key = cam_training.step_key(seed, 'generator/split')
    self._length, self._class_weight = length, class_weight
    frozen = networks.frozen_patterns(config.model)
    self._tx, self._rate = trainer.make_optimizer(
      config.optim, self._variables['params'], length.total, frozen=frozen
    )
    self._make_updates()

  def _make_updates(self) -> None:
    config, total, mesh = self.config, self._length.total, self.runtime.mesh
    prepare = trainer.make_prepare(self.dataset)
    generator_update = pnoc.make_generator_update(
      self.model,
      self._noc_model,
      self._tx,
      smoothing=config.smoothing,
      w_re=_ramp(config.lambda_re, total) if config.method.uses_tiles else None,
      w_cse=_ramp(config.lambda_cse, total) if config.method.uses_classifier else None,
      strategy=config.strategy,
      reconstruct=functools.partial(
        puzzle_loss.reconstruction_loss,
        level=config.level,
        distance=config.distance,
        selection=config.selection,
      ),
      w_conf=config.lambda_conf,
      soft_mask=config.soft_mask,
      leak_noc_grad=config.leak_noc_grad,
      class_weight=self._class_weight,
      update_ema=trainer.make_update_ema(config.optim),
    )

    def step(generator, noc_variables, split, batch, key):
      return generator_update(generator, noc_variables, split, prepare(batch), key)

    replicated, batch = sharding.Layout.REPLICATED, sharding.Layout.BATCH
    erasure = None
    if config.method.uses_classifier:
      erasure = pnoc.Erasure(batch, batch, replicated if config.leak_noc_grad else None)
    self.generator_step = compiler.jit(
      step,
      mesh,
      batch_args=(3,),
      outs=(replicated, replicated, erasure, replicated),
      donate=(0, 2),
    )
    self.noc_step = None
    if config.method is Method.PNOC:
      self.noc_step = self._make_noc_step(prepare)
    # The leak of the generator updates since the noc's last one.
    self._add = compiler.jit(lambda a, b: jax.tree.map(jnp.add, a, b), mesh, donate=(0,))
    self._clear = compiler.jit(lambda a: jax.tree.map(jnp.zeros_like, a), mesh)

  def _make_noc_step(self, prepare):
    config = self.config
    updates = max(self._length.total // config.noc_every, 1)
    ramp = _ramp(config.lambda_noc, updates)
    adaptive = config.optim.rule is not optimizer.Rule.SGD
    # Differs from the reference: with an adaptive optimiser lambda_noc scales the learning rate;
    # because a factor on the loss cancels in Adam-like rules.
    accumulate = config.optim.accumulate

    def rate(schedule):
      scaled = schedules.product(schedule, schedules.constant(config.noc_lr))
      if not adaptive:
        return scaled
      return schedules.product(scaled, lambda step: ramp(step * accumulate))

    self._noc_tx, self._noc_rate = trainer.make_optimizer(
      config.optim,
      self._judge['params'],
      updates,
      frozen=networks.frozen_patterns(self._noc_model_config, norm=layers.Norm.FROZEN),
      rate=rate,
    )
    self._noc_ramp = ramp
    noc_update = pnoc.make_noc_update(
      self._noc_model,
      self._noc_tx,
      smoothing=config.smoothing,
      w_noc=schedules.constant(1.0) if adaptive else ramp,
      threshold=config.threshold,
    )

    def step(noc, leak, erased, batch):
      return noc_update(noc, pnoc.Erasure(*erased, leak), prepare(batch))

    return compiler.jit(step, self.runtime.mesh, batch_args=(2, 3), donate=(0,))

  def init(self) -> states.PnocState:
    """The state of step 0, on the mesh."""
    config = self.config
    trains_noc = self.noc_step is not None

    def make(variables, judge):
      noc = states.init_state(judge, self._noc_tx) if trains_noc else None
      split = None
      if config.method.uses_classifier:
        split = label_split.init_label_split(self.dataset.num_classes)
      leak = None
      if config.leak_noc_grad:
        leak = jax.tree.map(jnp.zeros_like, judge['params'])
      generator = states.init_state(variables, self._tx, ema=config.optim.ema is not None)
      return states.PnocState(generator, noc, split, leak)

    mesh = self.runtime.mesh
    self._fixed = arrays.replicate(self._judge, mesh)
    return compiler.jit(make, mesh)(arrays.replicate(self._variables, mesh), self._fixed)

  def update(self, state: states.PnocState, batch, step: int):
    """One micro-step: the generator's update, then the noc's when it is due."""
    key = arrays.replicate(self._key(step), self.runtime.mesh)
    noc_variables = self._fixed if state.noc is None else state.noc.variables
    generator, split, erasure, metrics = self.generator_step(
      state.generator, noc_variables, state.split, batch, key
    )
    state = state.replace(generator=generator, split=split)
    if self.noc_step is None:
      return state, metrics
    leak = None if state.leak is None else self._add(state.leak, erasure.leak)
    if (step + 1) % self.config.noc_every == 0:
      noc, noc_metrics = self.noc_step(state.noc, leak, (erasure.cam, erasure.picked), batch)
      state, metrics = state.replace(noc=noc), metrics | noc_metrics
      leak = None if leak is None else self._clear(leak)
    return state.replace(leak=leak), metrics

  def rates(self):
    """The learning rates to log, by micro-step."""
    accumulate = self.config.optim.accumulate
    rates = {'lr': lambda step: self._rate(step // accumulate)}
    if self.noc_step is not None:
      every = self.config.noc_every
      rates['lr_noc'] = lambda step: self._noc_rate(step // every // accumulate)
      # With adaptive optimisers the update itself does not know the ramp.
      rates['lambda_noc'] = lambda step: self._noc_ramp(step // every)
    return rates


def _ramp(config: RampConfig, total: int) -> schedules.Schedule:
  return schedules.ramp(config.start, config.end, total, config.portion)


def _settings(config) -> dict:
  found = {
    'generator': config.generator,
    'generator.init_digest': networks.init_digest(config.generator.init),
  }
  if config.generator.method.uses_classifier:
    found['classifier.model'] = config.classifier.model
  return found


def _describe(config, source) -> str:
  ours = config.generator
  start = 'classifier' if ours.start is Start.CLASSIFIER else None
  return f'{ours.method.value}, {cam_training.describe(ours, source, start=start)}'


def _check(config, inputs: dict[str, Path], source, runtime: Runtime) -> None:
  _check_start(config, source.info)
  cam_training.check(config.generator, source, runtime, name='generator')
  if 'classifier' in inputs:
    _load_judge(config, inputs['classifier'], source.info)


def _check_start(config, dataset) -> None:
  ours = config.generator
  if ours.start is Start.PRETRAINED:
    return
  if ours.init:
    raise UserError(
      f'generator.init is {ours.init!r}, but generator.start is "classifier": those weights would '
      'not be used. Leave init out, or set --config.generator.start=pretrained'
    )
  shapes = [
    jax.tree.map(
      lambda x: x.shape,
      networks.abstract_variables(networks.build(model, dataset.num_classes), dataset),
    )
    for model in (config.classifier.model, ours.model)
  ]
  if shapes[0] != shapes[1]:
    names = [f'{m.backbone} to {m.last_stage}' for m in (config.classifier.model, ours.model)]
    raise UserError(
      f'generator.start is "classifier", but classifier.model is {names[0]} and generator.model is '
      f'{names[1]}: give both the same network, or set --config.generator.start=pretrained'
    )


STAGE = stage.Stage(
  name='generator',
  needs=_needs,
  settings=_settings,
  run=run,
  describe=_describe,
  check=_check,
)
