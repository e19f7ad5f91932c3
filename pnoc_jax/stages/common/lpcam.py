"""The prototypes of LPCAM: features of the training images, sampled, clustered, chosen."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax import keys
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import infer, log, loop, networks
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.io import weights
from pnoc_jax.ops import lpcam
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import lpcam as inference
from pnoc_jax.types import Array, Variables

if TYPE_CHECKING:
  from pnoc_jax.stages.priors import PriorsConfig

FILE = 'prototypes.safetensors'
_SIDES = ('foreground', 'context')


@dataclasses.dataclass(slots=True)
class LpcamConfig:
  """Prototypes of classes, from the training split at its native size.

  Attributes:
    clusters: of each class's foreground and of its context.
    positions: cells sampled for either, uniformly over all images of the class. They are held in
      memory as float16: 2,048 cells of 2,048 features are 336 MB for 20 classes, 1.3 GB for 80.
    steps: iterations of k-means.
    threshold: a cell is foreground where the class's map, over its maximum, is above this.
    foreground_min: a cluster of the foreground is a prototype above this probability.
    context_min: a cluster of the context is a prototype between this probability
    context_max: and this one.
  """

  clusters: int = 12
  positions: int = 2048
  steps: int = 20
  threshold: float = 0.1
  foreground_min: float = 0.9
  context_min: float = 0.05
  context_max: float = 0.9


def faults(config: LpcamConfig) -> list[str]:
  """What of a config cannot work."""
  found = []
  if not 1 <= config.clusters <= config.positions:
    found.append(
      f'priors.lpcam.clusters is {config.clusters}; it lies between 1 and the positions, '
      f'{config.positions}'
    )
  if config.steps < 1:
    found.append('priors.lpcam.steps must be at least 1')
  return found


class Sample:
  """A bounded uniform sample of a stream of points, whatever their order.

  Every point comes with a random number, and those with the smallest ones stay: samples of parts
  of a stream join to that of the whole.
  """

  def __init__(self, size: int):
    """Makes the sample of no point, which will hold `size` at most."""
    self._size = size
    self.chances = np.zeros(0)
    self.points = None

  def add(self, chances: np.ndarray, points: np.ndarray) -> None:
    """Shows the points [n, D] with the random numbers f64[n]."""
    if len(self.chances) == self._size:
      small = chances < self.chances.max()
      chances, points = chances[small], points[small]
    if self.points is not None:
      if not len(chances):
        return
      chances = np.concatenate([self.chances, chances])
      points = np.concatenate([self.points, points])
    kept = np.argsort(chances)[: self._size]
    self.chances, self.points = chances[kept], points[kept]


class _Look(NamedTuple):
  """With what the training images are looked at, and where to.

  Attributes:
    model: the CAM network.
    variables: its variables, on the host.
    config: of the stage `priors`.
    context: the stage's.
    output_stride: pixels to a cell of the maps.
  """

  model: nn.Module
  variables: Variables
  config: 'PriorsConfig'
  context: Context
  output_stride: int


def make_vectors(
  model: nn.Module,
  variables: Variables,
  config: 'PriorsConfig',
  context: Context,
  *,
  output_stride: int,
) -> np.ndarray:
  """Makes f32[D, K], a `class_vector` a class, or reads those that an earlier call left in `out`.

  A class without a training image has the vector 0, hence no map. Each process samples its share of
  the images.

  Args:
    model: the CAM network.
    variables: its variables, on the host.
    config: of the stage `priors`.
    context: the stage's.
    output_stride: pixels to a cell of the maps.

  Raises:
    Interrupted: a signal asked a process to stop; its share begins anew in the next call.
  """
  out, look = context.out, _Look(model, variables, config, context, output_stride)
  file = out / FILE
  if not file.is_file():
    share = _share(out, hosts.process_index())
    whole = share.is_file() or _sample(look, share)
    # Those that have made their share wait here for the others, and stop with them.
    if hosts.any_host(not whole):
      raise loop.Interrupted(0, 'LPCAM prototypes: shares that are whole are kept')
    if hosts.is_main():
      samples = _join(out, config.lpcam.positions, context.train.info.num_classes)
      weights.save(file, _choose(samples, look))
    hosts.barrier('lpcam/prototypes')
    share.unlink(missing_ok=True)
  vectors = weights.load(file)[0].get('vectors')
  shape = inference.classifier_kernel(variables).shape
  if not isinstance(vectors, np.ndarray) or vectors.shape != shape:
    raise _foreign(file)
  return vectors


def _foreign(file: Path) -> UserError:
  return UserError(f'{file} holds no prototypes of this network: remove it, and it is made anew')


def _share(out: Path, process: int) -> Path:
  return out / f'lpcam_sample_{process}_of_{hosts.process_count()}.safetensors'


def _sample(look: _Look, share: Path) -> bool:
  """Writes this process's sample, {class: {side: {'chances', 'points'}}}, unless told to stop."""
  source, settings, runtime = look.context.train, look.config.lpcam, look.context.runtime
  mine = pipeline.labelled(source)[hosts.process_index() :: hosts.process_count()]
  samples: dict[tuple[int, int], Sample] = {}
  with log.Progress(len(mine), 'LPCAM prototypes') as progress:
    for index, activation, features in _cells(look, mine):
      for p, k in enumerate(np.flatnonzero(source.labels[index])):
        high = activation[:, p] > settings.threshold
        for side, chosen in enumerate((high, ~high)):
          draws = np.random.default_rng([look.context.seed, index, int(k), side])
          sample = samples.setdefault((int(k), side), Sample(settings.positions))
          sample.add(draws.random(int(chosen.sum())), features[chosen])
      progress.advance()
      if runtime.should_stop():
        return False
  found = {}
  for (k, side), sample in samples.items():
    of_class = found.setdefault(str(k), {})
    of_class[_SIDES[side]] = {'chances': sample.chances, 'points': sample.points}
  weights.save(share, found)
  return True


def _cells(look: _Look, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  """Yields (index, map over its maximum f32[cells, P], features f16[cells, D]) of each image."""
  stride, source = look.output_stride, look.context.train

  def scale(variables: Variables, image: Array, size: Array) -> tuple[Array, Array]:
    return inference.features_and_cams(
      look.model, variables, image, size, output_stride=stride, flip=look.config.flip
    )

  # Differs from the reference: a cell belongs to the foreground by the map of this very pass;
  # because it is on the grid of the features, and the maps of all scales need a pass before.
  def fuse(results: list[tuple[Array, Array]], grid: infer.Grid) -> tuple[Array, Array, Array]:
    features, maps = results[0]
    own = jnp.take_along_axis(maps, grid.context['classes'][:, None, None, :], axis=3)
    activation = own / (own.max(axis=(1, 2), keepdims=True) + 1e-5)
    # The largest number of float16.
    return activation, jnp.minimum(features, 65504.0).astype(jnp.float16), grid.scaled[0]

  dataset = networks.colours(look.context.config.generator.model, source.info)
  network = infer.Network(scale, fuse, look.variables, dataset, infer.with_classes)
  inferred = infer.Inference(network, look.config, look.context.runtime, scales=(1.0,))(
    source,
    indices,
    context=lambda x: {'classes': infer.present(source.labels[x['index']])},
    by_classes=True,
  )
  for index, _, (activation, features, size) in inferred:
    height, width = -(-size // stride)
    yield (
      index,
      activation[:height, :width].reshape(height * width, -1),
      features[:height, :width].reshape(height * width, -1),
    )


def _join(out: Path, positions: int, num_classes: int) -> list[list[Sample]]:
  """The samples of all processes: of each class, those of foreground and context."""
  samples = [[Sample(positions) for _ in _SIDES] for _ in range(num_classes)]
  for process in range(hosts.process_count()):
    part, _ = weights.load(_share(out, process))
    try:
      for k, sides in part.items():
        for side, found in sides.items():
          samples[int(k)][_SIDES.index(side)].add(found['chances'], found['points'])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
      raise _foreign(_share(out, process)) from error
  return samples


def _choose(samples: list[list[Sample]], look: _Look) -> dict[str, np.ndarray]:
  """{'vectors': f32[D, K], 'prototypes': i32[K, 2]}."""
  config, mesh = look.config.lpcam, look.context.runtime.local_mesh
  kernel = np.asarray(inference.classifier_kernel(look.variables))
  root = keys.root_key(look.context.seed)

  def one(
    key: Array, points: Array, valid: Array, kernel: Array, index: Array
  ) -> tuple[Array, Array]:
    both = [
      lpcam.cluster(
        keys.stream(key, side), points[n], valid[n], clusters=config.clusters, steps=config.steps
      )
      for n, side in enumerate(_SIDES)
    ]
    return lpcam.class_vector(
      both[0],
      both[1],
      kernel,
      index,
      foreground_min=config.foreground_min,
      context_min=config.context_min,
      context_max=config.context_max,
    )

  compiled = compiler.jit(one, mesh)
  vectors, counts = [], []
  for k, sides in enumerate(samples):
    points = np.zeros((2, config.positions, kernel.shape[0]), np.float32)
    valid = np.zeros((2, config.positions), bool)
    for side, sample in enumerate(sides):
      number = len(sample.chances)
      valid[side, :number] = True
      if number:
        points[side, :number] = sample.points
    key = keys.stream(root, 'priors/lpcam', k)
    arguments = arrays.replicate((key, points, valid, kernel, np.int32(k)), mesh)
    vector, count = compiled(*arguments)
    vectors.append(np.asarray(vector))
    counts.append(np.asarray(count))
  return {'vectors': np.stack(vectors, axis=1), 'prototypes': np.stack(counts).astype(np.int32)}
