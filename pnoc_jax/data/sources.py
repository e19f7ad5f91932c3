"""Opens a dataset by its configuration."""

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data.readers import cityscapes, coco, deepglobe, folder, hpa, shapes, tfds, voc

_PUBLIC = {
  info.DatasetName.VOC12: voc,
  info.DatasetName.COCO14: coco,
  info.DatasetName.CITYSCAPES: cityscapes,
  info.DatasetName.DEEPGLOBE: deepglobe,
  info.DatasetName.HPA: hpa,
}


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
  packed = config.source is info.Storage.TFDS
  if packed or config.name not in _PUBLIC:
    unused = [x for x in ('lists', 'labels', 'masks') if getattr(config, x)]
    if unused:
      raise errors.UserError(
        f'dataset.{unused[0]} is given, but {"what is packed" if packed else config.name.value} '
        f'has its own {unused[0]}: leave it empty'
      )
  if packed:
    return tfds.open_source(config, split, exclude=exclude)
  if config.name is info.DatasetName.SHAPES:
    return shapes.ShapesSource(config.shapes, split, exclude=exclude)
  if config.name is info.DatasetName.FOLDER:
    return folder.FolderSource(config.root, split, exclude=exclude)
  return _PUBLIC[config.name].open_source(config, split, exclude=exclude)


def known_images(name: info.DatasetName, split: str) -> int | None:
  """Images of a published split; None where nothing is published of that name."""
  return getattr(_PUBLIC.get(name), 'IMAGES', {}).get(split)
