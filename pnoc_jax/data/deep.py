"""Images of more than 8 bits: one range for all images of a data set, and what is said of it."""

import pathlib
from collections.abc import Iterable, Sequence
from concurrent import futures

import numpy as np

from pnoc_jax.data import cache
from pnoc_jax.io import images, ranges

_SUFFIXES = ('.png', '.tif', '.tiff', '.pgm')  # The others have 8 bits in all their kinds.
_FORMAT = 1  # Of the arrays; part of the cache's key.
_DARK = 0x3FFF  # 16-bit colours that stay below are of a camera with fewer bits.


def find_range(
  paths: Iterable[pathlib.Path], problems: list[str]
) -> tuple[ranges.Range | None, list[str]]:
  """The range of a data set's images, and what to say of it.

  All images beside those of the split count, so that the splits of a data set have one range.

  Args:
    paths: images of a split.
    problems: images that cannot be read rightly are appended here.

  Returns:
    The range, None if no image has more than 8 bits; sentences.
  """
  folders = sorted({path.parent for path in paths if path.suffix.lower() in _SUFFIXES})
  files = [
    path
    for folder in folders
    if folder.is_dir()
    for path in sorted(folder.iterdir())
    if path.suffix.lower() in _SUFFIXES and not path.name.startswith('.') and path.is_file()
  ]
  if not files:
    return None, []
  found = cache.arrays('extents', files, _FORMAT, lambda: _measure(files))
  extents = [ranges.Extent(bool(x[0]), *x[1:].tolist()) for x in np.array(found['extents'])]
  deep = [files[i] for i in np.array(found['places'])]
  _check_colors(np.array(found['colors']), files, problems)
  white = ranges.choose(extents)
  return (white, _describe(deep, extents, white)) if deep else (None, [])


def describe(
  files: Sequence[pathlib.Path], extents: Sequence[ranges.Extent | int | None]
) -> tuple[ranges.Range | None, list[str]]:
  """The range of images, from what `images.extent` says of them, and what to say of it."""
  pairs = zip(files, extents, strict=True)
  deep = [(file, x) for file, x in pairs if isinstance(x, ranges.Extent)]
  if not deep:
    return None, []
  white = ranges.choose(x for _, x in deep)
  return white, _describe([x for x, _ in deep], [x for _, x in deep], white)


def _describe(
  deep: Sequence[pathlib.Path], extents: Sequence[ranges.Extent], white: ranges.Range
) -> list[str]:
  found = []
  for real, kind, top in ((False, 'whole numbers', white.whole), (True, 'floats', white.real)):
    of_kind = [i for i, x in enumerate(extents) if x.real is real and not x.fault()]
    if of_kind:
      high = max(extents[i].high for i in of_kind)
      found.append(
        f'{len(of_kind)} images of more than 8 bits hold {kind} of up to {high:g}, e.g. '
        f'{deep[of_kind[0]].name}: {top:g} is read as white in all of them'
      )
  return found


def _measure(files: Sequence[pathlib.Path], *, threads: int = 4) -> dict[str, np.ndarray]:
  """Extents f64[D, 3] (real, low, high) of deep images, their places; of colours (place, high)."""
  with futures.ThreadPoolExecutor(threads) as pool:
    found = list(pool.map(images.extent, files))
  rows = [(i, x) for i, x in enumerate(found) if isinstance(x, ranges.Extent)]
  colors = [(i, x) for i, x in enumerate(found) if isinstance(x, int)]
  return {
    'places': np.array([i for i, _ in rows], np.int64),
    'extents': np.array([x for _, x in rows], np.float64).reshape(-1, 3),
    'colors': np.array(colors, np.int64).reshape(-1, 2),
  }


def _check_colors(colors: np.ndarray, files: Sequence[pathlib.Path], problems: list[str]) -> None:
  """Of 16-bit colours the upper 8 bits can be read alone, which must not be empty."""
  if len(colors) and colors[:, 1].max() <= _DARK:
    problems.append(
      f'{files[colors[0, 0]]}: {len(colors)} images have 16-bit colours that stay below '
      f'{colors[:, 1].max() + 1}, and would be read as nearly black: save them with 8 bits'
    )
