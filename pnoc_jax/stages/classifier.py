"""Stage `classifier`: the ordinary classifier, from image labels."""

import dataclasses
from pathlib import Path

from pnoc_jax import states
from pnoc_jax.engine import cam_training, networks, settings, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.stages.common import stage
from pnoc_jax.updates import classifier


@dataclasses.dataclass(slots=True)
class ClassifierConfig(settings.CamTrainingConfig):
  """The ordinary classifier: fixed judge `oc` of P-OC, first weights of P-NOC's noc."""


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Trains the classifier; leaves `<out>/weights.safetensors`, `metrics.jsonl` and checkpoints."""
  del inputs
  ours = config.classifier
  source = runtime.source(config.dataset, config.dataset.train_split)
  train_vanilla(ours, source, out, runtime, seed=config.seed, name='classifier')


def train_vanilla(
  config: settings.CamTrainingConfig,
  source,
  out: Path,
  runtime: Runtime,
  *,
  seed: int,
  name: str,
  start: Path | None = None,
) -> None:
  """Trains an ordinary classifier with the settings `config`; see `cam_training.train`.

  `start` is the directory of a stage whose whole network, head included, it goes on from.
  """
  model = networks.build(config.model, source.info.num_classes)
  variables = cam_training.first_variables(
    model, source.info, config, runtime, seed=seed, name=name, start=start
  )
  length = trainer.horizon(config, source)
  tx, rate = trainer.make_optimizer(
    config.optim, variables['params'], length.total, frozen=networks.frozen_patterns(config.model)
  )
  state = compiler.jit(
    lambda v: states.PnocState(states.init_state(v, tx, ema=config.optim.ema is not None)),
    runtime.mesh,
  )(arrays.replicate(variables, runtime.mesh))
  pure_update = classifier.make_classifier_update(
    model,
    tx,
    smoothing=config.smoothing,
    class_weight=cam_training.class_weight(config, source),
    update_ema=trainer.make_update_ema(config.optim),
  )
  prepare = trainer.make_prepare(source.info)
  compiled = compiler.jit(
    lambda state, batch: pure_update(state, prepare(batch)),
    runtime.mesh,
    batch_args=(1,),
    donate=(0,),
  )

  def update(state: states.PnocState, batch, step: int):
    generator, metrics = compiled(state.generator, batch)
    return state.replace(generator=generator), metrics

  cam_training.train(
    update,
    state,
    config,
    source,
    out,
    runtime,
    seed=seed,
    name=name,
    model=model,
    rates={'lr': lambda step: rate(step // config.optim.accumulate)},
  )


STAGE = stage.Stage(
  name='classifier',
  needs=lambda config: (),
  settings=lambda config: {
    'classifier': config.classifier,
    'classifier.init_digest': networks.init_digest(config.classifier.init),
  },
  run=run,
  describe=lambda config, source: cam_training.describe(config.classifier, source),
  check=lambda config, inputs, source, runtime: cam_training.check(
    config.classifier, source, runtime, name='classifier'
  ),
)
