"""What a profile says of an inference: how long a device worked, and why it did not."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import overlap
from pnoc_jax.errors import UserError

_S = 1e9


def _spans(*seconds):
  return [overlap.Interval(a * _S, b * _S) for a, b in seconds]


def test_time_without_a_program_is_compilation_or_a_gap():
  # Two programs on two threads at once, and one within another.
  ran = _spans((1, 3), (2, 4), (6, 7), (6.25, 6.5), (10, 12))
  found = overlap.judge(ran, _spans((0, 1.5), (4.5, 5), (8, 11)))
  assert found.seconds == 11
  assert found.busy == 3 + 1 + 2
  # Of 4 to 6 half a second, of 7 to 10 two; before the first program and beside others none.
  assert found.compiling == 2.5
  assert found.gaps == (1, 1, 0.5)


def test_without_programs_there_is_nothing_to_say():
  with pytest.raises(UserError, match='no program'):
    overlap.judge([], _spans((1, 2)))


def test_a_profile_of_a_program_is_read(tmp_path):
  work = jax.jit(lambda x: (x @ x).sum())
  x = jnp.ones((400, 400))
  work(x).block_until_ready()
  with jax.profiler.trace(tmp_path):
    for _ in range(3):
      work(x).block_until_ready()
  found = overlap.read(tmp_path)
  assert 0 < found.busy <= found.seconds
  assert found.busy + found.compiling + sum(found.gaps) == pytest.approx(found.seconds)
