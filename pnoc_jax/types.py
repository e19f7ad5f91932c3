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

# Of jax or of numpy: a function returns the kind of array that it is given.
AnyArray = TypeVar('AnyArray', Array, np.ndarray)
PyTree = Any
# {'params': ..., 'batch_stats': ...}: what `model.apply` takes.
Variables = dict[str, PyTree]
# The arrays that a step of training takes.
Batch = dict[str, Array]
# The scalars that a step of training reports, such as 'loss/total'.
Metrics = dict[str, Array]

# The label of pixels that no metric and no loss counts.
VOID = 255
