"""Names for the kinds of values that the package passes around, and the user's error.

Nothing here imports jax at run time: modules that data workers load may use these names.
"""

from typing import TYPE_CHECKING, Any

from pnoc_jax import errors

if TYPE_CHECKING:
  import jax

  Array = jax.Array
  Key = jax.Array
else:
  Array = Any
  Key = Any

PyTree = Any
# {'params': ..., 'batch_stats': ...}: what `model.apply` takes.
Variables = dict[str, PyTree]

# The one class, by the name that pure code uses for it.
UserError = errors.UserError
