"""What a person should know about a split that can be used: masks that are there and not read."""

import itertools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from pnoc_jax.data.readers import files

_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp', '.gif', '.jpg', '.jpeg', '.webp', '.npy', '.mat')
_WORDS = re.compile('mask|label|seg|anno|gt|ground|truth', re.IGNORECASE)
_OTHERS = re.compile('object|instance|image|xml', re.IGNORECASE)
_DEPTH = 3  # Folders below the root that are looked into.
_SHOWN = 3  # So many folders are named.


def unused_masks(
  root: pathlib.Path, ids: Collection[str], wanted: str, *, images: Sequence[str] = ('images',)
) -> list[str]:
  """Warnings of files that look like masks, for a split that is read as one without masks.

  A file looks like a mask if its name has the id of an image of the split, and it lies in a folder
  named like masks, or its name has more than the id, e.g. `<id>_mask.png`.

  Args:
    root: the data set's directory.
    ids: of the split.
    wanted: where a mask is looked for, as in `masks/<id>.png`.
    images: names of the folders of images, in which a name alone tells.

  Returns:
    A sentence for each folder that has such files, with one of them as a sample.
  """
  known = set(ids)
  samples = (_sample(folder, root, known, images) for folder in _folders(root))
  return [
    f'{sample.relative_to(root)} looks like a mask, but is not read as one: masks are '
    f'{wanted} (indices in a PNG). The split counts as one without masks; rename or convert the '
    'files if they are its masks'
    for sample in itertools.islice(filter(None, samples), _SHOWN)
  ]


def partial_masks(found: Collection[str], ids: Sequence[str], place: str, result: str) -> list[str]:
  """A warning where some ids have a mask and others none, so that none is used.

  Args:
    found: ids that have a mask.
    ids: of the split.
    place: where the masks are.
    result: what happens instead.
  """
  missing = [key for key in ids if key not in found]
  if not missing or len(missing) == len(ids):
    return []
  return [
    f'{place}: {len(missing)} of {len(ids)} ids have no mask, the first is {missing[0]}: {result}'
  ]


def _folders(root: pathlib.Path, depth: int = _DEPTH) -> Iterator[pathlib.Path]:
  yield root
  if depth:
    try:
      entries = sorted(x.name for x in os.scandir(root) if x.is_dir() and x.name[0] != '.')
    except OSError:
      return
    for name in entries:
      yield from _folders(root / name, depth - 1)


def _sample(
  folder: pathlib.Path, root: pathlib.Path, known: set[str], images: Sequence[str]
) -> pathlib.Path | None:
  """The first file of a folder that looks like a mask."""
  place = str(folder.relative_to(root))
  if _OTHERS.search(place) and not any(place.startswith(x) for x in images):
    return None
  named = bool(_WORDS.search(place)) and not any(place.startswith(x) for x in images)
  for name in sorted(files.names_in(folder)):
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in _SUFFIXES:
      continue
    if named and stem in known:
      return folder / name
    if (rest := _beside(stem, known)) is not None and (named or _WORDS.search(rest)):
      return folder / name
  return None


def _beside(stem: str, known: set[str]) -> str | None:
  """What a name has before or after an id, e.g. `_mask`; None if it has no id."""
  cuts: list[Callable[[re.Match], tuple[str, str]]] = [
    lambda x: (stem[: x.start()], stem[x.start() :]),
    lambda x: (stem[x.end() :], stem[: x.end()]),
  ]
  for match in re.finditer(r'[-_. ]', stem):
    for cut in cuts:
      key, rest = cut(match)
      if key in known:
        return rest
  return None
