"""The two layouts of the program: the same on every device, or split along the batch."""

import enum

import jax

from pnoc_jax.parallel import mesh as mesh_lib


class Layout(enum.Enum):
  """How an array lies on the mesh.

  Attributes:
    REPLICATED: every device holds all of it.
    BATCH: axis 0 is split over the devices.
  """

  REPLICATED = 'replicated'
  BATCH = 'batch'


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding of states and metrics: every device holds all of it."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def batch(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding of batches: axis 0 is split over the devices."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh_lib.DATA))


def of(layout: Layout, mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding that a layout means on a mesh."""
  return batch(mesh) if layout is Layout.BATCH else replicated(mesh)
