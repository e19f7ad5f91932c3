"""A hash table of integer names with static shapes: equal entries find each other without sorting.

All entries probe in lockstep (double hashing), the first of the claimants of a slot keeps it, so
that results do not hang on the order in which a device works. Names are compared in full.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types

_WORD = 2**31


class Table(NamedTuple):
  """Entries by their names.

  Attributes:
    slots: i32[T], the entry that keeps each slot, E where nobody does; T is a power of two.
    owner: i32[E], the first entry of the same name; entries that take no part: themselves.
    valid: bool[E], the entries that take part.
  """

  slots: types.Array
  owner: types.Array
  valid: types.Array


def pack(digits: Sequence[Any], radix: Sequence[int]) -> list[Any]:
  """Writes digits into as few integers below 2^31 as hold them; linear, so names can be shifted.

  Args:
    digits: i32[...] each, in [0, radix); NumPy's or jax's.
    radix: Static bounds.

  Returns:
    Words, i32[...] each.

  Raises:
    ValueError: A digit does not fit into a word.
  """
  words, size = [], _WORD
  for digit, bound in zip(digits, radix, strict=True):
    if bound >= _WORD:
      raise ValueError(f'a digit has {bound} values, and a word holds {_WORD}')
    if size * bound >= _WORD:
      words.append(digit)
      size = bound
    else:
      words[-1] = words[-1] + digit * size
      size *= bound
  return words


def insert(names: Sequence[types.Array], valid: types.Array) -> Table:
  """Enters names into a new table.

  Args:
    names: Words i32[E] each.
    valid: bool[E], the entries that take part.

  Returns:
    The table.
  """
  chex.assert_equal_shape([*names, valid])
  e = valid.size
  size = 1 << (3 * e // 2).bit_length()
  entry = jnp.arange(e, dtype=jnp.int32)
  start, step = _hash(names)

  def probe(carry):
    turn, slots, owner, open_ = carry
    slot = _slot(start, step, turn, size)
    claim = jnp.where(open_ & (slots[slot] == e), slot, size)
    slots = slots.at[claim].min(entry, mode='drop')
    keeper = slots[slot]
    same = open_
    for name in names:
      same &= name.at[keeper].get(mode='clip') == name
    return turn + 1, slots, jnp.where(same, keeper, owner), open_ & ~same

  carry = (jnp.uint32(0), jnp.full(size, e, jnp.int32), entry, valid)
  _, slots, owner, _ = jax.lax.while_loop(lambda carry: carry[3].any(), probe, carry)
  return Table(slots, owner, valid)


def _hash(names: Sequence[types.Array]) -> tuple[types.Array, types.Array]:
  """Returns where to begin, and an odd number by which to go on: u32 each."""
  h = jnp.uint32(0)
  for name in names:
    # The rounds of MurmurHash3.
    h = (h ^ name.astype(jnp.uint32)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    h = h ^ (h >> 16)
  return h, (h * jnp.uint32(0x9E3779B1)) >> 7 | jnp.uint32(1)


def _slot(start: types.Array, step: types.Array, turn: types.Array, size: int) -> types.Array:
  return ((start + step * turn) & jnp.uint32(size - 1)).astype(jnp.int32)


def find(table: Table, names: Sequence[types.Array], wanted: Sequence[types.Array]) -> types.Array:
  """Looks names up.

  Args:
    table: From `insert`.
    names: The words that it was made of, i32[E] each.
    wanted: Words i32[...] each.

  Returns:
    i32[...]: the first entry of that name, -1 where there is none.
  """
  chex.assert_equal_shape(wanted)
  size, e = table.slots.size, table.valid.size
  start, step = _hash(wanted)

  def probe(carry):
    turn, found, open_ = carry
    keeper = table.slots[_slot(start, step, turn, size)]
    # A free slot ends the search: no entry of that name went past it.
    open_ &= keeper < e
    same = open_
    for name, want in zip(names, wanted, strict=True):
      same &= name.at[keeper].get(mode='clip') == want
    return turn + 1, jnp.where(same, keeper, found), open_ & ~same

  shape = start.shape
  carry = (jnp.uint32(0), jnp.full(shape, -1, jnp.int32), jnp.ones(shape, bool))
  return jax.lax.while_loop(lambda carry: carry[2].any(), probe, carry)[1]


def number(table: Table, capacity: int) -> tuple[types.Array, types.Array, types.Array]:
  """Numbers the distinct names from 1 on, in the order of their first entries.

  Args:
    table: From `insert`.
    capacity: More than the names that there can be.

  Returns:
    ids: i32[E], right at each name's first entry: `ids[owner]` is everybody's.
    number: i32[], 1 + the number of names.
    first: i32[capacity], the first entry of each number, 0 at those that are not given.
  """
  e = table.valid.size
  entry = jnp.arange(e, dtype=jnp.int32)
  leads = table.valid & (table.owner == entry)
  ids = _count(leads)
  first = jnp.zeros(capacity, jnp.int32)
  first = first.at[jnp.where(leads, ids, capacity)].set(entry, mode='drop')
  return ids, ids[-1] + 1, first


def _count(flags: types.Array) -> types.Array:
  """The running number of true flags: `cumsum`, which is slow on CPUs, in rows."""
  width = 512
  rows = jnp.pad(flags, (0, -flags.size % width)).reshape(-1, width)
  # Sums of at most 512 ones are exact in any precision of the accumulator.
  within = jnp.dot(
    rows.astype(jnp.float32),
    jnp.triu(jnp.ones((width, width))),
    precision=jax.lax.Precision.HIGHEST,
  ).astype(jnp.int32)
  before = jnp.cumsum(within[:, -1]) - within[:, -1]
  return (within + before[:, None]).reshape(-1)[: flags.size]
