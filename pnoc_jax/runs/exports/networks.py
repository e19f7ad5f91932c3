"""The networks of a finished run that can be exported."""

from pathlib import Path
from typing import NamedTuple

from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.engine import networks, settings
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.runs import trained
from pnoc_jax.types import Variables

NETWORKS = ('segmentation', 'generator', 'classifier')


class Network(NamedTuple):
  """A network and what there is to know about its use.

  Attributes:
    name: its stage.
    model: the network.
    variables: its weights, float32 host arrays.
    dataset: classes, palette and normalisation.
    config: its backbone's settings.
    crop: side in pixels of the squares it was trained on.
    directory: of its weights.
  """

  name: str
  model: nn.Module
  variables: Variables
  dataset: info.DatasetInfo
  config: settings.ModelConfig
  crop: int
  directory: Path


def load(run: str | Path, name: str) -> Network:
  """Reads a network of a finished run.

  Args:
    run: the run's directory, or that of the network's stage.
    name: one of `NETWORKS`.

  Raises:
    UserError: the run has no such network.
  """
  try:
    directory = trained.find(run, name)
  except UserError as error:
    there = [x for x in NETWORKS if (Path(run) / x / weights.FILE).is_file()]
    if not there:
      raise
    said = ' and '.join(f'--network={x}' for x in there)
    raise UserError(f'{error}. It has what {said} names') from error
  facts = trained.read_facts(directory, name)
  if name == 'segmentation':
    found = trained.load(run)
    model, variables = found.model, found.variables
  else:
    model = networks.build(facts.model, facts.dataset.num_classes)
    variables = networks.load(model, facts.dataset, directory)
  if len(facts.dataset.mean) != 3:
    raise UserError(f'{directory} sees {len(facts.dataset.mean)} channels; exports are for RGB')
  return Network(name, model, variables, facts.dataset, facts.model, facts.crop, directory)
