"""What a layout holds, and how its images are found."""

import dataclasses
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterable

import numpy as np

from pnoc_jax.data.readers import files, folder, lists, loose
from pnoc_jax.errors import UserError

SPLITS = {
  'train': ('train', 'training'),
  'val': ('val', 'valid', 'validation', 'dev'),
  'test': ('test', 'testing'),
}
"""Our names of splits, and how others call them."""


@dataclasses.dataclass(frozen=True)
class Request:
  """Where a layout is, and how its ambiguous parts are meant.

  Attributes:
    input: its directory or file.
    images: the directory of images, where the input does not say it.
    masks: whether masks are made of the layout's outlines.
    file_column: the column of a table that names the files; empty to find it.
    label_columns: its columns of labels; empty to find them.
    separator: what stands between two names in one cell; empty to find it, 'none' for nothing.
  """

  input: pathlib.Path
  images: pathlib.Path | None = None
  masks: bool = False
  file_column: str = ''
  label_columns: tuple[str, ...] = ()
  separator: str = ''


@dataclasses.dataclass(frozen=True)
class Example:
  """An image with its labels.

  Attributes:
    file: of the image.
    labels: names of its classes; none for an image that shows none of them. Accents are composed
      with their letters: the name of a directory may come from macOS, which writes them apart.
    split: `train`, `val` or `test`; empty where the layout has no splits.
    mask: makes u8[H, W], 0 background and k + 1 class k, on the pixels as they are stored.
  """

  file: pathlib.Path
  labels: frozenset[str]
  split: str = ''
  mask: Callable[[], np.ndarray] | None = None

  def __post_init__(self):
    object.__setattr__(self, 'labels', frozenset(map(files.compose, self.labels)))


@dataclasses.dataclass(frozen=True)
class Found:
  """What a layout holds.

  Attributes:
    examples: its images.
    classes: in the layout's order; empty where it has none. Composed as the labels are.
    remarks: what was left out, in words.
  """

  examples: list[Example]
  classes: tuple[str, ...] = ()
  remarks: tuple[str, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'classes', tuple(map(files.compose, self.classes)))


class Images:
  """Image files below a directory, to be found by what other files call them."""

  def __init__(self, root: pathlib.Path):
    """Lists the files.

    Args:
      root: of the images.

    Raises:
      UserError: there is no such directory, or no image in it.
    """
    self.root = root
    there = [file for _, file in loose.find(root)]
    self.files = [x for x in there if x.suffix.lower() in folder.SUFFIXES]
    others = (x for x in there if x.suffix.lower() not in folder.SUFFIXES)
    self.others = sorted((*others, *loose.unread(root)))
    if not self.files:
      raise UserError(f'{root} holds no image that can be used: {", ".join(folder.SUFFIXES)}')
    self._by_path = frozenset(self.files)
    self._by_name: dict[str, list[pathlib.Path]] = {}
    for file in self.files:
      for name in {file.name, file.stem}:
        self._by_name.setdefault(name, []).append(file)
    self._by_upload: dict[str, list[pathlib.Path]] = {}
    for file in self.files:
      self._by_upload.setdefault(_uploaded(file.name), []).append(file)

  def find(self, reference: str) -> pathlib.Path | None:
    """The image that a path, an address or a bare name means; None if there is none.

    Raises:
      UserError: several images may be meant.
    """
    reference = reference.strip().replace('\\', '/')
    try:
      address = urllib.parse.urlsplit(reference)
    except ValueError:  # `//[x` is no address, and perhaps a file's name.
      address = urllib.parse.SplitResult('', '', reference, '', '')
    # Label Studio serves local files as `/data/local-files/?d=folder/name.jpg`.
    asked = urllib.parse.parse_qs(address.query).get('d')
    candidates = [asked[0] if asked else reference, urllib.parse.unquote(address.path)]
    for path in dict.fromkeys(candidates):
      whole = self.root / path.lstrip('/')
      if path and '..' not in pathlib.PurePosixPath(path).parts and whole in self._by_path:
        return whole
      name = pathlib.PurePosixPath(path).name
      # Label Studio puts eight digits and a dash before the name of an upload.
      upload = name[9:] if name[8:9] == '-' else ''
      for known, key in ((self._by_name, name), (self._by_name, upload), (self._by_upload, upload)):
        if found := known.get(key):
          return self._only(found, path)
    return None

  def holds(self, reference: str) -> bool:
    """Whether `find` has an image, or several, for the reference."""
    try:
      return bool(reference) and self.find(reference) is not None
    except UserError:
      return True

  def _only(self, found: list[pathlib.Path], path: str) -> pathlib.Path:
    ending = [x for x in found if x.as_posix().endswith(f'/{path.lstrip("/")}')]
    found = ending or found
    if len(found) > 1:
      names = ', '.join(str(x.relative_to(self.root)) for x in found[:3])
      raise UserError(f'{path!r} may mean several images in {self.root}: {names}')
    return found[0]

  def left_out(self) -> list[str]:
    """A remark on images of formats that the `folder` layout does not take."""
    if not self.others:
      return []
    return [
      f'{count(len(self.others), "file")} of other formats left out, the first is '
      f'{self.others[0].name}: convert to {", ".join(folder.SUFFIXES)}'
    ]

  def unlisted(self, examples: Iterable[Example]) -> tuple[str, ...]:
    """Remarks on images that are left out: of other formats, or nobody knows what they show."""
    bare, remarks = sorted(set(self.files) - {x.file for x in examples}), self.left_out()
    if bare:
      said = f'{count(len(bare), "image")} without annotations left out'
      remarks.append(f'{said}, the first is {bare[0].relative_to(self.root)}')
    return tuple(remarks)


def beside(request: Request, file: pathlib.Path) -> Images:
  """The images that the entries of a file name: where the request says, or beside the file.

  Raises:
    UserError: there is no image.
  """
  if request.images:
    return Images(request.images)
  try:
    return Images(file.parent)
  except UserError as error:
    raise UserError(f'{error}. Name the directory of the images with --images=DIR') from error


def _uploaded(name: str) -> str:
  """A name as Label Studio, which stands on Django, stores it: `my cat (1)` as `my_cat_1`."""
  return re.sub(r'[^-\w.]', '', name.strip().replace(' ', '_'))


def without(layout: Found, negative: Iterable[str]) -> Found:
  """The layout without names that stand for no class.

  Raises:
    UserError: no image has such a name.
  """
  names = frozenset(map(files.compose, negative))
  known = {x for y in layout.examples for x in y.labels} | set(layout.classes)
  if unknown := names - known:
    raise UserError(
      f'--negative names {", ".join(sorted(unknown))}, which no image is labelled with; there are '
      f'{", ".join(sorted(known))}'
    )
  examples = [dataclasses.replace(x, labels=x.labels - names) for x in layout.examples]
  return Found(examples, tuple(x for x in layout.classes if x not in names), layout.remarks)


def split_of(name: str) -> str:
  """Our name of a split that others call so; empty if it is none."""
  return next((ours for ours, names in SPLITS.items() if name.lower() in names), '')


def count(number: int, what: str) -> str:
  """`1 file`, `2 files`."""
  return f'{number} {what}{"" if number == 1 else "s"}'


def refuse(place: pathlib.Path, problems: Iterable[str]) -> None:
  """Raises a UserError with the problems of a layout, if there are any."""
  if problems := list(problems):
    raise UserError(lists.describe(place, problems))
