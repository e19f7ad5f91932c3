"""Trains classification networks whose maps are wanted: what all CAM methods share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pnoc_jax import keys, states, trees
from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline, sampling
from pnoc_jax.engine import networks, settings, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.metrics import classification, thresholds
from pnoc_jax.nn import classifier as classifier_nn
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.parallel import arrays, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import cams
from pnoc_jax.types import Array, Variables

_BATCH = sharding.Layout.BATCH

# (state, batch, micro-step) -> (state, metrics), compiled.
Update = Callable[[states.PnocState, dict[str, Array], int], tuple[states.PnocState, dict]]


def describe(
  config: settings.CamTrainingConfig, source: info.Source, *, start: str | None = None
) -> str:
  """Says what a training is, for the plan: network, parameters, steps.

  `start` names the stage whose network it goes on from, if any.
  """
  model = networks.build(config.model, source.info.num_classes)
  count = trees.count(networks.abstract_variables(model, source.info)['params'])
  length = trainer.horizon(config, source)
  origin = config.init if start is None else f'the {start}'
  init = f' from {origin}' if origin else ''
  return (
    f'{config.model.backbone}, {count:,} parameters{init}; {config.epochs} epochs of '
    f'{length.epoch} = {length.total} steps at batch {config.batch_size}'
  )


def first_variables(
  model: classifier_nn.Classifier,
  dataset: info.DatasetInfo,
  config: settings.CamTrainingConfig,
  runtime: Runtime,
  *,
  seed: int,
  name: str,
  start: Path | None = None,
) -> Variables:
  """Variables of step 0: a finished stage's, or drawn with the backbone of `config.init`.

  Args:
    model: the network.
    dataset: what it classifies.
    config: the training's settings.
    runtime: where to draw them.
    seed: the run's seed.
    name: the stage's name.
    start: directory of a stage whose whole network, head included, training goes on from.

  Returns:
    float32 host arrays.

  Raises:
    UserError: the weights are those of another network; both sides are named.
  """
  if start is not None:
    return networks.load(model, dataset, start)
  return networks.first_variables(
    model,
    dataset,
    runtime.mesh,
    seed=seed,
    name=name,
    init=config.init,
    arch=config.model.backbone,
  )


def check(
  config: settings.CamTrainingConfig,
  source: info.Source,
  runtime: Runtime,
  *,
  name: str,
) -> None:
  """Raises UserError if the weights to start from or the batch size do not fit."""
  trainer.check(config, source, runtime, name=name)
  model = networks.build(config.model, source.info.num_classes)
  networks.check_init(model, source.info, init=config.init, arch=config.model.backbone)


def make_measure(
  model: classifier_nn.Classifier,
  source: info.Source,
  config: settings.CamTrainingConfig,
  runtime: Runtime,
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
  prepare = trainer.make_prepare(source.info)
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
    stream = pipeline.valid_batches(
      source,
      size=config.eval_size,
      squeeze=config.transform.squeezes,
      batch_size=batch_size,
    )
    for number, batch in enumerate(stream):
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
  runtime: Runtime,
  *,
  seed: int,
  name: str,
  model: classifier_nn.Classifier,
  rates: dict[str, Callable[[int], float]],
) -> None:
  """Runs or resumes a training and leaves `<out>/weights.safetensors`.

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
  measured = config.eval_every and source.has_masks
  trainer.run(
    update,
    state,
    trainer.make_batches(config, source, runtime, seed=seed, mix=config.mix, draw=config.draw),
    horizon=trainer.horizon(config, source),
    config=config,
    source=source,
    out=out,
    runtime=runtime,
    name=name,
    variables=lambda state: state.generator.eval_variables,
    rates=rates,
    evaluate=make_measure(model, source, config, runtime) if measured else None,
  )


def class_weight(config: settings.CamTrainingConfig, source: info.Source) -> np.ndarray | None:
  """f32[K] factors of the classes in the loss, of the images that train; None for ones."""
  if config.class_weight is sampling.ClassWeight.NONE:
    return None
  return sampling.class_weights(source.labels[pipeline.labelled(source)])


def step_key(seed: int, name: str) -> Callable[[int], Array]:
  """Makes the function from a micro-step to its key."""
  root = keys.root_key(seed)
  return lambda step: keys.stream(root, name, step)
