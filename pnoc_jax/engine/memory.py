"""What trainings and inferences will hold, from shapes alone: nothing is compiled or computed."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax import trees
from pnoc_jax.data import info
from pnoc_jax.engine import networks, settings
from pnoc_jax.optim import optimizer
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.types import Array, PyTree, Variables

_MOMENTS = {
  optimizer.Rule.SGD: 0,
  optimizer.Rule.ADAM: 2,
  optimizer.Rule.ADAMW: 2,
  optimizer.Rule.LION: 1,
  optimizer.Rule.LAMB: 2,
}


SHARE = 0.6
"""Of a memory that work may take: a compiler needs working space, and others are there."""
_LIMITS = (  # Of the memory of a container: version 2 and 1 of control groups.
  '/sys/fs/cgroup/memory.max',
  '/sys/fs/cgroup/memory/memory.limit_in_bytes',
)


class Images(NamedTuple):
  """The images of which a stage makes files.

  Attributes:
    largest: (H, W) of the one with the most pixels.
    classes: most classes of an image.
  """

  largest: tuple[int, int]
  classes: int


class Work(NamedTuple):
  """What each image in work holds, of a stage that makes a file of each.

  Attributes:
    what: is done: `inference`, or `CRF`.
    device: bytes on a device.
    host: bytes on the host.
    at_once: images that the config, or the machine, would have in work at a time.
    images: that are made.
  """

  what: str
  device: int
  host: int
  at_once: int
  images: Images

  def fitting(self, devices: int) -> int:
    """How many images can be in work at once, over all local devices; 0 if not even one."""
    if jax.local_devices()[0].platform == 'cpu':  # Both are the same memory.
      return int(SHARE * host_bytes() // (self.device + self.host))
    on_devices = int(SHARE * device_bytes() // max(self.device, 1)) * devices
    return min(on_devices, int(SHARE * host_bytes() // max(self.host, 1)))

  def describe(self, fitting: int) -> str:
    """What it needs, and what becomes of it where fewer images fit than are wanted."""
    height, width = self.images.largest
    text = (
      f'{self.what} of images of up to {width}x{height} px: each in work needs about '
      f'{self.device / 2**30:.1f} GiB on a device and {self.host / 2**30:.1f} GiB on the host'
    )
    if fitting >= self.at_once:
      return f'{text}, {self.at_once} at a time'
    room = f'{device_bytes() / 2**30:.1f} and {host_bytes() / 2**30:.1f} GiB'
    if fitting:
      return f'{text}; there are {room}, so {fitting} at a time in place of {self.at_once}'
    return (
      f'{text}, and there are {room}: not even one may fit. Take smaller scales, reduce the images '
      'or set resize_to, or take a larger machine'
    )


class Load(NamedTuple):
  """What a training is spread over, and the largest image that it can meet.

  Attributes:
    devices: that share a batch; each holds all params.
    largest: longest side in px of the training images, for networks that see them whole.
  """

  devices: int = 1
  largest: int = 0


class Judge(NamedTuple):
  """A second network that looks at the first one's images.

  Attributes:
    model: the network.
    trains: whether it has an optimiser of its own.
    views: images that it learns from in its own step, to one of the batch.
  """

  model: nn.Module
  trains: bool
  views: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
  """Bytes that a training holds on each device.

  Attributes:
    count: parameters of all its networks.
    variables: params and statistics.
    optimizer: moments, summed gradients of a step in parts or of a leak, the moving average.
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


def training_memory(
  model: nn.Module,
  config: settings.TrainingConfig,
  dataset: info.DatasetInfo,
  load: Load,
  *,
  passes: int = 1,
  judges: Sequence[Judge] = (),
) -> Memory:
  """Estimates a training's memory.

  Params, gradients and moments are exact but for frozen ones, which are counted like the others.
  Activations are all arrays that automatic differentiation keeps for the backward pass. A compiler
  keeps fewer, as it computes cheap ones again, and needs working space besides: take it as the
  upper end of what to expect, to a factor of 2.

  Args:
    model: the network that trains.
    config: the training's settings.
    dataset: its classes and channels.
    load: devices and the largest image.
    passes: forward passes of as many pixels as an image has.
    judges: other networks in the same step.
  """
  crop = config.transform.crop or load.largest
  size = (crop, crop, len(dataset.mean))
  variables = networks.abstract_variables(model, dataset)
  count, held = trees.count(variables['params']), tree_bytes(variables)
  trained = moved = tree_bytes(variables['params'])
  an_image = kept_an_image(model, dataset, size) * passes
  for judge in judges:
    theirs = networks.abstract_variables(judge.model, dataset)
    count, held = count + trees.count(theirs['params']), held + tree_bytes(theirs)
    trained += tree_bytes(theirs['params']) if judge.trains else 0
    an_image += kept_an_image(judge.model, dataset, size, by_image=True)
  # Its own step comes after the generator's, which keeps more where both see each image once.
  for judge in judges:
    if judge.trains and judge.views > 1:
      an_image = max(an_image, judge.views * kept_an_image(judge.model, dataset, size))
  optim = config.optim
  copies = _MOMENTS[optim.rule] + (optim.rule is optimizer.Rule.SGD and optim.momentum > 0)
  copies += optim.accumulate > 1
  return Memory(
    count,
    held,
    trained * copies + (moved if optim.ema is not None else 0),
    trained,
    an_image * (config.batch_size // meshes.spread(config.batch_size, 1, load.devices).parts),
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

  def kept(variables: Variables, image: Array) -> PyTree:
    def forward(params: PyTree, image: Array) -> PyTree:
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
    tree_bytes(jax.eval_shape(kept, variables, jax.ShapeDtypeStruct((n, *size), jnp.float32)))
    for n in (1, 2)
  )
  return two - one


def device_bytes() -> int:
  """Bytes that a program can have on a device; the devices of a CPU share its memory."""
  devices = jax.local_devices()
  stats = devices[0].memory_stats() or {}
  return stats.get('bytes_limit') or host_bytes() // len(devices)


def host_bytes() -> int:
  """Bytes of this machine's memory, or of those that its container may have."""
  found = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  for limit in map(pathlib.Path, _LIMITS):
    try:
      found = min(found, int(limit.read_text(encoding='utf-8')))
    except (OSError, ValueError):
      continue  # There is no such file, or it says `max`.
  return found


def forward_bytes(fn: Callable[..., PyTree], *arguments: PyTree) -> int:
  """Bytes that a computation without a backward pass holds at once, about.

  It is twice what the largest of its operations reads and writes: a compiler keeps a few arrays for
  later ones, and needs working space.

  Args:
    fn: a pure function.
    *arguments: arrays or shapes.
  """
  return 2 * _largest(jax.make_jaxpr(fn)(*arguments).jaxpr)


def _largest(jaxpr: Any) -> int:
  found = 0
  for operation in jaxpr.eqns:
    inner = [x for x in operation.params.values() if hasattr(x, 'jaxpr') or hasattr(x, 'eqns')]
    for x in inner:
      found = max(found, _largest(getattr(x, 'jaxpr', x)))
    if not inner:
      found = max(found, tree_bytes([x.aval for x in (*operation.invars, *operation.outvars)]))
  return found


def tree_bytes(tree: PyTree) -> int:
  """Bytes of all arrays, or shapes of arrays, in a tree."""
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, 'dtype')
  )
