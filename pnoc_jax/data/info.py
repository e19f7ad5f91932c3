"""What a dataset is: its description, its configuration and the protocol of its examples."""

import dataclasses
import enum
import pathlib
from typing import Protocol

import numpy as np

from pnoc_jax import errors, types

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Storage(enum.Enum):
  """Where examples are read from.

  Attributes:
    FILES: the data set's own files.
    TFDS: ArrayRecord files that `launch/prepare.py` packed.
  """

  FILES = 'files'
  TFDS = 'tfds'


class OnError(enum.Enum):
  """What is done about a broken file.

  Attributes:
    STRICT: the run stops.
    SKIP: the example is left out and written to a list.
  """

  STRICT = 'strict'
  SKIP = 'skip'


@dataclasses.dataclass(slots=True)
class ShapesConfig:
  """The numbers of the synthetic data set; fractions of areas and lengths are of the image.

  Attributes:
    seed: together with the split's name and the index, it decides every pixel.
    size: height and width of an image, px.
    train: number of images of the split `train`.
    val: number of images of the split `val`, and of `test`.
    class_probabilities: probabilities of 1, 2, 3 classes in an image; each has one object.
    coverage: mean fraction of the image under objects; an image draws it from +-20 % around this.
    head_area: fraction of an object's visible area that its head covers.
    body_hue_jitter: a body's hue is its pair's, plus a uniform draw from +-this (of the colour
      circle).
    body_saturation: HSV saturation of bodies; heads are fully saturated.
    stripe_amplitude: amplitude of the stripes on a body, of the range 0..1. The stripes are all
      that tells the bodies of a pair apart.
    stripe_period: period of the stripes on a body, of the image's side.
    head_cell: width of a checker, stripe or ring of a head's pattern, of the image's side.
    background_saturation: largest HSV saturation of a background; its hue is any.
    noise_coarse: amplitude of the background's smooth noise on a 4x4 grid.
    noise_fine: amplitude of the background's smooth noise on a 16x16 grid.
    grating_amplitude: amplitude of the background's sinusoidal grating.
    pixel_noise: standard deviation of the independent noise of every pixel.
    distractor: probability of a body without a head, which counts as background.
  """

  seed: int = 0
  size: int = 64
  train: int = 480
  val: int = 120
  class_probabilities: tuple[float, ...] = (0.6, 0.3, 0.1)
  coverage: float = 0.3
  head_area: float = 0.17
  body_hue_jitter: float = 0.1
  body_saturation: float = 0.55
  stripe_amplitude: float = 0.06
  stripe_period: float = 0.07
  head_cell: float = 0.055
  background_saturation: float = 0.35
  noise_coarse: float = 0.12
  noise_fine: float = 0.08
  grating_amplitude: float = 0.06
  pixel_noise: float = 0.02
  distractor: float = 0.0


@dataclasses.dataclass(slots=True)
class DatasetConfig:
  """Which images there are, and which of them train and validate.

  Attributes:
    name: one of `sources.names()`.
    root: the directory of the data set; `shapes` needs none.
    source: what is in `root`: the data set's files, or packed ones (then `root` may be
      `gs://...`).
    train_split: the split that trains.
    val_split: the split that measures in training.
    lists: a directory of `<split>.txt`, ids one a line, in place of the data set's own lists. This
      and the next two are for the public data sets; they are refused with `shapes`, `folder` and
      packed files.
    labels: a table `id,labels` (names separated by spaces, a space in a name as `_`), in place of
      the labels from the data set's annotations.
    masks: a directory of `<id>.png` in place of the data set's own masks.
    on_error: what is done about a broken file.
    shapes: the numbers of `shapes`.
  """

  name: str = 'shapes'
  root: str = ''
  source: Storage = Storage.FILES
  train_split: str = 'train'
  val_split: str = 'val'
  lists: str = ''
  labels: str = ''
  masks: str = ''
  on_error: OnError = OnError.STRICT
  shapes: ShapesConfig = dataclasses.field(default_factory=ShapesConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetInfo:
  """A dataset's description.

  Attributes:
    name: for people.
    classes: names of the K foreground classes; the label's index k is `classes[k]`, the mask's k+1.
    background: name of mask value 0.
    palette: K+1 RGB colours of the mask values.
    mean: each channel's mean of the normalisation, of the range 0..1; images have as many channels.
    std: each channel's standard deviation of the normalisation.
  """

  name: str
  classes: tuple[str, ...]
  background: str
  palette: tuple[tuple[int, int, int], ...]
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD

  @property
  def num_classes(self) -> int:
    """K, the number of foreground classes."""
    return len(self.classes)


class Source(Protocol):
  """Random access to the examples of one split; picklable, and safe to read from threads.

  Attributes:
    info: the dataset's description.
    split: the split's name.
    ids: N unique names.
    labels: f32[N, K] multi-hot labels.
    has_masks: whether `mask` gives masks for this split.
  """

  info: DatasetInfo
  split: str
  ids: tuple[str, ...]
  labels: np.ndarray
  has_masks: bool

  def __len__(self) -> int: ...

  def example(self, index: int) -> dict[str, np.ndarray]:
    """{'image': u8[H, W, channels], 'label': f32[K], 'index': i32[]}."""
    ...

  def mask(self, index: int) -> np.ndarray | None:
    """u8[H, W]: 0 background, k+1 class k, 255 void; None where there is no mask."""
    ...

  def size(self, index: int) -> tuple[int, int]:
    """(H, W) of the image, without decoding it where that is possible."""
    ...

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The files that the example is read from; empty if it is made up."""
    ...


def remarks(source: Source) -> tuple[str, ...]:
  """What a person should know about a split before it is used, in sentences; most have none."""
  return getattr(source, 'remarks', ())


def place(source: Source, index: int) -> str:
  """Where an example is read from, for messages: its last file, or what holds it and its id."""
  files = source.files(index)
  return (
    str(files[-1]) if files else f'{getattr(source, "path", source.split)}, {source.ids[index]}'
  )


def check_mask(source: Source, index: int, mask: np.ndarray) -> None:
  """Refuses a mask that holds a value that is no class.

  Args:
    source: the split.
    index: of the example.
    mask: u8[H, W], its mask.

  Raises:
    UserError: it names the mask's file.
  """
  last = source.info.num_classes
  if mask[mask != types.VOID].max(initial=0) > last:
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    wrong = [int(x) for x in values if last < x < types.VOID]
    raise errors.UserError(
      f'{place(source, index)}: the mask has the values {wrong}, expected 0 to {last} and '
      f'{types.VOID} (void)'
    )


def make_example(image: np.ndarray, labels: np.ndarray, index: int) -> dict[str, np.ndarray]:
  """What `Source.example` returns.

  Args:
    image: u8[H, W, channels].
    labels: f32[N, K] of all examples.
    index: of the example.
  """
  return {'image': image, 'label': labels[index], 'index': np.array(index, np.int32)}


def color_map(n: int) -> tuple[tuple[int, int, int], ...]:
  """The standard VOC colour map: bit 3j+c of an index is bit 7-j of channel c.

  Args:
    n: number of colours, background first.

  Returns:
    n RGB colours.
  """

  def channel(i: int, c: int) -> int:
    return sum((i >> (3 * j + c) & 1) << (7 - j) for j in range(8))

  return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(n))
