"""Names for the kinds of values that the package passes around.

Nothing here imports jax at run time: modules that data workers load may use these names.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
  import jax

  Array = jax.Array
  Key = jax.Array
else:
  Array = Any
  Key = Any

# Of jax or of numpy: a function of such arrays gives what it was given.
AnyArray = TypeVar('AnyArray', Array, np.ndarray)
PyTree = Any
# {'params': ..., 'batch_stats': ...}: what `model.apply` takes.
Variables = dict[str, PyTree]
# What a step of training takes, and what it says of itself: 'loss/total' and others.
Batch = dict[str, Array]
Metrics = dict[str, Array]

VOID = 255
"""The value of a label map's pixel that no metric and no loss counts."""
