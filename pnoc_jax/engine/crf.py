"""The dense CRF over many images: in buckets, on all local devices or cores, in order."""

import abc
import collections
import concurrent.futures
import dataclasses
import functools
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import buckets
from pnoc_jax.engine import infer, memory
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.ops import crf
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel import hosts
from pnoc_jax.parallel import mesh as mesh_lib
from pnoc_jax.types import Array

# Images in work at once on a CPU: each holds its lattice, some 100 MB for a photograph.
_MOST_THREADS = 16
_AT_MOST = 1000
"""Bytes to a pixel and label that no lattice needs: images that fit with it are not looked at."""
_LATTICE = 1.6
"""What a lattice needs more than `forward_bytes` says: measured, 175 for 110 MiB, 4 labels, CPU."""


@dataclasses.dataclass(slots=True)
class CrfConfig:
  """A dense CRF; the defaults are the reference's for label maps.

  Attributes:
    steps: of mean field; 0 is no CRF at all.
    confidence: probability that a given label is right.
    gaussian_sxy: width of the spatial kernel, px.
    gaussian_compat: its Potts weight.
    bilateral_sxy: spatial width of the bilateral kernel, px.
    bilateral_srgb: its width in colour, grey levels of 0..255.
    bilateral_compat: its Potts weight.
    filter: the lattice, as the reference; or all pairs of pixels, in quadratic time.
  """

  steps: int = 10
  confidence: float = 0.7
  gaussian_sxy: float = crf.LABELS.gaussian_sxy
  gaussian_compat: float = crf.LABELS.gaussian_compat
  bilateral_sxy: float = crf.LABELS.bilateral_sxy
  bilateral_srgb: float = crf.LABELS.bilateral_srgb
  bilateral_compat: float = crf.LABELS.bilateral_compat
  filter: crf.Filter = crf.Filter.LATTICE

  @property
  def kernels(self) -> crf.Kernels:
    """The two kernels."""
    return crf.Kernels(
      **{field.name: getattr(self, field.name) for field in dataclasses.fields(crf.Kernels)}
    )


def faults(name: str, config: CrfConfig) -> list[str]:
  """What is wrong with a CRF's config, in words.

  Args:
    name: the field of the run's config that holds it, e.g. `pseudo_masks.crf`.
    config: the CRF.
  """
  found = []
  if config.steps < 0:
    found.append(f'{name}.steps is {config.steps}; use 0 for no CRF, or more')
  if not 0 < config.confidence < 1:
    found.append(f'{name}.confidence is {config.confidence}; it lies in (0, 1)')
  for width in ('gaussian_sxy', 'bilateral_sxy', 'bilateral_srgb'):
    if getattr(config, width) <= 0:
      found.append(f'{name}.{width} is {getattr(config, width)}; widths are positive')
  return found


def work(config: CrfConfig, images: memory.Images) -> memory.Work:
  """Estimates what a CRF holds of each image in work; compiles nothing.

  Args:
    config: the CRF.
    images: the largest one, and its classes beside the background.
  """
  (height, width), labels = images.largest, images.classes + 1
  labels = 1 << max(labels - 1, 1).bit_length()
  platform = jax.local_devices()[0].platform
  # On a TPU the lattice runs on the host.
  here = platform == 'cpu' or (platform == 'tpu' and config.filter is crf.Filter.LATTICE)
  cores = min(os.cpu_count() or 1, _MOST_THREADS)
  pixels, at_once = height * width, cores if here else 2 * len(jax.local_devices())
  need = pixels * labels * _AT_MOST
  if at_once * need > memory.SHARE * memory.host_bytes():
    image = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
    unary = jax.ShapeDtypeStruct((height, width, labels), jnp.float32)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    one = memory.forward_bytes(functools.partial(_most_probable, config), image, unary, size)
    need = int(_LATTICE * one)
  host = pixels * (3 + 4 * labels)
  if here:
    need, host = 0, need + host
  return memory.Work('CRF', need, host, at_once, images)


def works(config: CrfConfig, images: memory.Images) -> tuple[memory.Work, ...]:
  """`work`, or nothing where there is no CRF."""
  return (work(config, images),) if config.steps else ()


def most_labels(source: info.Source) -> int:
  """Most labels that an image of a split may have, the background among them."""
  return int(source.labels.sum(axis=1).max(initial=0)) + 1


def _threads(devices: Sequence[Any]) -> int:
  if devices[0].platform == 'cpu':
    return min(os.cpu_count() or 1, _MOST_THREADS)
  return 2 * len(devices)


def _most_probable(config: CrfConfig, image: Array, unary: Array, size: Array) -> Array:
  """The most probable labels i32[Hb, Wb] of an image that fills `size` of its bucket."""
  height, width = image.shape[:2]
  valid = (jnp.arange(height) < size[0])[:, None] & (jnp.arange(width) < size[1])
  marginals = crf.dense_crf(
    unary,
    image,
    valid,
    steps=config.steps,
    kernels=config.kernels,
    filter=config.filter,
  )
  return jnp.argmax(marginals, -1).astype(jnp.int32)


class _Crf(abc.ABC):
  """Runs an image a thread; a new size compiles nothing once its bucket has been seen."""

  def __init__(
    self,
    config: CrfConfig,
    runtime: Runtime,
    sizes: Iterable[buckets.Size],
    *,
    devices: Sequence[Any] | None = None,
    threads: int | None = None,
    labels: int = 8,
  ):
    """Plans the buckets; compiles nothing.

    Args:
      config: the CRF.
      runtime: of the run; its local devices are used.
      sizes: (H, W) of all images that may come.
      labels: most labels of an image, for the estimate of its memory.
      devices: use these instead. By default all local ones, and for the lattice on a TPU the host's
        CPU; of CPU devices one, for they are the same cores.
      threads: images in work at once. By default the number of cores, on other devices two a
        device, so that one's transfers hide behind the other's work; fewer, with a warning, where
        the memory does not suffice.
    """
    if devices is None:
      devices = _devices(config, runtime)
    self._config = config
    sizes = list(sizes)
    self._buckets = buckets.plan_buckets(sizes)
    self._threads = max(threads or _threads(devices), len(devices))
    if threads is None and sizes and config.steps:
      images = memory.Images(max(sizes, key=math.prod), labels - 1)
      need = work(config, images)._replace(at_once=self._threads)
      fitting = need.fitting(len(devices))
      if fitting < self._threads:
        warnings.warn(need.describe(fitting), stacklevel=1)
        self._threads = max(fitting, 1)
    self._programs = [compiler.jit(self._refine, mesh_lib.make_mesh([x])) for x in devices]
    self._ready, self._compiling = set(), threading.Lock()

  @property
  def traces(self) -> int:
    """How many programs were made."""
    return sum(program.traces for program in self._programs)

  def calls(self, images: infer.Images, *, labels: int, times: int = 1) -> list[compiler.Call]:
    """The program that refines images, as if all were in the bucket that most of them are in.

    Args:
      images: those wanted.
      labels: that an image may have, background included; rounded up to a power of two.
      times: how often each image is refined.
    """
    found = collections.Counter(
      buckets.choose(source.size(i), self._buckets) for source, indices in images for i in indices
    )
    if not found or not self._config.steps:
      return []
    size, width = found.most_common(1)[0][0], self._width(labels)
    arguments = (
      jax.ShapeDtypeStruct((*size, 3), np.uint8),
      self._evidence(size, width),
      jax.ShapeDtypeStruct((width,), np.bool_),
      jax.ShapeDtypeStruct((2,), np.int32),
    )
    often, together = times * found.total(), len(self._programs)
    return [compiler.Call('crf', self._programs[0], arguments, 1, often, together)]

  @abc.abstractmethod
  def _evidence(self, size: buckets.Size, width: int) -> jax.ShapeDtypeStruct:
    """Shape of what `_unary` is given."""

  def _width(self, labels: int) -> int:
    """Labels of the program that refines an image of so many."""
    return labels

  @abc.abstractmethod
  def _unary(self, evidence: Array, present: Array) -> Array:
    """Energies of the labels, f32[H, W, n]."""

  def _refine(self, image: Array, evidence: Array, present: Array, size: Array) -> Array:
    return _most_probable(self._config, image, self._unary(evidence, present), size)

  def _infer(
    self, number: int, image: np.ndarray, evidence: np.ndarray, present: np.ndarray
  ) -> np.ndarray:
    """Refines the image that came as the given number: i32[H, W]."""
    size = image.shape[:2]
    bucket = buckets.choose(size, self._buckets)
    rest = [(0, b - n) for b, n in zip(bucket, size, strict=True)]
    image = np.pad(image, [*rest, (0, 0)])
    evidence = np.pad(evidence, [*rest, (0, 0)][: evidence.ndim])
    device = number % len(self._programs)
    program = self._programs[device]
    arguments = image, evidence, present, np.asarray(size, np.int32)
    shape = device, bucket, len(present)
    if shape in self._ready:
      labels = program(*arguments)
    else:
      # Of threads that meet a new shape together, one compiles.
      with self._compiling:
        labels = program(*arguments)
        self._ready.add(shape)
    return np.asarray(labels)[: size[0], : size[1]]

  def _spread(
    self, work: Callable[..., np.ndarray], items: Iterable[tuple]
  ) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields (key, work(number, *rest)) of each item (key, *rest), in the order of the items."""
    ahead = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
      try:
        for number, (key, *rest) in enumerate(items):
          ahead.append((key, pool.submit(work, number, *rest)))
          if len(ahead) > 2 * self._threads:
            key, result = ahead.popleft()
            yield key, result.result()
        while ahead:
          key, result = ahead.popleft()
          yield key, result.result()
      finally:
        # Nobody waits for what follows an error or the last image wanted.
        for _, result in ahead:
          result.cancel()


def _devices(config: CrfConfig, runtime: Runtime) -> Sequence[Any]:
  """The devices that refine images."""
  devices = list(runtime.local_mesh.devices.flat)
  if devices[0].platform == 'tpu' and config.filter is crf.Filter.LATTICE and config.steps:
    # A TPU pads a vertex's few labels to 128, and adds to vertices one after the other.
    try:
      devices = jax.local_devices(backend='cpu')
      said = f"the host's {os.cpu_count()} cores, which suit its lattice better than a TPU"
    except RuntimeError:
      said = (
        "the TPU, slowly: JAX_PLATFORMS hides the host's CPU, which suits its lattice better; "
        'leave it out, or set it to tpu,cpu'
      )
    if hosts.is_main():
      print(f'  the dense CRF runs on {said}', flush=True)
  return devices[:1] if devices[0].platform == 'cpu' else devices


class LabelCrf(_Crf):
  """Refines label maps that are right with the config's `confidence`."""

  def __call__(
    self, items: Iterable[tuple[Any, np.ndarray, np.ndarray, int]]
  ) -> Iterator[tuple[Any, np.ndarray]]:
    """Refines images one after another; reads a few ahead.

    Args:
      items: of (key, image u8[H, W, 3], labels u8 or i32[H, W] in 0..n-1, n): a key is whatever
        shall come back with the result, n the number of labels that the image may have.

    Yields:
      (key, labels i32[H, W]) in the order of the items.
    """
    return self._spread(self._one, items)

  def _one(self, number: int, image: np.ndarray, labels: np.ndarray, num_labels: int) -> np.ndarray:
    labels = np.asarray(labels, np.int32)
    if labels.shape != image.shape[:2] or labels.max() >= num_labels:
      raise ValueError(
        f'labels are {labels.shape}, at most {labels.max()}; expected {image.shape[:2]} as the '
        f'image, below {num_labels}'
      )
    if not self._config.steps:
      return labels
    width = self._width(num_labels)
    return self._infer(number, image, labels, np.arange(width) < num_labels)

  def _width(self, labels: int) -> int:
    # Images of 5 to 8 labels share a program.
    return 1 << max(labels - 1, 1).bit_length()

  def _evidence(self, size: buckets.Size, width: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(size, np.int32)

  def _unary(self, evidence: Array, present: Array) -> Array:
    return crf.label_unary(evidence, len(present), self._config.confidence, present=present)


class SoftmaxCrf(_Crf):
  """Refines probabilities, taken as they are: `confidence` is not of them."""

  def __call__(
    self, items: Iterable[tuple[Any, np.ndarray, np.ndarray]]
  ) -> Iterator[tuple[Any, np.ndarray]]:
    """Refines images one after another; reads a few ahead.

    Args:
      items: of (key, image u8[H, W, 3], probabilities f32[H, W, n]).

    Yields:
      (key, labels i32[H, W]) in the order of the items.
    """
    return self._spread(self._one, items)

  def _one(self, number: int, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    probabilities = np.asarray(probabilities, np.float32)
    if probabilities.shape[:2] != image.shape[:2]:
      raise ValueError(f'probabilities are {probabilities.shape}, the image {image.shape}')
    if not self._config.steps:
      return probabilities.argmax(-1).astype(np.int32)
    return self._infer(number, image, probabilities, np.ones(probabilities.shape[-1], bool))

  def _evidence(self, size: buckets.Size, width: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*size, width), np.float32)

  def _unary(self, evidence: Array, present: Array) -> Array:
    return crf.softmax_unary(evidence, present=present)
