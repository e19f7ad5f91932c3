"""Random keys: all are derived from one root key by the purpose, the step and the example."""

import zlib

import chex
import jax

from pnoc_jax import types


def root_key(seed: int) -> types.Key:
  """Returns the one key of a run; every other key is derived from it and none is stored."""
  return jax.random.key(seed)


def stream(root: types.Key, name: str, step: int | types.Array | None = None) -> types.Key:
  """Returns the key of one purpose, at one step.

  The key depends on nothing else, so resuming a run or adding a purpose cannot change a draw.

  Args:
    root: The key of the run.
    name: The purpose, e.g. `'label_split'`. It is hashed, so the order of use is irrelevant.
    step: The step of the draw (int or i32[]), or None for a draw made once.

  Returns:
    A key.

  Example:
    `keys.stream(root, 'label_split', state.step)`
  """
  # crc32 rather than hash(): the latter differs from process to process.
  key = jax.random.fold_in(root, zlib.crc32(name.encode()))
  return key if step is None else jax.random.fold_in(key, step)


def example_keys(key: types.Key, index: types.Array) -> types.Key:
  """Returns a key for each example, which does not depend on its place in the batch or its device.

  Args:
    key: The key of this purpose at this step.
    index: i32[B], each example's index in its data set.

  Returns:
    Key[B].
  """
  chex.assert_rank(index, 1)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
