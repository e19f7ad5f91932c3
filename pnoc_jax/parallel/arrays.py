"""Arrays between the host and the mesh: batches in, states in, results out."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from pnoc_jax import errors
from pnoc_jax.parallel import mesh as mesh_lib
from pnoc_jax.parallel import sharding


def to_global(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
  """Places this process's part of a batch on the mesh, split along axis 0.

  Args:
    batch: arrays of shape `[b, ...]`, `b` the same in all of them and in every process.
    mesh: the mesh.

  Returns:
    The global batch: arrays of shape `[B, ...]`, `B` the sum of `b` over the processes that share
    it; process 0's rows come first.

  Raises:
    UserError: `b` is not a multiple of the number of local devices.
  """
  layout = sharding.batch(mesh)
  processes = mesh.shape[mesh_lib.DATA] // mesh.local_mesh.shape[mesh_lib.DATA]
  for name, x in batch.items():
    _check_divisible(name, x, mesh, processes)
  return {
    name: jax.make_array_from_process_local_data(layout, x, (len(x) * processes, *x.shape[1:]))
    for name, x in batch.items()
  }


def _check_divisible(name: str, x: np.ndarray, mesh: jax.sharding.Mesh, processes: int) -> None:
  local, total = (part.shape[mesh_lib.DATA] for part in (mesh.local_mesh, mesh))
  if np.ndim(x) == 0 or len(x) % local:
    size = 'a scalar' if np.ndim(x) == 0 else f'{len(x) * processes} examples'
    raise errors.UserError(
      f'the batch ({name!r}: {size}) cannot be split over {total} devices: make the batch size a '
      f'multiple of {total}, or run on fewer devices.'
    )


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Places the same values on every device of every process.

  Args:
    tree: arrays (numpy, jax or typed keys) or numbers. Every process must pass the same values.
      A `jax.ShapeDtypeStruct` stays what it is: a program that is only looked at has no values.
    mesh: the mesh.

  Returns:
    The tree with replicated global arrays.
  """
  layout = sharding.replicated(mesh)

  def place(x: Any) -> Any:
    if isinstance(x, jax.ShapeDtypeStruct):
      return x
    if isinstance(x, jax.Array):
      if x.sharding == layout:
        return x
      if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = place(jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    # Through numpy, because a `device_put` of a local array to a sharding over several processes
    # makes an array that orbax cannot save.
    x = np.asarray(x)
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    return jax.make_array_from_process_local_data(layout, x, x.shape)

  return jax.tree.map(place, tree)


def to_host(tree: Any) -> Any:
  """Fetches whole arrays as numpy in every process.

  If an array is split over processes, all of them must call this together.

  Args:
    tree: arrays.

  Returns:
    The tree with numpy arrays. Of an array that was split over processes, the rows of all of them.
  """

  def fetch(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
      return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)

  return jax.tree.map(fetch, tree)
