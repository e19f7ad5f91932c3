"""A hash table of integer names with static shapes: equal entries find each other without sorting.

All entries probe in lockstep (double hashing); the few that a turn leaves go on in blocks, whose
number hangs on the data. The first of the claimants of a slot keeps it, so that results do not hang
on the order in which a device works. Names are compared in full.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from pnoc_jax import types

_WORD = 2**31
# Entries that one turn of a loop handles.
_BLOCK = 4096
# A table that names address directly may have so many slots an entry.
_SPARSE = 4


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=('slots', 'names'), meta_fields=('direct',)
)
@dataclasses.dataclass(frozen=True)
class Table:
  """The numbers of names.

  Attributes:
    slots: i32[T], the number of the name that keeps each slot, 0 where nobody does.
    names: Words i32[C] each, by number; number 0 is nobody's.
    direct: Whether names are slots; else T is a power of two.
  """

  slots: types.Array
  names: tuple[types.Array, ...]
  direct: bool


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


def number(
  names: Sequence[types.Array], valid: types.Array, capacity: int, bound: int
) -> tuple[types.Array, types.Array, Table]:
  """Numbers the distinct names from 1 on, in the order of their first entries.

  Args:
    names: Words i32[E] each, not negative.
    valid: bool[E], the entries that take part.
    capacity: C, more than the names that there can be.
    bound: All values that a name can have: if these are few, every name has a slot of its own.

  Returns:
    ids: i32[E], each entry's number; 0 at those that take no part.
    count: i32[], 1 + the number of names.
    table: The numbers by name.
  """
  chex.assert_equal_shape([*names, valid])
  e = valid.size
  entry = jnp.arange(e, dtype=jnp.int32)
  direct = len(names) == 1 and bound <= _SPARSE * e
  size = bound if direct else 1 << e.bit_length()
  slot = names[0] if direct else _slot(*_hash(names), 0, size)
  slots = jnp.full(size, e, jnp.int32).at[jnp.where(valid, slot, size)].min(entry, mode='drop')
  owner = slots.at[slot].get(mode='clip')
  if not direct:
    same = valid & _equal(names, owner, names)
    slots, owner = _resolve(names, slots, jnp.where(same, owner, entry), valid & ~same)
  leads = valid & (owner == entry)
  ids, count = _running(leads)
  ids = ids + 1
  place = jnp.where(leads, ids, capacity)
  words = (jnp.zeros(capacity, jnp.int32).at[place].set(name, mode='drop') for name in names)
  slots = jnp.where(slots < e, ids.at[slots].get(mode='clip'), 0)
  table = Table(slots, tuple(words), direct)
  return jnp.where(valid, ids.at[owner].get(mode='clip'), 0), count + 1, table


def _hash(names: Sequence[types.Array]) -> tuple[types.Array, types.Array]:
  """Returns where to begin, and an odd number by which to go on: u32 each."""
  h = jnp.uint32(0)
  for name in names:
    # The rounds of MurmurHash3.
    h = (h ^ name.astype(jnp.uint32)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    h = h ^ (h >> 16)
  return h, (h * jnp.uint32(0x9E3779B1)) >> 7 | jnp.uint32(1)


def _slot(start: types.Array, step: types.Array, turn: types.Array | int, size: int) -> types.Array:
  return ((start + step * jnp.uint32(turn)) & jnp.uint32(size - 1)).astype(jnp.int32)


def _equal(
  names: Sequence[types.Array], at: types.Array, wanted: Sequence[types.Array]
) -> types.Array:
  same = (name.at[at].get(mode='clip') == want for name, want in zip(names, wanted, strict=True))
  return functools.reduce(jnp.logical_and, same)


def _resolve(
  names: Sequence[types.Array], slots: types.Array, owner: types.Array, open_: types.Array
) -> tuple[types.Array, types.Array]:
  """Lets the entries whose first slot another name keeps find their slots and owners."""
  e, size = open_.size, slots.size

  def block(mine, carry):
    slots, owner = carry
    words = [name.at[mine].get(mode='clip') for name in names]
    start, step = _hash(words)

    def probe(carry):
      turn, slots, found, open_ = carry
      slot = _slot(start, step, turn, size)
      claim = jnp.where(open_ & (slots[slot] == e), slot, size)
      slots = slots.at[claim].min(mine, mode='drop')
      keeper = slots[slot]
      same = open_ & _equal(names, keeper, words)
      return turn + 1, slots, jnp.where(same, keeper, found), open_ & ~same

    carry = (jnp.uint32(1), slots, mine, mine < e)
    _, slots, found, _ = jax.lax.while_loop(lambda carry: carry[3].any(), probe, carry)
    return slots, owner.at[mine].set(found, mode='drop')

  return _in_blocks(open_, block, (slots, owner))


def _in_blocks(flags: types.Array, body: Callable[..., Any], carry: Any) -> Any:
  """carry <- body(the indices i32[_BLOCK] of true flags, or their number; carry), for all."""
  e = flags.size
  place, count = _running(flags)
  place = jnp.where(flags, place, e + _BLOCK)
  queue = jnp.full(e + _BLOCK, e, jnp.int32)
  queue = queue.at[place].set(jnp.arange(e, dtype=jnp.int32), mode='drop')

  def block(i, carry):
    return body(jax.lax.dynamic_slice(queue, (i * _BLOCK,), (_BLOCK,)), carry)

  return jax.lax.fori_loop(0, -(-count // _BLOCK), block, carry)


def _running(flags: types.Array) -> tuple[types.Array, types.Array]:
  """Returns how many true flags stand before each, i32[E], and in all, i32[].

  `cumsum` is slow on CPUs: here it runs over words of 32 flags only.
  """
  bit = jnp.arange(32, dtype=jnp.uint32)
  rows = jnp.pad(flags, (0, -flags.size % 32)).reshape(-1, 32)
  words = jnp.where(rows, jnp.uint32(1) << bit, jnp.uint32(0)).sum(1, dtype=jnp.uint32)
  counts = jax.lax.population_count(words).astype(jnp.int32)
  ends = jnp.cumsum(counts)
  lower = (jnp.uint32(1) << bit) - jnp.uint32(1)
  within = jax.lax.population_count(words[:, None] & lower).astype(jnp.int32)
  return (within + (ends - counts)[:, None]).reshape(-1)[: flags.size], ends[-1]


def find(table: Table, wanted: Sequence[types.Array]) -> types.Array:
  """Looks names up.

  Args:
    table: From `number`.
    wanted: Words i32[W] each.

  Returns:
    i32[W]: the number of that name, 0 where there is none.
  """
  chex.assert_equal_shape(wanted)
  slots, names = table.slots, table.names
  size = slots.size
  if table.direct:
    inside = (wanted[0] >= 0) & (wanted[0] < size)
    return jnp.where(inside, slots.at[wanted[0]].get(mode='clip'), 0)

  def look(words, start, step, turn, open_):
    keeper = slots[_slot(start, step, turn, size)]
    # A free slot ends the search: no entry of that name went past it.
    open_ &= keeper > 0
    same = open_ & _equal(names, keeper, words)
    return jnp.where(same, keeper, 0), open_ & ~same

  found, open_ = look(wanted, *_hash(wanted), 0, jnp.ones(wanted[0].shape, bool))

  def block(mine, found):
    words = [word.at[mine].get(mode='clip') for word in wanted]
    start, step = _hash(words)

    def probe(carry):
      turn, found, open_ = carry
      more, open_ = look(words, start, step, turn, open_)
      return turn + 1, found + more, open_

    carry = (jnp.uint32(1), jnp.zeros(_BLOCK, jnp.int32), mine < open_.size)
    _, more, _ = jax.lax.while_loop(lambda carry: carry[2].any(), probe, carry)
    return found.at[mine].set(more, mode='drop')

  return _in_blocks(open_, block, found)
