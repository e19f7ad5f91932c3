"""The recipes of P-NOC: every number that differs between recipes or data sets, once.

Without a word a config has the paper's text where it is explicit and the released code where it is
silent. `:paper` is what made the paper's tables (the code of April 2023), `:journal` the state of
December 2023, `:head` the latest code. docs/recipes.md sets them side by side, with sources.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pnoc_jax.data.augment import transforms
from pnoc_jax.engine import settings
from pnoc_jax.nn import layers

RECIPES = {
  'paper': "the code behind the paper's tables",
  'journal': "the code behind the journal version's tables",
  'head': 'the latest released code',
}

_Augment, _Resize = transforms.Augment, transforms.Resize
_MIXED = settings.Precision.BFLOAT16  # The code's float16, which needs a scaled loss.


@dataclasses.dataclass(frozen=True)
class Images:
  """What a training sees: `low` to `high` of `resize`, cut to `crop` px."""

  low: int
  high: int
  crop: int
  resize: transforms.Resize = _Resize.LONG_SIDE


@dataclasses.dataclass(frozen=True)
class Kernel:
  """The dense CRF's kernels of position, and of position and colour, with their weights."""

  gaussian_sxy: float
  gaussian_compat: float
  bilateral_sxy: float
  bilateral_srgb: float
  bilateral_compat: float


_DEEPLAB_V2 = Kernel(1.0, 3.0, 67.0, 3.0, 4.0)
_LABEL_MAPS = Kernel(3.0, 3.0, 50.0, 5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Numbers:
  """What differs between recipes or data sets; the defaults are those of most recipes.

  What is not here has its home in the stage's config.
  """

  backbone: str = 'resnest269'
  # The CAM networks: ordinary classifier, and generator with its noc.
  lr: float = 0.01
  power: float = 1.0
  images: Images = Images(50, 200, 512, _Resize.PERCENT)
  oc_augment: transforms.Augment = _Augment.RANDAUGMENT
  oc_smoothing: float = 0.0
  batch: int = 16
  accumulate: int = 2
  # The text (A.1.1): 32 images for every backbone but ResNeSt-269.
  whole_batch_if_smaller: bool = False
  augment: transforms.Augment = _Augment.COLORJITTER
  smoothing: float = 0.1
  leak: bool = False
  cam_precision: settings.Precision = settings.Precision.FLOAT32
  # Batches of an in-training measurement; 0 is the whole split.
  eval_batches: int = 0
  # C2AM-H and its masks.
  c2am_batch: int = 32
  c2am_accumulate: int = 1
  c2am_lr: float = 1e-3
  c2am_scratch_lr: float = 10.0
  c2am_resize: int = 515
  c2am_threshold: float = 0.4
  c2am_smoothing: float = 0.1
  c2am_precision: settings.Precision = settings.Precision.FLOAT32
  mask_confidence: float = 0.7
  # Affinity labels, AffinityNet, pseudo masks.
  foreground: float = 0.4
  background: float = 0.1
  label_confidence: float = 0.7
  affinity_images: Images = Images(320, 640, 512)
  pseudo_threshold: float = 0.3
  # DeepLabV3+.
  deeplab_batch: int = 32
  deeplab_accumulate: int = 1
  deeplab_epochs: int = 50
  deeplab_images: Images = Images(256, 1024, 512)
  deeplab_lr: float = 0.007
  deeplab_norm: layers.Norm = layers.Norm.BATCH
  deeplab_momentum: float = 0.0
  deeplab_augment: transforms.Augment = _Augment.NONE
  deeplab_smoothing: float = 0.1
  deeplab_precision: settings.Precision = settings.Precision.FLOAT32
  deeplab_crf: int = 0
  deeplab_kernel: Kernel = _DEEPLAB_V2


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set with its numbers in each recipe; 'text' is that without a word.

  Attributes:
    name: in `data`.
    train: split that trains.
    splits: splits that priors, and what is made of them, are made of.
    predicted: splits that the segmentation network labels.
    scored: splits that are scored; empty for all that were made.
    numbers: by recipe.
    resize_to: side of the square that images are squeezed to before inference, 0 for none.
    measured: split that networks are measured on while they train; empty for the training split.
    methods: (numbers, recipe) -> the numbers of a method, where they are not those of P-NOC.
  """

  name: str
  train: str
  splits: tuple[str, ...]
  predicted: tuple[str, ...]
  numbers: dict[str, Numbers]
  scored: tuple[str, ...] = ()
  resize_to: int = 0
  measured: str = ''
  methods: Mapping[str, Callable[[Numbers, str], Numbers]] = dataclasses.field(default_factory=dict)


def _voc() -> dict[str, Numbers]:
  text = Numbers(
    whole_batch_if_smaller=True,
    # The text trains these two networks as their own papers do: C2AM's head has no larger rate;
    # Puzzle-CAM's DeepLabV3+ has frozen BatchNorm, no augmentation, momentum or smoothing.
    c2am_scratch_lr=1.0,
    c2am_resize=512,
    deeplab_norm=layers.Norm.FROZEN,
    deeplab_smoothing=0.0,
  )
  # What all three states of the code share.
  code = Numbers(lr=0.1, power=0.9, images=Images(320, 640, 512), leak=True, cam_precision=_MIXED)
  paper = dataclasses.replace(
    code,
    # Only parameters of convolutions were collected, the head's with the pretrained ones.
    c2am_scratch_lr=1.0,
    c2am_resize=512,
    c2am_threshold=0.3,
    mask_confidence=0.9,
    foreground=0.3,
    c2am_smoothing=0.0,
    pseudo_threshold=0.25,
  )
  # What the two later states share.
  later = dataclasses.replace(
    code,
    oc_smoothing=0.1,
    c2am_batch=64,
    c2am_accumulate=2,
    c2am_precision=_MIXED,
    deeplab_images=Images(320, 640, 512),
    deeplab_precision=_MIXED,
    deeplab_crf=10,
  )
  journal = dataclasses.replace(
    later, deeplab_batch=16, deeplab_accumulate=2, deeplab_kernel=_LABEL_MAPS
  )
  head = dataclasses.replace(
    later,
    augment=_Augment.NONE,
    deeplab_epochs=15,
    deeplab_momentum=0.9,
    deeplab_augment=_Augment.COLORJITTER,
  )
  return {'text': text, 'paper': paper, 'journal': journal, 'head': head}


def _voc_poc(numbers: Numbers, recipe: str) -> Numbers:
  if recipe != 'paper':
    return numbers
  # Its runner of P-OC set no accumulation, and refined with other numbers than that of P-NOC.
  return dataclasses.replace(
    numbers, accumulate=1, c2am_threshold=0.4, foreground=0.4, label_confidence=0.9
  )


def _voc_puzzle(numbers: Numbers, recipe: str) -> Numbers:
  # Labels are smoothed from P-OC on; in the latest code everywhere.
  return numbers if recipe == 'head' else dataclasses.replace(numbers, smoothing=0.0)


def _voc_occse(numbers: Numbers, recipe: str) -> Numbers:
  # Labels are smoothed from P-OC on; P-OC's runner behind the tables set no accumulation.
  changes = {'text': {'smoothing': 0.0}, 'paper': {'smoothing': 0.0, 'accumulate': 1}}
  return dataclasses.replace(numbers, **changes.get(recipe, {}))


def _coco() -> dict[str, Numbers]:
  voc = _voc()
  # Half of VOC's rates, and what its many and small objects want.
  common = {
    'c2am_lr': 5e-4,
    'c2am_threshold': 0.3,
    'foreground': 0.3,
    'background': 0.8,
    'affinity_images': Images(400, 800, 640),
    'pseudo_threshold': 0.3,
    'eval_batches': 620,
  }
  # P-NOC without label smoothing is the best row of both versions.
  best = common | {'smoothing': 0.0}
  early = best | {'deeplab_images': Images(320, 1024, 640)}
  large = Images(400, 800, 640)
  return {
    'text': dataclasses.replace(voc['text'], lr=0.005, **early),
    'paper': dataclasses.replace(
      voc['paper'],
      lr=0.05,
      c2am_batch=64,
      c2am_accumulate=2,
      c2am_smoothing=0.1,
      c2am_precision=_MIXED,
      **early,
    ),
    'journal': dataclasses.replace(
      voc['journal'], lr=0.05, images=large, deeplab_images=large, **best
    ),
    'head': dataclasses.replace(
      voc['head'], lr=0.05, images=large, deeplab_images=large, deeplab_lr=0.004, **common
    ),
  }


def _code_only(**changes: Any) -> dict[str, Numbers]:
  """Of a data set that only the latest code knows: without a word alone Alg. 1 and precision."""
  head = dataclasses.replace(_voc()['head'], **changes)
  exact = settings.Precision.FLOAT32
  text = dataclasses.replace(
    head, leak=False, cam_precision=exact, c2am_precision=exact, deeplab_precision=exact
  )
  return {'text': text, 'paper': head, 'journal': head, 'head': head}


def square(side: int) -> Images:
  """Images squeezed to a square."""
  return Images(side, side, side, _Resize.SQUARE)


VOC = Data(
  'voc12',
  'train_aug',
  # The tables' "train" is its own split: 1,464 of the 10,582 images, with VOC's own masks.
  ('train_aug', 'train', 'val'),
  ('val',),
  _voc(),
  scored=('train', 'val'),
  measured='train',
  methods={'poc': _voc_poc, 'puzzle': _voc_puzzle, 'occse': _voc_occse},
)
COCO = Data('coco14', 'train2014', ('train2014', 'val2014'), ('val2014',), _coco())
DEEPGLOBE = Data(
  'deepglobe',
  'train75',
  ('train75', 'test'),
  ('test',),
  _code_only(images=square(320), deeplab_images=square(320), deeplab_lr=0.01),
  resize_to=320,
)
CITYSCAPES = Data(
  'cityscapes',
  'train',
  ('train', 'val'),
  ('val',),
  _code_only(
    backbone='resnest101',
    lr=0.05,
    images=square(768),
    batch=32,
    accumulate=1,
    c2am_threshold=0.2,
    deeplab_images=square(768),
  ),
  resize_to=768,
)
HPA = Data(
  'hpa',
  'train',
  ('train', 'val'),
  ('val',),
  # Augmentations of red, green and blue do not know a fourth channel.
  _code_only(images=square(512), oc_augment=_Augment.NONE),
  resize_to=512,
)
