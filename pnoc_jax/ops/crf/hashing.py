"""A hash table of integer names with static shapes: equal entries find each other without sorting.

All entries look at their first slot at once. The few whose slot another name holds look at their
next slots (double hashing) in blocks; the number of blocks depends on the data. Of several entries
that want a free slot, the one with the lowest index gets it, so the result does not depend on the
order in which a device works. Names are compared in full, not by their hashes.
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
_BLOCK = 4096  # Entries that one iteration of a loop handles.
# A table in which each name is the index of its slot may have this many slots for each entry.
_SPARSE = 4


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=('slots', 'names'), meta_fields=('direct',)
)
@dataclasses.dataclass(frozen=True)
class Table:
  """The numbers of names.

  Attributes:
    slots: i32[T], the number of the name in each slot; 0 in a free slot.
    names: The words of the names by their numbers, i32[C] each; no name has the number 0.
    direct: Whether a name is the index of its slot. Otherwise names are hashed, and T is a power of
      two.
  """

  slots: types.Array
  names: tuple[types.Array, ...]
  direct: bool


def pack(digits: Sequence[Any], radix: Sequence[int]) -> list[Any]:
  """Writes digits into as few integers below 2^31 (words) as can hold them.

  It is linear: the words of a sum of digits are the sum of the words.

  Args:
    digits: i32[...] each, in [0, radix), of NumPy or of jax.
    radix: The bounds of the digits.

  Returns:
    The words, i32[...] each.

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
  """Gives the distinct names the numbers 1, 2, ..., in the order of their first entries.

  Args:
    names: The words of each entry's name, i32[E] each, not negative.
    valid: bool[E], the entries that take part.
    capacity: C, larger than the number of distinct names.
    bound: How many values a name can have. If they are few, every name has a slot of its own.

  Returns:
    ids: i32[E], the number of each entry's name; 0 at entries that take no part.
    count: i32[], 1 + the number of distinct names.
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
  """Returns the first slot and the step to the next ones, u32 each; the step is odd."""
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
  """Finds slots and owners for the entries `open_`, whose first slot another name holds."""
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
  """Calls `carry = body(indices, carry)` until it has seen the indices of all true flags.

  `indices` is i32[_BLOCK]; the last call's is filled up with E, the number of flags.
  """
  e = flags.size
  place, count = _running(flags)
  place = jnp.where(flags, place, e + _BLOCK)
  queue = jnp.full(e + _BLOCK, e, jnp.int32)
  queue = queue.at[place].set(jnp.arange(e, dtype=jnp.int32), mode='drop')

  def block(i, carry):
    return body(jax.lax.dynamic_slice(queue, (i * _BLOCK,), (_BLOCK,)), carry)

  return jax.lax.fori_loop(0, -(-count // _BLOCK), block, carry)


def _running(flags: types.Array) -> tuple[types.Array, types.Array]:
  """Returns the number of true flags before each one, i32[E], and of all of them, i32[].

  `cumsum` is slow on CPUs, so it runs over words of 32 flags here.
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
  """Looks up the numbers of names.

  Args:
    table: From `number`.
    wanted: The words of the names, i32[W] each.

  Returns:
    i32[W]; 0 for a name that is not in the table.
  """
  chex.assert_equal_shape(wanted)
  slots, names = table.slots, table.names
  size = slots.size
  if table.direct:
    inside = (wanted[0] >= 0) & (wanted[0] < size)
    return jnp.where(inside, slots.at[wanted[0]].get(mode='clip'), 0)

  def look(words, start, step, turn, open_):
    keeper = slots[_slot(start, step, turn, size)]
    # A free slot ends the search, because an entry of this name would have taken it.
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
