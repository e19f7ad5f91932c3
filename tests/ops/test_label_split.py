import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import keys
from pnoc_jax.ops import label_split

_LABEL = jnp.array(
  [[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], jnp.float32
)
_ALL = list(label_split.Strategy)


def _keys(index, step=0):
  key = keys.stream(keys.root_key(0), 'label_split', step)
  return keys.example_keys(key, jnp.asarray(index))


def _frequencies(state, strategy, **options):
  label = jnp.tile(jnp.array([1.0, 0.0, 1.0, 1.0]), (4000, 1))
  split = jax.jit(lambda k: label_split.split_label(k, label, state, strategy=strategy, **options))
  return np.asarray(split(_keys(np.arange(4000)))[0].mean(0))


@pytest.mark.parametrize('strategy', _ALL)
def test_one_present_class_a_row_and_none_where_there_is_none(strategy):
  state = label_split.init_label_split(5)
  picked, new = label_split.split_label(_keys(np.arange(4)), _LABEL, state, strategy=strategy)
  np.testing.assert_array_equal(picked.sum(1), [1, 1, 0, 1])
  assert np.all(np.asarray(picked) <= np.asarray(_LABEL))
  np.testing.assert_array_equal(new.choices, 1 + picked.sum(0))
  np.testing.assert_array_equal(new.focal, 1)


@pytest.mark.parametrize('strategy', _ALL)
def test_a_draw_depends_on_the_example_not_on_its_place(strategy):
  state = label_split.init_label_split(5)
  order = np.array([3, 0, 2, 1])
  index = np.array([10, 11, 12, 13])
  picked, _ = label_split.split_label(_keys(index), _LABEL, state, strategy=strategy)
  moved, _ = label_split.split_label(_keys(index[order]), _LABEL[order], state, strategy=strategy)
  np.testing.assert_array_equal(moved, picked[order])


def test_random_is_uniform_and_changes_with_the_step():
  state = label_split.init_label_split(4)
  frequencies = _frequencies(state, label_split.Strategy.RANDOM)
  np.testing.assert_allclose(frequencies, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
  label = jnp.ones((64, 4))
  first, second = (
    label_split.split_label(_keys(np.arange(64), step), label, state)[0] for step in (0, 1)
  )
  assert not np.array_equal(first, second)


def test_balanced_and_focal_draw_with_their_probabilities():
  state = label_split.LabelSplitState(
    choices=jnp.array([2.0, 1.0, 4.0, 8.0]), focal=jnp.array([0.5, 9.0, 0.0, 1.5])
  )
  balanced = _frequencies(state, label_split.Strategy.BALANCED)
  np.testing.assert_allclose(balanced, [4 / 7, 0, 2 / 7, 1 / 7], atol=0.03)
  squared = _frequencies(state, label_split.Strategy.BALANCED, gamma=2.0)
  np.testing.assert_allclose(squared, [16 / 21, 0, 4 / 21, 1 / 21], atol=0.03)
  focal = _frequencies(state, label_split.Strategy.FOCAL)
  np.testing.assert_allclose(focal, [0.25, 0, 0, 0.75], atol=0.03)


def test_least_chosen_takes_the_smallest_counter_then_the_first():
  state = label_split.init_label_split(5).replace(choices=jnp.array([3.0, 1.0, 2.0, 2.0, 1.0]))
  picked, _ = label_split.split_label(
    _keys(np.arange(4)), _LABEL, state, strategy=label_split.Strategy.LEAST_CHOSEN
  )
  np.testing.assert_array_equal(np.asarray(picked).argmax(1)[[0, 1, 3]], [2, 1, 4])


def test_focal_factor_follows_its_formula():
  rng = np.random.default_rng(0)
  z = rng.normal(size=(4, 5))
  label = np.array(_LABEL)
  rest = label.copy()
  rest[0, 2] = rest[3, 4] = 0
  state = label_split.init_label_split(5).replace(focal=jnp.arange(1.0, 6.0))
  p = 1 / (1 + np.exp(-z))
  missed = np.where(rest == 1, 1 - p, p)
  label[:, 4] = 0
  expected = np.arange(1.0, 6.0)
  for c in range(4):
    expected[c] = 0.8 * expected[c] + 0.2 * (missed[:, c] ** 3).sum() / label[:, c].sum()
  new = label_split.update_focal(
    state, jnp.asarray(z), jnp.asarray(rest), jnp.asarray(label), momentum=0.8, gamma=3.0
  )
  # The last class is not in the batch: it keeps its factor.
  np.testing.assert_allclose(new.focal, expected, rtol=1e-5)
