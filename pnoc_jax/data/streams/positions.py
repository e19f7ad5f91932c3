"""Which example stands in which row of a stream; a pure function of the row's number."""

import dataclasses
from typing import Any

import numpy as np

from pnoc_jax import errors

SHUFFLE, TRANSFORM, MIX = 0, 1, 2
"""Separate the uses of a stream's seed."""

_MANY_STEPS = 1 << 40  # A training stream has no end; grain wants a length.


@dataclasses.dataclass(frozen=True)
class Share:
  """Which part of every global batch this process reads, and how.

  Attributes:
    index: p; this process gets rows p*b to (p+1)*b of each global batch, b = B / P.
    count: P, the number of processes of the run.
    workers: worker processes that prepare batches; 0 for threads of this process.
  """

  index: int = 0
  count: int = 1
  workers: int = 0

  def rows(self, batch_size: int) -> int:
    """b = B / P, this process's rows of a global batch.

    Raises:
      UserError: the batch does not divide by the processes.
    """
    if batch_size < 1 or batch_size % self.count:
      raise errors.UserError(
        f'The batch size {batch_size} does not divide by {self.count} processes: '
        f'use a multiple of {self.count}.'
      )
    return batch_size // self.count


WHOLE = Share()
"""All of it: the share of a single process."""


class TrainPositions:
  """Maps this process's row number to (global position, index in the source).

  An epoch is a permutation of the indices or, with weights, as many draws with replacement.
  """

  def __init__(
    self,
    indices: np.ndarray,
    share: Share,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    weights: np.ndarray | None = None,
  ):
    """Notes what is drawn from; draws nothing yet.

    Args:
      indices: i64[N], the examples that are shown.
      share: this process's part of every batch.
      batch_size: B, of the global batch.
      seed: decides the order.
      start_step: the step of row 0.
      weights: f[N], how often each example is drawn, or None for permutations.
    """
    self._indices = indices
    self._chances = None if weights is None else weights / weights.sum()
    self._batch_size = batch_size
    self._rows = share.rows(batch_size)
    self._first = share.index * self._rows
    self._seed = seed
    self._start_step = start_step
    self._order: tuple[int, Any] = (-1, None)

  def __len__(self) -> int:
    return (_MANY_STEPS - self._start_step) * self._rows

  def __getitem__(self, index: int) -> tuple[int, int]:
    step, row = divmod(int(index), self._rows)
    step += self._start_step
    steps = len(self._indices) // self._batch_size
    epoch, step_in_epoch = divmod(step, steps)
    in_batch = self._first + row
    index = self._permutation(epoch)[step_in_epoch * self._batch_size + in_batch]
    return step * self._batch_size + in_batch, int(index)

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_order': (-1, None)}

  def _permutation(self, epoch: int) -> np.ndarray:
    # One tuple, read and replaced whole: threads that race only compute it twice.
    known, order = self._order
    if known != epoch:
      rng = np.random.default_rng([SHUFFLE, self._seed, epoch])
      if self._chances is None:
        order = rng.permutation(self._indices)
      else:
        order = rng.choice(self._indices, len(self._indices), p=self._chances)
      self._order = (epoch, order)
    return order


class ValidPositions:
  """Maps this process's row number to (index in the source, weight)."""

  def __init__(self, count: int, share: Share, *, batch_size: int):
    """Notes that `count` examples are shown once, in batches of `batch_size`, B, in order."""
    self._count = count
    self._batch_size = batch_size
    self._rows = share.rows(batch_size)
    self._first = share.index * self._rows

  def __len__(self) -> int:
    return -(-self._count // self._batch_size) * self._rows

  def __getitem__(self, index: int) -> tuple[int, float]:
    step, row = divmod(int(index), self._rows)
    index = step * self._batch_size + self._first + row
    return min(index, self._count - 1), float(index < self._count)
