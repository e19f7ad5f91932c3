"""The device mesh: one axis, `data`, over all devices of all processes, or over a batch's share."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import sharding

COPY, DATA = 'copy', 'data'


def make_mesh(
  devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> sharding.Mesh:
  """Makes the mesh that every array of the program lives on.

  Args:
    devices: the devices to use; all devices of all processes by default.

  Returns:
    A mesh of shape `(len(devices),)` with the axis `data`, process after process.
  """
  devices = jax.devices() if devices is None else list(devices)
  return _mesh(np.array(by_process(devices)).reshape(-1), (DATA,))


def by_process(devices: Sequence[Any]) -> list[list[Any]]:
  """Returns the devices of each process, process 0 first.

  `jax.make_mesh` orders the chips of a TPU along a ring. On a v5e slice of 4 x 4 chips the ring
  enters a host twice, and a host's rows of a batch would not be neighbours.

  Args:
    devices: with a `process_index` and an `id`.
  """
  ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
  return [
    list(group) for _, group in itertools.groupby(ordered, lambda device: device.process_index)
  ]


def _mesh(devices: np.ndarray, axes: tuple[str, ...]) -> sharding.Mesh:
  # Auto: the compiler decides how intermediate arrays are laid out. With AxisType.Explicit, the
  # default of recent versions of JAX, the reshape of the puzzle's tiles cannot be traced.
  return sharding.Mesh(devices, axes, axis_types=(sharding.AxisType.Auto,) * len(axes))


class Spread(NamedTuple):
  """How a batch is split over the devices of a run.

  Attributes:
    copies: so many groups of processes compute the batch, each the whole of it; 1 as long as every
      process can have a part of its own.
    processes: that share the batch, in each group.
    devices: of each process that work; its other ones are idle.
  """

  copies: int
  processes: int
  devices: int

  @property
  def parts(self) -> int:
    """Devices that a batch is split over."""
    return self.processes * self.devices


def spread(batch_size: int, processes: int, devices: int) -> Spread:
  """Splits a batch into as many equal parts as there are devices for.

  Every process takes part, because all of them save and stop together. If there are more processes
  than the batch has equal parts, groups of them compute the same.

  Args:
    batch_size: B, of the global batch.
    processes: of the run.
    devices: of each process.

  Returns:
    The most parts; of equal ones, that with the fewest copies.
  """
  _, sharing, working = max(
    (shared * used, shared, used)
    for shared in range(1, processes + 1)
    if math.gcd(batch_size, processes) % shared == 0
    for used in range(1, devices + 1)
    if batch_size % (shared * used) == 0
  )
  return Spread(processes // sharing, sharing, working)


def spread_on(mesh: sharding.Mesh, batch_size: int) -> Spread:
  """Splits a batch over the devices of a mesh; see `spread`."""
  processes = by_process(list(mesh.devices.flat))
  return spread(batch_size, len(processes), min(len(devices) for devices in processes))


def for_batch(mesh: sharding.Mesh, batch_size: int) -> sharding.Mesh:
  """Makes the part of a mesh that a batch can be split over.

  Args:
    mesh: all devices, as of `make_mesh`.
    batch_size: B, of the global batch.

  Returns:
    The mesh itself if the batch divides by its devices. Otherwise one whose axis `data` divides the
    batch; where processes compute copies of the batch, the axis `copy` comes before it.
  """
  copies, processes, devices = spread_on(mesh, batch_size)
  working = np.array([own[:devices] for own in by_process(list(mesh.devices.flat))])
  if copies == 1:
    return mesh if working.size == mesh.size else _mesh(working.reshape(-1), (DATA,))
  return _mesh(working.reshape(copies, processes * devices), (COPY, DATA))
