"""Steps of P-NOC with real networks, as the stage `generator` makes them, on any mesh."""

import pathlib
from unittest import mock

import jax
import numpy as np

from pnoc_jax import config as config_lib
from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.engine import networks, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.stages import generator

CLASSES, SIZE, BATCH, STEPS, TOTAL = 3, 32, 8, 2, 10
DATASET = info.DatasetInfo(
  name='noise',
  classes=tuple('abc'),
  background='nothing',
  palette=info.color_map(CLASSES + 1),
)


def config() -> config_lib.PipelineConfig:
  """Stem and first stage of ResNeSt-tiny, which compile soon; SGD; the leak: all a step has."""
  result = config_lib.PipelineConfig()
  for training in (result.classifier, result.generator):
    training.model.backbone = 'resnest_tiny'
    training.model.output_stride = 8
    training.model.last_stage = 'layer1'
    training.batch_size = BATCH
  result.generator.leak_noc_grad = True
  result.generator.lambda_noc.start = 0.5
  return result


def drawn(model, dataset, mesh, *, seed, **rest):
  """Stands in for `networks.first_variables`, which compiles the drawing."""
  del mesh, rest
  rng = np.random.default_rng(seed)

  def draw(path, x):
    name = path[-1].key
    if name == 'kernel':
      return rng.normal(0, np.sqrt(2 / np.prod(x.shape[:-1])), x.shape).astype(np.float32)
    return np.full(x.shape, float(name in ('scale', 'var')), np.float32)

  template = networks.abstract_variables(model, dataset)
  return jax.tree_util.tree_map_with_path(draw, template)


def make_trainer(mesh, settings: config_lib.PipelineConfig):
  """Returns the stage's trainer; its judge is drawn, not trained."""
  model = generator.judge_model(settings.classifier.model, CLASSES)
  judge = drawn(model, DATASET, mesh, seed=1)
  runtime = Runtime(pathlib.Path(), mesh, mesh, settings.runtime)
  length = trainer.Horizon(epoch=TOTAL, total=TOTAL)
  with mock.patch.object(networks, 'first_variables', drawn):
    return generator._Updates(settings, DATASET, length, (model, judge), runtime)


def batch(step: int) -> dict[str, np.ndarray]:
  """Returns this process's rows of a global batch of noise."""
  rng = np.random.default_rng(step)
  label = (rng.random((BATCH, CLASSES)) < 0.5).astype(np.float32)
  label[np.arange(BATCH), np.arange(BATCH) % CLASSES] = 1
  whole = {
    'image': rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8),
    'box': np.tile(np.array([0, 0, SIZE, SIZE - 4], np.int32), (BATCH, 1)),
    'label': label,
    'index': (np.arange(BATCH) + BATCH * step).astype(np.int32),
  }
  rows = BATCH // hosts.process_count()
  start = rows * hosts.process_index()
  return {name: x[start : start + rows] for name, x in whole.items()}


def take_steps(mesh, trainer) -> dict[str, np.ndarray]:
  """Trains for two steps; returns the state and all metrics by name."""
  state, logged = trainer.init(), {}
  for step in range(STEPS):
    state, metrics = trainer.update(state, arrays.to_global(batch(step), mesh), step)
    logged[f'metrics{step}'] = metrics
  return jax.device_get(trees.flatten_names(arrays.to_host({'state': state, **logged})))


def in_two_processes(mesh, folder: str) -> dict[str, int]:
  """What each process of the test does; process 0 writes the result."""
  trainer = make_trainer(mesh, config())
  found = take_steps(mesh, trainer)
  np.savez(pathlib.Path(folder) / f'{hosts.process_index()}.npz', **found)
  return {'devices': mesh.size}
