"""A run from labels to the random walk, by one process or several; it can be stopped on its way."""

import contextlib
import pathlib
from collections.abc import Callable
from unittest import mock

from pnoc_jax.config import PipelineConfig
from pnoc_jax.optim import optimizer
from pnoc_jax.parallel import hosts
from pnoc_jax.runs import runner
from pnoc_jax.stages.common import maps
from tests.configs import tiny

STAGES = ('classifier', 'generator', 'priors', 'affinity_labels', 'affinity', 'random_walk')
STOPPED = 10
"""Steps of the generator, of 12, after which several processes ask each other whether to stop."""


def config() -> PipelineConfig:
  """The tiny run, by SGD: Adam's steps are as long where gradients are nothing but rounding."""
  result = tiny.get_config()
  result.only, result.evaluation.of, result.runtime.save_every = ','.join(STAGES), (), 99
  result.dataset.shapes.train, result.dataset.shapes.val = 12, 4
  result.affinity_labels.saliency, result.affinity_labels.crf.steps = maps.Saliency.NONE, 0
  for training in (result.classifier, result.generator, result.affinity):
    training.optim.rule, training.optim.lr, training.eval_every = optimizer.Rule.SGD, 0.01, 0
  # On two processes of two devices: three images on one device each; the one image in both.
  result.classifier.batch_size, result.affinity.batch_size, result.affinity.epochs = 6, 1, 1
  result.generator.batch_size, result.generator.epochs = 4, 4
  return result


def execute(workdir: pathlib.Path, stop: Callable[[], bool] = lambda: False) -> bool:
  """Runs or resumes until the end, or until `stop` says so; returns whether it came to the end."""

  @contextlib.contextmanager
  def signals():
    yield stop

  quiet = mock.patch.object(runner.compiler, 'setup_cache')
  with quiet, mock.patch.object(runner.loop, 'stop_on_signals', signals):
    try:
      runner.execute(config(), workdir)
    except Exception as error:
      # Several processes say in their own way that they were stopped.
      if 'saved at step' not in str(error):
        raise
      return False
  return True


def in_two_processes(mesh, folder: str, stopped: bool) -> bool:
  """What each of two processes does; `stopped` in the training of the generator, or to the end."""
  del mesh
  workdir = pathlib.Path(folder)

  def stop():
    # Told to one process alone.
    return stopped and hosts.process_index() == 1 and logged(workdir) > 0

  return execute(workdir, stop)


def logged(workdir: pathlib.Path) -> int:
  """How many steps of the generator have a line in its log."""
  path = workdir / 'generator' / 'metrics.jsonl'
  return len(path.read_text().splitlines()) if path.exists() else 0
