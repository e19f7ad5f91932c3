"""Opens a dataset by its configuration."""

from pnoc_jax import errors
from pnoc_jax.data import info, shapes


def open_source(
  config: info.DatasetConfig, split: str, *, exclude: frozenset[str] = frozenset()
) -> info.Source:
  """Opens one split of a dataset.

  Args:
    config: which dataset, and where.
    split: the split's name.
    exclude: ids to leave out, e.g. of files that a check found broken.

  Returns:
    The source of its examples.

  Raises:
    UserError: the dataset is not there or not whole; the message lists what is wrong.
  """
  if config.name is info.DatasetName.SHAPES:
    return shapes.ShapesSource(config.shapes, split, exclude=exclude)
  if config.name is info.DatasetName.FOLDER:
    from pnoc_jax.data import folder

    return folder.FolderSource(config.root, split, exclude=exclude)
  raise errors.UserError(
    f'dataset.name is {config.name!r}; known: {", ".join(x.value for x in info.DatasetName)}'
  )
