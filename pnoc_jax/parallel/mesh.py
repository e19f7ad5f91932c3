"""The device mesh: one axis, `data`, over all devices of all processes."""

from collections.abc import Sequence

import jax
from jax import sharding

DATA = 'data'


def make_mesh(
  devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> sharding.Mesh:
  """Makes the mesh that every array of the program lives on.

  Args:
    devices: the devices to use; all devices of all processes by default.

  Returns:
    A mesh of shape `(len(devices),)` with the axis `data`.
  """
  devices = jax.devices() if devices is None else list(devices)
  # Auto: the compiler decides how intermediate arrays are laid out. With AxisType.Explicit, the
  # default of recent versions of JAX, the reshape of the puzzle's tiles cannot be traced.
  return jax.make_mesh(
    (len(devices),), (DATA,), axis_types=(sharding.AxisType.Auto,), devices=devices
  )
