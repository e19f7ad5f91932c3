"""Steps of P-NOC with real networks, as the stage `generator` makes them, on any mesh."""

import pathlib

import jax
import numpy as np

from pnoc_jax import config as config_lib
from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import networks
from pnoc_jax.engine.programs import Program
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.parallel import arrays
from pnoc_jax.stages.common import cam_program

CLASSES, SIZE, BATCH, STEPS, TOTAL = 3, 32, 8, 20, 24
DATASET = info.DatasetInfo(
  name='noise',
  classes=tuple('abc'),
  background='nothing',
  palette=info.color_map(CLASSES + 1),
)


class Noise:
  """What a program asks of its images: there are enough of them for one epoch of `TOTAL` steps."""

  info, split = DATASET, 'train'
  labels = np.ones((BATCH * TOTAL, CLASSES), np.float32)


def config() -> config_lib.PipelineConfig:
  """Stem and first stage of ResNeSt-tiny, which compile soon; SGD; the leak: all a step has."""
  result = config_lib.PipelineConfig()
  for training in (result.classifier, result.generator):
    training.model.backbone = 'resnest_tiny'
    training.model.output_stride = 8
    training.model.last_stage = 'layer1'
    training.batch_size = BATCH
    training.epochs = 1
  result.generator.leak_noc_grad = True
  # With ten times as much, what the devices round differently is 1e-4 of a weight after 20 steps.
  result.generator.optim.lr = 0.001
  result.generator.lambda_noc.start = 0.5
  return result


def drawn(model, dataset: info.DatasetInfo, *, seed: int):
  """Draws a network's variables on the host: to compile the drawing takes longer."""
  rng = np.random.default_rng(seed)

  def draw(path, x):
    name = path[-1].key
    if name == 'kernel':
      return rng.normal(0, np.sqrt(2 / np.prod(x.shape[:-1])), x.shape).astype(np.float32)
    return np.full(x.shape, float(name in ('scale', 'var')), np.float32)

  return jax.tree_util.tree_map_with_path(draw, networks.abstract_variables(model, dataset))


def first_variables(model, source, context: Context):
  """Stands in for `networks.first_variables`; nothing is pretrained."""
  del source
  return drawn(model, context.train.info, seed=context.seed)


def make_program(mesh, settings: config_lib.PipelineConfig) -> Program:
  """The stage's program; its judge is drawn, not trained."""
  runtime = Runtime(pathlib.Path(), mesh, mesh, settings.runtime)
  context = Context('generator', settings, {}, pathlib.Path(), runtime)
  model = networks.build(settings.generator.model, CLASSES)
  judge = cam_program.judge_model(settings.classifier.model, CLASSES)
  return cam_program.make_program(
    settings.generator,
    model,
    drawn(model, DATASET, seed=settings.seed),
    cam_program.Judge(judge, drawn(judge, DATASET, seed=1), settings.classifier.model),
    pipeline.Examples(Noise()),
    context,
  )


def batch(step: int) -> dict[str, np.ndarray]:
  """Returns a batch of noise."""
  rng = np.random.default_rng(step)
  label = (rng.random((BATCH, CLASSES)) < 0.5).astype(np.float32)
  label[np.arange(BATCH), np.arange(BATCH) % CLASSES] = 1
  return {
    'image': rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8),
    'box': np.tile(np.array([0, 0, SIZE, SIZE - 4], np.int32), (BATCH, 1)),
    'label': label,
    'index': (np.arange(BATCH) + BATCH * step).astype(np.int32),
  }


def take_steps(mesh, program: Program) -> dict[str, np.ndarray]:
  """Trains for all steps; returns the state and all metrics by name."""
  state, logged = program.init(), {}
  # Of several processes each has its share of the rows.
  share = BATCH // jax.process_count()
  ours = slice(share * jax.process_index(), share * (jax.process_index() + 1))
  for step in range(STEPS):
    rows = {name: x[ours] for name, x in batch(step).items()}
    state, metrics = program.step(state, arrays.to_global(rows, mesh), step)
    logged[f'metrics{step}'] = metrics
  return jax.device_get(trees.flatten_names(arrays.to_host({'state': state, **logged})))


def in_two_processes(mesh, folder: str) -> bool:
  """Takes all steps as one of several processes, and leaves what it has; whether it has all."""
  found = take_steps(mesh, make_program(mesh, config()))
  np.savez(pathlib.Path(folder) / f'{jax.process_index()}.npz', **found)
  return jax.process_count() == 2 and mesh.size == 2
