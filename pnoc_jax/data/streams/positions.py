"""Which example stands in which row of a stream; a pure function of the row's number."""

import numpy as np

SHUFFLE, TRANSFORM, MIX = 0, 1, 2
"""Separate the uses of a stream's seed."""

_MANY_STEPS = 1 << 40  # A training stream has no end; grain wants a length.


class TrainPositions:
  """Maps this process's row number to (global position, index in the source).

  An epoch is a permutation of the indices or, with weights, as many draws with replacement.
  """

  def __init__(self, indices, *, batch_size, rows, seed, start_step, process_index, weights=None):
    self._indices = indices
    self._chances = None if weights is None else weights / weights.sum()
    self._batch_size = batch_size
    self._rows = rows
    self._seed = seed
    self._start_step = start_step
    self._process_index = process_index
    self._order = (-1, None)

  def __len__(self):
    return (_MANY_STEPS - self._start_step) * self._rows

  def __getitem__(self, row):
    step, row = divmod(int(row), self._rows)
    step += self._start_step
    steps = len(self._indices) // self._batch_size
    epoch, step_in_epoch = divmod(step, steps)
    in_batch = self._process_index * self._rows + row
    index = self._permutation(epoch)[step_in_epoch * self._batch_size + in_batch]
    return step * self._batch_size + in_batch, int(index)

  def __getstate__(self):
    return {**self.__dict__, '_order': (-1, None)}

  def _permutation(self, epoch):
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

  def __init__(self, count, *, batch_size, rows, process_index):
    self._count = count
    self._batch_size = batch_size
    self._rows = rows
    self._process_index = process_index

  def __len__(self):
    return -(-self._count // self._batch_size) * self._rows

  def __getitem__(self, row):
    step, row = divmod(int(row), self._rows)
    index = step * self._batch_size + self._process_index * self._rows + row
    return min(index, self._count - 1), float(index < self._count)
