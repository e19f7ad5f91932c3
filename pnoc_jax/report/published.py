"""The authors' own results, which a report shows beside those of a run on the same data set.

Source: README of the official code; for Puzzle-CAM, and for predictions on COCO, the paper. Their
networks are larger and their trainings longer than those of most runs here.
"""

from collections.abc import Mapping
from typing import Any

from pnoc_jax.report import files, tables

# data set -> stage -> mIoU in percent. Priors, saliency and pseudo masks are of the training split.
_PRIORS = {
  # By method, without and with label smoothing.
  'voc12': {
    'vanilla': (None, 53.7),
    'puzzle': (60.9, None),
    'poc': (61.5, 61.9),
    'pnoc': (62.9, 63.7),
  },
  'coco14': {'vanilla': (None, 33.7), 'poc': (38.5, 37.3), 'pnoc': (40.7, 38.2)},
}
_PREDICTIONS = {'voc12': {'poc': 71.4, 'pnoc': 73.8}, 'coco14': {'pnoc': 48.1}}
_SUPERVISED = {'voc12': 80.6}  # With the weights that scored best on val.
# Of C2AM-H's masks and of the saliency network, both from P-NOC's maps, with the true classes
# (Table 3).
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
  found = {}
  priors = _PRIORS.get(dataset, {}).get(method, (None, None))[smoothed]
  if priors is not None:
    found['priors'] = f'{tables.number(priors)} train'
  by_method = _PREDICTIONS.get(dataset, {}).get(method)
  predictions = _SUPERVISED.get(dataset) if is_supervised(config) else by_method
  if predictions is not None:
    found['predictions'] = f'{tables.number(predictions)} val'
  if method == 'pnoc' and dataset in _SALIENCY:
    masks, maps = map(tables.number, _SALIENCY[dataset])
    found['saliency_priors'] = f'{masks} with the true classes'
    found['saliency'] = f'{maps} with the true classes'
    found['pseudo_masks'] = f'{tables.number(_PSEUDO_MASKS[dataset])} train'
  return found


def is_supervised(config: Mapping[str, Any]) -> bool:
  """Whether a run's segmentation network learns from true masks."""
  return files.lookup(config, 'segmentation.labels', '') == 'true'
