import string

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnoc_jax import errors, trees

_PARAMS = {
  'backbone': {'conv': {'kernel': np.ones((3, 3, 2, 4), np.float32)}, 'bn': {'bias': np.ones(4)}},
  'classifier': {'kernel': np.ones((4, 5), np.float32)},
}

_NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=3)


@settings(deadline=None, max_examples=30)
@given(
  st.dictionaries(
    _NAMES,
    st.recursive(
      st.integers(), lambda x: st.dictionaries(_NAMES, x, min_size=1, max_size=3), max_leaves=6
    ),
    max_size=4,
  )
)
def test_unflatten_names_inverts_flatten_names(tree):
  assert trees.unflatten_names(trees.flatten_names(tree)) == tree


def test_flatten_names_sees_dataclasses_and_sequences():
  @flax.struct.dataclass
  class Pair:
    first: list
    second: int

  assert trees.flatten_names({'a': Pair([1, 2], 3)}) == {
    'a/first/0': 1,
    'a/first/1': 2,
    'a/second': 3,
  }
  with pytest.raises(errors.UserError, match='a/b'):
    trees.flatten_names({'a': {'b': 1}, 'a/b': 2})


@pytest.mark.parametrize('named', [{'a': 1, 'a/b': 2}, {'a/b': 2, 'a': 1}])
def test_unflatten_names_refuses_a_leaf_with_children(named):
  with pytest.raises(errors.UserError, match='leaf'):
    trees.unflatten_names(named)


def test_label_names_takes_the_first_match_of_the_whole_name():
  rules = [('.*/bias', 'b'), ('backbone/.*', 'w'), ('kernel', 'never'), ('.*', 'rest')]
  labels = trees.label_names(_PARAMS, rules, allow_unused=['kernel'])
  assert labels == {
    'backbone': {'conv': {'kernel': 'w'}, 'bn': {'bias': 'b'}},
    'classifier': {'kernel': 'rest'},
  }


def test_label_names_refuses_holes_and_dead_rules():
  with pytest.raises(errors.UserError, match='classifier/kernel'):
    trees.label_names(_PARAMS, [('backbone/.*', 'w')])
  with pytest.raises(errors.UserError, match='bakcbone'):
    trees.label_names(_PARAMS, [('bakcbone/.*', 'w'), ('.*', 'rest')])
  with pytest.raises(errors.UserError, match='bakcbone'):
    trees.label_names(_PARAMS, [('bakcbone/.*', 'w'), ('.*', 'r')], allow_unused=['other'])


def test_merge_strict_takes_values_into_the_structure_of_the_target():
  target = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, _PARAMS))
  source = jax.tree.map(lambda x: np.asarray(x * 2, np.float32), _PARAMS)
  for given_as in (source, trees.flatten_names(source)):
    merged = trees.merge_strict(target, given_as)
    jax.tree.map(np.testing.assert_array_equal, merged, source)


def test_merge_strict_names_every_difference():
  source = {
    'backbone': {'conv': {'kernel': np.ones((3, 3, 4, 2), np.float32)}, 'norm': {'bias': 1.0}},
    'classifier': {'kernel': np.ones((4, 5), np.float16)},
  }
  with pytest.raises(errors.UserError) as error:
    trees.merge_strict(_PARAMS, source)
  for part in (
    'expected and not found: backbone/bn/bias',
    'found and not expected: backbone/norm/bias',
    'backbone/conv/kernel (expected float32[3, 3, 2, 4], found float32[3, 3, 4, 2])',
    'classifier/kernel (expected float32[4, 5], found float16[4, 5])',
  ):
    assert part in str(error.value)


def test_count_is_of_scalars():
  assert trees.count(_PARAMS) == 72 + 4 + 20
  assert trees.count(jax.eval_shape(lambda: jnp.zeros((2, 3)))) == 6
