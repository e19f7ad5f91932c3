"""P-OC on PASCAL VOC 2012, from image labels to DeepLabV3+: the classifier that judges stays fixed.

    python launch/run.py --config=configs/poc_voc.py --config.dataset.root=ROOT \\
      --config.saliency.init=resnet50_caffe.pth
    python launch/run.py --config=configs/poc_voc.py:smoke --config.dataset.root=ROOT

Data, weights, words (`:paper`, `:journal`, `:head`, `backbone=`, `:smoke`) and resuming are those
of configs/pnoc_voc.py; the classifier of such a run serves here with
`--config.inputs.classifier=runs/pnoc_voc/classifier`.

Obtained: nothing yet, it was not run. Published with `:journal`: priors 61.9 mIoU on train (61.5
without label smoothing), DeepLabV3+ 71.4 on val.
"""

import dataclasses

from configs import _presets, _recipes


def _change(numbers: _recipes.Numbers, recipe: str) -> _recipes.Numbers:
  if recipe != 'paper':
    return numbers
  # Its runner of P-OC set no accumulation, and refined with other numbers than that of P-NOC.
  return dataclasses.replace(
    numbers, accumulate=1, c2am_threshold=0.4, foreground=0.4, label_confidence=0.9
  )


get_config = _presets.preset(
  'poc_voc', _recipes.VOC, method='poc', scored=_presets.TO_PREDICTIONS, change=_change
)
