"""What saliency is worth against masks: alone, with the true classes, and with the priors' classes.

Of Table 3, "P." are the masks of C2AM, "R." the maps of the saliency network.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pnoc_jax.engine import per_image
from pnoc_jax.io import products
from pnoc_jax.metrics import saliency, segmentation, thresholds
from pnoc_jax.stages.common import scores


def score_saliency_masks(split: scores.Split, inputs: scores.Inputs) -> dict[str, Any]:
  """Scores C2AM's masks, and its maps at every threshold."""
  directory, sums = inputs['saliency_priors'], thresholds.init_sums(2)
  for index, path in scores.paths(split, directory / 'maps', 'saliency_priors', split.labelled):
    mask = split.mask(index)
    sums += saliency.sweep(_grey(path, mask.shape), mask)
  result = _beside_classes(split, inputs, 'saliency_priors', threshold=0.5)  # Of 0 and 1.
  maps = thresholds.best_score(sums, saliency.CLASSES)
  return {**result, 'maps': maps, 'images': len(split.labelled)}


def score_saliency(split: scores.Split, inputs: scores.Inputs) -> dict[str, Any]:
  """Scores the network's maps at every threshold; the best one cuts them for what follows."""
  sums = thresholds.init_sums(2)
  for index, path in scores.paths(split, inputs['saliency'], 'saliency', split.labelled):
    mask = split.mask(index)
    sums += saliency.sweep(_grey(path, mask.shape), mask)
  result = thresholds.best_score(sums, saliency.CLASSES)
  return {**_beside_classes(split, inputs, 'saliency', result['threshold']), **result}


def _grey(path: Path, size: tuple[int, int]) -> np.ndarray:
  """A map of 0..255 as f32[H, W] in [0, 1]."""
  return scores.read_labels(path, size).astype(np.float32) / 255


def _beside_classes(
  split: scores.Split, inputs: scores.Inputs, name: str, threshold: float
) -> dict[str, Any]:
  """2-class IoU of a map cut at a threshold, and what it gives with perfect and predicted classes.

  Returns:
    The score of the two classes; `segmentation`: with the masks' own classes (Table 3, "GT");
    `priors`: with the priors', whose background is then `1 - saliency` (Table 3, "P." and "R.").
  """
  source, num_classes = split.source, len(split.classes)
  alone = segmentation.init_confusion(2)
  perfect, combined = (segmentation.init_confusion(num_classes) for _ in range(2))
  for index, path in scores.paths(split, inputs[name], name, split.labelled):
    mask = split.mask(index)
    found = _grey(path, mask.shape)
    salient = found > np.float32(threshold)
    alone += segmentation.confuse(salient, saliency.binary_target(mask), num_classes=2)
    # Differs from the reference: an image's random classes follow from the seed and its name;
    # because its draws have no seed, so that no score can be repeated.
    generator = np.random.default_rng((split.seed, zlib.crc32(source.ids[index].encode())))
    labels = saliency.draw_classes(salient, mask, num_classes=num_classes, generator=generator)
    perfect += segmentation.confuse(labels, mask, num_classes=num_classes)
    if 'priors' in inputs:
      prior = products.read_prior(
        per_image.image_path(inputs['priors'], source.split, source.ids[index], suffix='.npz'),
        size=mask.shape,
        num_classes=num_classes - 1,
        arrays=('high',),
      )
      labels = saliency.label_priors(prior.keys, prior.high, found)
      combined += segmentation.confuse(labels, mask, num_classes=num_classes)
  result = segmentation.score(alone.counts, saliency.CLASSES)
  result['segmentation'] = segmentation.score(perfect.counts, split.classes)
  if 'priors' in inputs:
    result['priors'] = segmentation.score(combined.counts, split.classes)
  return result
