"""A toy data set, what runs on it leave, and a reader of pages: for the tests of the report."""

import dataclasses
import html.parser
from collections.abc import Callable

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.io import images, products, records
from pnoc_jax.metrics import segmentation, thresholds
from pnoc_jax.report import label_maps, refinement, sections

CLASSES = ('background', 'cat', 'dog & <co>')


@dataclasses.dataclass(frozen=True)
class Score:
  """A score, with what the report asks of it."""

  name: str
  title: str
  headline: bool = False
  masks: bool = True


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage, with what the report asks of it."""

  name: str
  title: str = ''
  training_title: str = ''
  scores: tuple[Score, ...] = ()
  figures: Callable | None = None
  sample: Callable | None = None


def _made(name, title, figures, sample, headline=False):
  return Stage(name, title, scores=(Score(name, title, headline),), figures=figures, sample=sample)


STAGES = (
  Stage(
    'generator',
    training_title='the generator',
    scores=(Score('priors_proxy', 'Priors without masks', masks=False),),
  ),
  _made('priors', 'Priors', sections.priors, sections.prior_view, headline=True),
  Stage(
    'saliency_priors',
    scores=(Score('saliency_priors', 'Masks of C2AM'),),
    sample=refinement.saliency_mask_view,
  ),
  _made('saliency', 'Saliency', refinement.saliency, refinement.saliency_view),
  _made('affinity_labels', 'Affinity labels', refinement.affinity_labels, refinement.affinity_view),
  _made('random_walk', 'Random walk', refinement.random_walk, refinement.walk_view),
  _made(
    'pseudo_masks',
    'Pseudo masks',
    label_maps.pseudo_masks,
    label_maps.pseudo_mask_view,
    headline=True,
  ),
  Stage('segmentation', training_title='the segmentation network'),
  _made(
    'predictions', 'Predictions', label_maps.predictions, label_maps.prediction_view, headline=True
  ),
)


class Source:
  """Eight images of 16 px with one square object each."""

  info = info.DatasetInfo('toy', CLASSES[1:], CLASSES[0], ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
  split = 'train'
  ids = tuple(f'img{i}' for i in range(8))
  labels = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
  has_masks = True

  def example(self, index):
    return {'image': np.full((16, 16, 3), 30 * index, np.uint8)}

  def mask(self, index):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1 + index % 2
    return mask

  def size(self, index):
    return 16, 16


def open_source(config, split):
  """The toy data set, whatever the config says."""
  return Source()


def write_run(workdir, quality=1.0):
  """Leaves what a run to the priors leaves; returns the score."""
  source, generator = Source(), np.random.default_rng(0)
  config = {
    'name': 'toy run',
    'dataset': records.plain(info.DatasetConfig()),
    'generator': {'method': 'pnoc', 'optim': {'rule': 'adam'}},
  }
  records.write_json(workdir / 'config.json', config)
  with records.JsonLines(workdir / 'generator' / 'metrics.jsonl') as file:
    for step in range(10, 60, 10):
      log = {'loss/total': 1 / step, 'schedule/lr': 0.1, 'schedule/lambda_noc': step / 60}
      file.write({'step': step, 'epoch': step / 10, 'time/step': 0.5, **log})
      file.write({'step': step, 'epoch': step / 10, 'eval/miou': 40.0 + step / 10})
  sums = thresholds.init_sums(3)
  for i, image_id in enumerate(source.ids):
    noise = generator.random((1, 16, 16)) * (1 - quality * (1 - i / 10))
    high = np.maximum((source.mask(i) > 0)[None] * 0.9, noise).astype(np.float16)
    keys = np.array([0, 1 + i % 2], np.int32)
    low, logits = high[:, ::4, ::4].astype(np.float32), np.zeros(2, np.float32)
    products.write_prior(workdir / 'priors' / 'train' / f'{image_id}.npz', keys, low, high, logits)
    sums += thresholds.sweep(keys, high, source.mask(i), num_classes=3)
  result = thresholds.best_score(sums, CLASSES) | {'classification': {'map': 91.25}}
  records.write_json(workdir / 'evaluation' / 'priors_train.json', result)
  return result


PROXY = {
  'images': 8,
  'threshold': 0.3,
  'scales': 4,
  'crf': 71.25,
  'views': None,
  'undecided': 12.5,
  'whole': 95.0,
  'erased': 33.3,
  'by_class': {name: {'images': 4, 'whole': 95.0, 'erased': 30.0} for name in CLASSES[1:]},
  'by_image': {f'img{i}': 90.0 - 10 * (i % 4) for i in range(8)},
}
"""What is said of the priors where there are no masks."""


class Checker(html.parser.HTMLParser):
  """Collects ids, alternative texts and addresses; fails on tags that do not close."""

  VOID = frozenset({'meta', 'img', 'br', 'link'})

  def __init__(self, text):
    super().__init__()
    self.ids, self.addresses, self.images, self.open = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attributes):
    found = dict(attributes)
    self.ids += [found['id']] if 'id' in found else []
    self.addresses += [found[k] for k in ('src', 'href', 'xlink:href') if k in found]
    self.images += [found.get('alt')] if tag == 'img' else []
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if tag not in self.VOID:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def write_refinement(workdir):
  """Adds what the stages after the priors leave, made up from the masks."""
  source = Source()
  confusion, sums = segmentation.init_confusion(3), thresholds.init_sums(3)
  for i, image_id in enumerate(source.ids):
    mask = source.mask(i)
    keys, maps = np.array([0, 1 + i % 2], np.int32), np.float16(mask > 0)[None]
    products.write_walk(workdir / 'random_walk' / 'train' / f'{image_id}.npz', keys, maps)
    sums += thresholds.sweep(keys, maps, mask, num_classes=3)
    labels = np.roll(mask, 1, axis=1)
    confusion += segmentation.confuse(labels, mask, num_classes=3)
    for place, array in (
      ('saliency_priors', 255 * (mask > 0)),
      ('saliency_priors/maps', 200 * (mask > 0)),
      ('saliency', 180 * (mask > 0)),
      ('affinity_labels', np.where(mask > 0, mask, 255)),
      ('pseudo_masks', labels),
      ('predictions', mask),
    ):
      path = workdir / place / 'train' / f'{image_id}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      images.write_png(path, array.astype(np.uint8))
  labels = {**segmentation.score(confusion.counts, CLASSES), 'confusion': confusion.matrix}
  walk = thresholds.best_score(sums, CLASSES)
  two = {'miou': 92.5, 'miou_fg': 90.5, 'iou': {'background': 94.5, 'salient': 90.5}}
  two |= {'segmentation': {'miou': 81.75}, 'priors': {'miou': 77.25}}
  swept = {**two, **{key: walk[key] for key in ('threshold', 'thresholds', 'mious')}}
  for name, result in (
    ('saliency_priors', {**two, 'maps': swept}),
    ('saliency', swept),
    ('affinity_labels', {**labels, 'undecided': 33.25, 'accuracy': 98.5}),
    ('random_walk', walk),
    ('pseudo_masks', labels),
    ('predictions', labels),
  ):
    records.write_json(workdir / 'evaluation' / f'{name}_train.json', result)
    records.write_done(workdir / name, {}, {}, {'seconds': 12.0, 'images_per_second': 45.5})
