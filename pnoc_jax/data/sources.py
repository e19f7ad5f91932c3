"""The table of the known data sets, and how a split of one of them is opened.

A data set is a reader in `data/readers/` and a row here. The rest of the project asks the row, and
never for a data set by its name.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data import names as naming
from pnoc_jax.data.readers import cityscapes, coco, deepglobe, folder, hpa, shapes, tfds, voc


@dataclasses.dataclass(frozen=True)
class Row:
  """What is known of a data set before it is opened.

  Attributes:
    name: the value of `dataset.name`.
    open: opens a split from the data set's own files; its arguments are those of `open_source`.
    splits: the splits that recipes use, and that `launch/prepare.py` packs if none are named.
    images: {split: number of its images} as published.
    overridable: whether `dataset.lists`, `labels` and `masks` may replace the data set's own.
    needs_root: whether it is read from `dataset.root`.
    named_by_root: whether people know it by its folder's name, and not by `name`.
    upright: whether its images are turned as EXIF says.
    settings: names of the fields of `info.DatasetConfig` that decide what its images show; they are
      part of a run's fingerprint, as ids and labels are of every data set.
  """

  name: str
  open: Callable[[info.DatasetConfig, str, frozenset[str]], info.Source]
  splits: tuple[str, ...] = ('train', 'val')
  images: Mapping[str, int] = dataclasses.field(default_factory=dict)
  overridable: bool = True
  needs_root: bool = True
  named_by_root: bool = False
  upright: bool = False
  settings: tuple[str, ...] = ()


TABLE = {
  row.name: row
  for row in (
    Row('shapes', shapes.open_source, overridable=False, needs_root=False, settings=('shapes',)),
    Row('folder', folder.open_source, overridable=False, named_by_root=True, upright=True),
    Row('voc12', voc.open_source, ('train', 'train_aug', 'val'), voc.IMAGES),
    Row('coco14', coco.open_source, ('train2014', 'val2014'), coco.IMAGES),
    Row('cityscapes', cityscapes.open_source, images=cityscapes.IMAGES),
    Row('deepglobe', deepglobe.open_source, ('train75', 'test'), deepglobe.IMAGES),
    Row('hpa', hpa.open_source),
  )
}


def names() -> list[str]:
  """The names of all data sets."""
  return list(TABLE)


def row(name: str) -> Row:
  """The table's row of a data set.

  Raises:
    UserError: there is no data set of that name; the message has the nearest one and all of them.
  """
  if name not in TABLE:
    near = difflib.get_close_matches(name.lower(), TABLE, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise errors.UserError(f'There is no data set {name!r}.{hint} Known: {", ".join(TABLE)}.')
  return TABLE[name]


def faults(config: info.DatasetConfig) -> list[str]:
  """What is wrong with a data set's configuration, as far as no file tells it."""
  try:
    found = row(config.name)
  except errors.UserError as error:
    return [f'dataset.name: {error}']
  packed = config.source is info.Storage.TFDS
  if found.overridable and not packed:
    return []
  kind = 'what is packed' if packed else config.name
  return [
    f'dataset.{x} is given, but {kind} has its own {x}: leave it empty'
    for x in ('lists', 'labels', 'masks')
    if getattr(config, x)
  ]


def open_source(
  config: info.DatasetConfig, split: str, *, exclude: frozenset[str] = frozenset()
) -> info.Source:
  """Opens one split of a data set.

  Args:
    config: which data set, and where.
    split: the split's name.
    exclude: ids to leave out, e.g. of files that a check found broken.

  Returns:
    The source of its examples.

  Raises:
    UserError: the data set is not there or not whole, or has names that cannot be those of files;
      the message lists what is wrong.
  """
  naming.check_split(split)
  if wrong := faults(config):
    raise errors.UserError('\n'.join(wrong))
  packed = config.source is info.Storage.TFDS
  open_split = tfds.open_source if packed else row(config.name).open
  source = open_split(config, split, exclude)
  naming.check(source, config.root or config.name)
  return source
