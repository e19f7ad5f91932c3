"""How sure the priors are of images without masks: a proxy, for what it is worth, and no score.

What is sure need not be right. What each figure was worth against mIoU stands in `docs/results.md`
(`benchmarks/proxy.py`): the agreement with the CRF alone follows it.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import crf as crf_lib
from pnoc_jax.engine import infer, networks, per_image
from pnoc_jax.io import products, records
from pnoc_jax.metrics import segmentation
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.predict import cams
from pnoc_jax.stages.common import scores
from pnoc_jax.types import Array, PyTree, Variables


@dataclasses.dataclass(slots=True)
class ProxyConfig:
  """What is looked at where there are no masks.

  Attributes:
    images: at most so many of a split, at equal distances; 0 for no proxy at all.
    threshold: of the background, since no mask tells the best one.
  """

  images: int = 64
  threshold: float = 0.3


def measure(split: scores.Split, inputs: scores.Inputs) -> dict[str, Any]:
  """Looks at the priors of some images, at their CRF, and at what the network makes of them.

  Args:
    split: images; its `config` says how the priors were made.
    inputs: directories: `priors`, and `generator` where its network is there.

  Returns:
    In percent, each with None where it cannot be told. `undecided`: pixels whose largest map lies
    between the two thresholds of the affinity labels. `shown`: classes of the images that have a
    pixel in the label map. `crf`: mean IoU of the label maps and what a CRF makes of them. `views`:
    mean IoU of the label maps and those of one scale alone, or of the image and its mirror image
    where there is one scale; a label map without any class, which is wrong for sure since its image
    has one, counts 0 in both. `whole`: the network's probability of the
    classes in the image; `erased`: the same after the pixels of the class are erased, which is low
    where the maps cover all that shows the class. Then `by_class` and `by_image`.
  """
  ours, source = split.config.evaluation.proxy, split.source
  labelled = split.labelled
  places = np.linspace(0, len(labelled) - 1, min(len(labelled), ours.images)).round()
  indices = [labelled[i] for i in sorted(set(places.astype(int).tolist()))]
  directory, classes = inputs['priors'], source.info.classes
  labels: dict[int, np.ndarray] = {}
  undecided, whole, shown = [], {}, {}
  for index, path in scores.paths(split, directory, 'priors', indices, '.npz'):
    prior = _read(source, index, path)
    labels[index] = pseudo_labels.argmax_labels(np.moveaxis(prior.high, 0, -1), ours.threshold)
    undecided.append(_undecided(split, prior))
    for place, k in enumerate((prior.keys[1:] - 1).tolist(), 1):
      whole[index, k] = _probability(float(prior.logits[k]))
      shown[index, k] = 100 * float((labels[index] == place).any())
  refined, views, erased = _refined(split, labels), {}, {}
  generator = inputs.get('generator')
  if generator is not None and records.read_done(generator) is not None:
    views = _views(split, generator, labels)
    erased = _erased(split, generator, directory, list(whole))

  def of_class(k: int) -> dict[str, float | None]:
    pairs = [pair for pair in whole if pair[1] == k]
    return {
      'images': len(pairs),
      'shown': _mean([shown[pair] for pair in pairs]),
      'whole': _mean([whole[pair] for pair in pairs]),
      'erased': _mean([erased[pair] for pair in pairs if pair in erased]),
    }

  return {
    'images': len(indices),
    'threshold': ours.threshold,
    'undecided': _mean(undecided),
    'shown': _mean(shown.values()),
    'crf': _mean(refined.values()),
    'views': _mean(views.values()),
    'scales': len(split.config.priors.scales),
    'whole': _mean(whole.values()),
    'erased': _mean(erased.values()),
    'by_class': {classes[k]: of_class(k) for k in sorted({k for _, k in whole})},
    'by_image': {source.ids[index]: value for index, value in refined.items()},
  }


def _read(source: info.Source, index: int, path: Path) -> products.Prior:
  size, num_classes = source.size(index), source.info.num_classes
  return products.read_prior(path, size=size, num_classes=num_classes, arrays=('high', 'logits'))


def _mean(values: Iterable[float]) -> float | None:
  known = [value for value in values if np.isfinite(value)]
  return float(np.mean(known)) if known else None


def _agreement(labels: np.ndarray, others: np.ndarray) -> float:
  """IoU of an image's label map and another one, in percent; 0 where it shows no class."""
  return 100 * segmentation.image_iou(labels, others) if labels.any() else 0.0


def _probability(logit: float) -> float:
  """In percent."""
  return float(50 + 50 * np.tanh(logit / 2))


def _undecided(split: scores.Split, prior: products.Prior) -> float:
  labels, largest = split.config.affinity_labels, prior.high.max(axis=0).astype(np.float32)
  between = (largest > np.float32(labels.background)) & (largest <= np.float32(labels.foreground))
  return float(100 * between.mean())


def _refined(split: scores.Split, labels: dict[int, np.ndarray]) -> dict[int, float]:
  """Of each image, the IoU of its label map and what a CRF makes of it."""
  source, config = split.source, split.crf
  if not config.steps or split.runtime is None:
    return {}
  counts = {index: int((source.labels[index] > 0).sum()) + 1 for index in labels}
  sizes = [source.size(index) for index in labels]
  refine = crf_lib.LabelCrf(config, split.runtime, sizes, labels=max(counts.values()))
  items = (
    (index, np.asarray(source.example(index)['image'])[..., :3], found, counts[index])
    for index, found in labels.items()
  )
  refined = scores.watch(
    split, refine(items), f'CRF of priors of {source.split}', total=len(labels)
  )
  return {index: _agreement(labels[index], found) for index, found in refined}


def _views(split: scores.Split, generator: Path, labels: dict[int, np.ndarray]) -> dict[int, float]:
  """Of each image, the mean IoU of its label map and those of single views."""
  config, source = split.config, split.source
  if config.priors.maps.value != 'cam' or split.runtime is None:
    return {}
  model_config = config.generator.model
  dataset = networks.colours(model_config, source.info)
  model = networks.build(model_config, dataset.num_classes)
  stride, alone = networks.stride(model_config), len(config.priors.scales) == 1

  def scale(variables: Variables, image: Array, size: Array) -> tuple[Array, ...]:
    def maps(image: Array) -> Array:
      return cams.scale_cams(model, variables, image, size, output_stride=stride, flip=False)[0]

    if not alone:
      return (maps(image),)
    mirrored = maps(cam_ops.flip(image, size[:, 1]))
    return maps(image), cam_ops.flip(mirrored, -(-size[:, 1] // stride))

  def fuse(results: list[tuple[Array, ...]], grid: infer.Grid) -> PyTree:
    return tuple(
      cams.fuse_cams(
        [maps],
        [size],
        grid.native,
        grid.context['classes'],
        output_stride=stride,
        shape=grid.shape,
      )[1]
      for found, size in zip(results, grid.scaled, strict=True)
      for maps in found
    )

  variables = networks.load(model, dataset, generator)
  network = infer.Network(scale, fuse, variables, dataset, infer.with_classes)
  inference = infer.Inference(network, config.priors, split.runtime)
  agreements = {}
  seen = inference(
    source,
    list(labels),
    context=lambda batch: {'classes': infer.present(source.labels[batch['index']])},
    by_classes=True,
  )
  what = f'single views of {source.split}'
  for index, (height, width), views in scores.watch(split, seen, what, total=len(labels)):
    count = int((source.labels[index] > 0).sum())
    found = [
      pseudo_labels.argmax_labels(view[:height, :width, :count], config.evaluation.proxy.threshold)
      for view in views
    ]
    agreements[index] = float(np.mean([_agreement(labels[index], x) for x in found]))
  return agreements


def _erased(
  split: scores.Split, generator: Path, priors: Path, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], float]:
  """Of each image and class, the class's probability once its pixels are erased, in percent."""
  config, source = split.config, split.source
  if split.runtime is None:
    return {}
  model_config = config.generator.model
  dataset = networks.colours(model_config, source.info)
  model = networks.build(model_config, dataset.num_classes)
  stride = networks.stride(model_config)

  def scale(variables: Variables, image: Array, size: Array) -> Array:
    return cams.scale_cams(model, variables, image, size, output_stride=stride, flip=False)[1]

  def fuse(results: list[Array], grid: infer.Grid) -> Array:
    del grid
    return results[0]

  variables = networks.load(model, dataset, generator)
  network = infer.Network(scale, fuse, variables, dataset)
  inference = infer.Inference(network, config.priors, split.runtime, scales=(1.0,))
  fill = np.round(255 * np.array(dataset.mean)).astype(np.uint8)
  images = _Erased(split, priors, pairs, fill)
  found = scores.watch(split, inference(images, range(len(pairs))), images.split, total=len(pairs))
  return {pairs[i]: _probability(logits[pairs[i][1]]) for i, _, logits in found}


class _Erased:
  """Images of which one class is erased by its prior; a split like any other."""

  has_masks = False

  def __init__(
    self, split: scores.Split, priors: Path, pairs: Sequence[tuple[int, int]], fill: np.ndarray
  ):
    """Says what is erased; reads nothing.

    Args:
      split: the images.
      priors: directory of their priors.
      pairs: (index, class) of what is erased.
      fill: u8[channels], the colour that takes its place.
    """
    source = split.source
    self.info, self.split = source.info, f'{source.split}, erased'
    self.ids = tuple(f'{source.ids[i]}, {source.info.classes[k]}' for i, k in pairs)
    self.labels = source.labels[[index for index, _ in pairs]]
    self._source, self._priors, self._pairs, self._fill = source, priors, pairs, fill
    self._threshold = split.config.evaluation.proxy.threshold

  def __len__(self) -> int:
    return len(self._pairs)

  def example(self, index: int) -> dict[str, np.ndarray]:
    original, erased = self._pairs[index]
    source = self._source
    image = np.array(source.example(original)['image'])
    path = per_image.image_path(self._priors, source.split, source.ids[original], suffix='.npz')
    prior = _read(source, original, path)
    maps = np.moveaxis(prior.high, 0, -1)
    labels = prior.keys[pseudo_labels.argmax_labels(maps, self._threshold)]
    image[labels == erased + 1] = self._fill
    return info.make_example(image, self.labels, index)

  def mask(self, index: int) -> np.ndarray | None:
    del index

  def size(self, index: int) -> tuple[int, int]:
    return self._source.size(self._pairs[index][0])

  def files(self, index: int) -> tuple[Path, ...]:
    return self._source.files(self._pairs[index][0])
