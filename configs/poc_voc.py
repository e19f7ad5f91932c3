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

from configs import _presets, _recipes

get_config = _presets.preset('poc_voc', _recipes.VOC, method='poc', scored=_presets.TO_PREDICTIONS)
