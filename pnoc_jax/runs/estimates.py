"""What a run will need, before it runs: memory of each training, and room on the disk."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.engine import networks, settings
from pnoc_jax.optim import optimizer
from pnoc_jax.stages import affinity, c2am, generator, saliency, segmentation
from pnoc_jax.types import Variables

_BUILDS: dict[str, Callable[[settings.TrainingConfig, int], nn.Module]] = {
  'classifier': lambda config, num_classes: networks.build(config.model, num_classes),
  'generator': lambda config, num_classes: networks.build(config.model, num_classes),
  'c2am': lambda config, _: c2am.build(config),
  'saliency': lambda config, _: saliency.build(config),
  'affinity': lambda config, _: affinity.build(config),
  'segmentation': segmentation.build,
}
TRAINED = tuple(_BUILDS)
"""The stages that train a network."""

_MOMENTS = {
  optimizer.Rule.SGD: 0,
  optimizer.Rule.ADAM: 2,
  optimizer.Rule.ADAMW: 2,
  optimizer.Rule.LION: 1,
  optimizer.Rule.LAMB: 2,
}
# Bytes on the disk to a byte in memory, and to a pixel, measured on products of photographs.
_PRIOR_RATE, _WALK_RATE = 0.55, 0.67
_GREY_RATE, _MASK_RATE = 0.25, 0.03


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
  """Bytes that a training holds on each device.

  Attributes:
    count: parameters of all its networks.
    variables: params and statistics.
    optimizer: moments, summed gradients of a step in parts, the moving average.
    gradients: of one step.
    activations: what the backward pass keeps of the forward passes, of this device's images.
  """

  count: int
  variables: int
  optimizer: int
  gradients: int
  activations: int

  @property
  def state(self) -> int:
    """Bytes of a checkpoint."""
    return self.variables + self.optimizer

  @property
  def total(self) -> int:
    """All of it."""
    return self.state + self.gradients + self.activations


def memory(
  name: str, config, dataset: info.DatasetInfo, *, devices: int, largest: int = 0
) -> Memory:
  """Estimates a training's memory from shapes alone: nothing is compiled or computed.

  Params, gradients and moments are exact but for frozen ones, which are counted like the others.
  Activations are all arrays that automatic differentiation keeps for the backward pass. A compiler
  keeps fewer, as it computes cheap ones again, and needs working space besides: take it as the
  upper end of what to expect, to a factor of 2.

  Args:
    name: one of `TRAINED`.
    config: the run's.
    dataset: its classes and channels.
    devices: that share a batch; each holds all params.
    largest: the longest side of the training images, for networks that see them whole.
  """
  ours = getattr(config, name)
  crop = ours.transform.crop or largest
  size = (crop, crop, len(dataset.mean))
  model = _BUILDS[name](ours, dataset.num_classes)
  variables = networks.abstract_variables(model, dataset)
  count = trees.count(variables['params'])
  held, moved = _bytes(variables), _bytes(variables['params'])
  trained = moved
  an_image = kept_an_image(model, dataset, size)
  if name == 'generator':
    if ours.method.uses_tiles:
      an_image *= 2  # The tiles of an image have as many pixels.
    if ours.method.uses_classifier:
      judge = generator.judge_model(config.classifier.model, dataset.num_classes)
      theirs = networks.abstract_variables(judge, dataset)
      count += trees.count(theirs['params'])
      held += _bytes(theirs)
      an_image += kept_an_image(judge, dataset, size, by_image=True)
      if ours.method is generator.Method.PNOC:
        trained += _bytes(theirs['params'])
  optim = ours.optim
  copies = _MOMENTS[optim.rule] + (optim.rule is optimizer.Rule.SGD and optim.momentum > 0)
  copies += optim.accumulate > 1
  return Memory(
    count,
    held,
    trained * copies + (moved if optim.ema is not None else 0),
    trained,
    an_image * math.ceil(ours.batch_size / devices),
  )


@functools.lru_cache(maxsize=32)
def kept_an_image(
  model: nn.Module,
  dataset: info.DatasetInfo,
  size: tuple[int, int, int],
  *,
  by_image: bool = False,
) -> int:
  """Bytes that the backward pass of one more image in a batch keeps of the forward pass.

  Args:
    model: the network, called as all networks here.
    dataset: what it sees.
    size: (H, W, C) of an image.
    by_image: differentiate with respect to the image, and the network's variables are fixed.
  """
  variables = networks.abstract_variables(model, dataset)

  def kept(variables: Variables, image):
    def forward(params, image):
      found, _ = model.apply(
        {**variables, 'params': params},
        image,
        train=not by_image,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(0)},
      )
      return found

    if by_image:
      return jax.vjp(lambda x: forward(variables['params'], x), image)[1]
    return jax.vjp(lambda p: forward(p, image), variables['params'])[1]

  one, two = (
    _bytes(jax.eval_shape(kept, variables, jax.ShapeDtypeStruct((n, *size), jnp.float32)))
    for n in (1, 2)
  )
  return two - one


def _bytes(tree) -> int:
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, 'dtype')
  )


def product_bytes(name: str, config, split: str, labels: np.ndarray, sizes: np.ndarray) -> int:
  """Estimates the files that a stage makes of a split.

  Args:
    name: of the stage; 0 for those that make no file an image.
    config: the run's.
    split: its name; 0 for one that the stage leaves alone.
    labels: f32[N, K].
    sizes: i64[N, 2] (H, W).
  """
  splits = config.predictions.splits if name == 'predictions' else config.priors.splits
  if name == 'affinity_labels':
    splits = (config.dataset.train_split,)
  if split not in splits:
    return 0
  pixels = sizes.prod(1)
  maps = (pixels * labels.sum(1)).sum()
  found = {
    'priors': maps * (2 + 4 / 16) * _PRIOR_RATE,  # f16, and f32 on a quarter of the side.
    'saliency_priors': pixels.sum() * (_GREY_RATE + _MASK_RATE),
    'saliency': pixels.sum() * _GREY_RATE,
    'affinity_labels': pixels.sum() * _MASK_RATE,
    'random_walk': maps * 2 * _WALK_RATE,
    'pseudo_masks': pixels.sum() * _MASK_RATE,
    'predictions': pixels.sum() * _MASK_RATE,
  }
  return int(found.get(name, 0))


def readable(count: float) -> str:
  """Bytes for people: 1.5 GiB."""
  for unit in ('bytes', 'KiB', 'MiB', 'GiB'):
    if count < 1024:
      return f'{count:.3g} {unit}' if count < 100 else f'{count:.0f} {unit}'
    count /= 1024
  return f'{count:.3g} TiB'
