"""The authors' own results, which a report shows beside those of a run on the same data set.

Source: README of the official code; for Puzzle-CAM, and for predictions on COCO, the paper. Their
networks are larger and their trainings longer than those of most runs here.
"""

from collections.abc import Mapping
from typing import Any

from pnoc_jax.report import files, tables

# data set -> (method, whether its labels are smoothed) -> mIoU in percent, of the training split.
_PRIORS = {
  'voc12': {
    ('vanilla', True): 53.7,
    ('puzzle', False): 60.9,
    ('poc', False): 61.5,
    ('poc', True): 61.9,
    ('pnoc', False): 62.9,
    ('pnoc', True): 63.7,
  },
  'coco14': {
    ('vanilla', True): 33.7,
    ('poc', False): 38.5,
    ('poc', True): 37.3,
    ('pnoc', False): 40.7,
    ('pnoc', True): 38.2,
  },
}
# The same, of the validation split.
_PREDICTIONS = {
  'voc12': {('poc', False): 71.4, ('pnoc', True): 73.8},
  'coco14': {('pnoc', False): 48.1},
}
_SUPERVISED = {'voc12': 80.6}  # With the weights that scored best on val.
# Of C2AM-H's masks and of the saliency network, both with the true classes (Table 3), and of the
# pseudo masks: all from the maps that are best on the data set.
_BEST = {'voc12': ('pnoc', True), 'coco14': ('pnoc', False)}
_SALIENCY = {'voc12': (67.9, 70.8), 'coco14': (70.5, 71.3)}
_PSEUDO_MASKS = {'voc12': 75.5, 'coco14': 47.7}


def scores(config: Mapping[str, Any]) -> dict[str, str]:
  """What was published for a run's data set and method.

  Args:
    config: content of the run's `config.json`.

  Returns:
    Stage -> figure with its split; empty for data sets that are not the paper's.
  """
  dataset = files.lookup(config, 'dataset.name', '')
  method = files.lookup(config, 'generator.method', '')
  smoothed = (files.lookup(config, 'generator.smoothing', 0) or 0) > 0
  found, maps_of = {}, (method, smoothed)
  priors = _PRIORS.get(dataset, {}).get(maps_of)
  if priors is not None:
    found['priors'] = f'{tables.number(priors)} train'
  by_method = _PREDICTIONS.get(dataset, {}).get(maps_of)
  predictions = _SUPERVISED.get(dataset) if is_supervised(config) else by_method
  if predictions is not None:
    found['predictions'] = f'{tables.number(predictions)} val'
  if maps_of == _BEST.get(dataset):
    masks, maps = map(tables.number, _SALIENCY[dataset])
    found['saliency_priors'] = f'{masks} with the true classes'
    found['saliency'] = f'{maps} with the true classes'
    found['pseudo_masks'] = f'{tables.number(_PSEUDO_MASKS[dataset])} train'
  return found


def is_supervised(config: Mapping[str, Any]) -> bool:
  """Whether a run's segmentation network learns from true masks."""
  return files.lookup(config, 'segmentation.labels', '') == 'true'
