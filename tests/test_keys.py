import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax import keys


def _data(key):
  return np.asarray(jax.random.key_data(key))


def test_streams_differ_by_name_and_step_and_are_the_same_in_every_process():
  root = keys.root_key(0)
  names = ['label_split', 'dropout', 'init']
  drawn = [_data(keys.stream(root, name, step)).tolist() for name in names for step in (None, 0, 1)]
  assert len(set(map(tuple, drawn))) == len(drawn)
  # Python's hash() would give another number in each process.
  assert _data(keys.stream(root, 'label_split', 3)).tolist() == [1571842992, 3736080840]


def test_stream_takes_traced_steps():
  root = keys.root_key(7)
  traced = jax.jit(lambda step: keys.stream(root, 'x', step))(jnp.int32(5))
  np.testing.assert_array_equal(_data(traced), _data(keys.stream(root, 'x', 5)))


def test_example_keys_depend_on_the_example_alone():
  key = keys.stream(keys.root_key(0), 'label_split', 2)
  together = keys.example_keys(key, jnp.array([4, 9, 1]))
  shuffled = keys.example_keys(key, jnp.array([1, 4, 9]))
  np.testing.assert_array_equal(_data(together), _data(shuffled[jnp.array([1, 2, 0])]))
  assert len({tuple(row) for row in _data(together).tolist()}) == 3
