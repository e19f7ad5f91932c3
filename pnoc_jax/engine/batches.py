"""What a training's batch and the devices of a run are to each other, in words."""

import math

from jax.sharding import Mesh

from pnoc_jax.engine import settings
from pnoc_jax.nn import layers
from pnoc_jax.parallel import mesh as meshes

_SLOWEST = 2
"""A device may have so many times the images that an even split would give it."""


def remark(config: settings.TrainingConfig, mesh: Mesh) -> str:
  """Says which devices train, if these are not all; empty otherwise.

  Args:
    config: the training's settings.
    mesh: all devices of the run.
  """
  spread = meshes.spread_on(mesh, config.batch_size)
  if spread.parts == mesh.size:
    return ''
  rows = config.batch_size // spread.parts
  images = 'an image' if rows == 1 else f'{rows} images'
  text = f'on {spread.parts} of {mesh.size} devices, {images} each'
  if spread.copies > 1:
    text += f'; {spread.copies} groups of processes compute the same'
  return text


def fault(name: str, config: settings.TrainingConfig, mesh: Mesh) -> str | None:
  """Says what to do about a batch that splits so badly that most of the machine would wait.

  Args:
    name: the field of the run's config that holds the settings.
    config: the training's settings.
    mesh: all devices of the run.
  """
  batch = config.batch_size
  if _fits(batch, mesh):
    return None
  parts = meshes.spread_on(mesh, batch).parts
  text = (
    f'{name}.batch_size is {batch}, which the {mesh.size} devices cannot share: its equal parts '
    f'would be {batch // parts} images on {parts} of them. Take {_neighbours(batch, mesh)}'
  )
  return text + _pair(name, config, mesh)


def _fits(batch: int, mesh: Mesh) -> bool:
  rows = batch // meshes.spread_on(mesh, batch).parts
  return rows <= _SLOWEST * math.ceil(batch / mesh.size)


def _neighbours(batch: int, mesh: Mesh) -> str:
  """The nearest sizes that can be split: a batch of one can, and a multiple of the devices can."""
  below = next(x for x in range(batch - 1, 0, -1) if _fits(x, mesh))
  above = next(x for x in range(batch + 1, batch + mesh.size + 1) if _fits(x, mesh))
  return f'{below} or {above}'


def _pair(name: str, config: settings.TrainingConfig, mesh: Mesh) -> str:
  """A smaller batch that is accumulated to as many images, where the gradients stay the same."""
  optim, normalises = config.optim, config.model.norm is layers.Norm.BATCH
  if optim.accumulate > 1 and not optim.grad_mean:
    return ''  # The gradients are added up: another number of them is another learning rate.
  images = config.batch_size * optim.accumulate
  # The statistics of a single image's normalisation are of no use.
  smaller = range(config.batch_size - 1, 1 if normalises else 0, -1)
  found = next((x for x in smaller if images % x == 0 and _fits(x, mesh)), None)
  if found is None:
    return ''
  text = f'; or {found} with {name}.optim.accumulate={images // found}'
  if not optim.grad_mean:
    text += f' and {name}.optim.grad_mean=true'
  text += f', which are as many images to an optimiser step, {images}'
  if normalises:
    text += f' (BatchNorm, and what else looks across a batch, then sees {found})'
  return text
