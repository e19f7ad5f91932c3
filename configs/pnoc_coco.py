"""P-NOC on MS COCO 2014, from image labels to DeepLabV3+.

    python launch/run.py --config=configs/pnoc_coco.py --config.dataset.root=ROOT \\
      --config.saliency.init=resnet50_caffe.pth
    python launch/run.py --config=configs/pnoc_coco.py:smoke --config.dataset.root=ROOT

ROOT holds train2014, val2014 and annotations/ (data/readers/coco.py). Weights, words (`:paper`,
`:journal`, `:head`, `backbone=`, `:smoke`) and resuming are those of configs/pnoc_voc.py. Label
smoothing is off but in `:head`: the best published row has none.

An epoch has 2,565 steps of 32 images; the reference's 2,586 count the 702 images without a label,
in whose place it shows the next one.

Obtained: nothing yet, it was not run. Published: priors 40.7 mIoU, pseudo masks 47.7, DeepLabV3+
47.7 on val (48.1 in the paper).
"""

from configs import _presets, _recipes

get_config = _presets.preset(
  'pnoc_coco', _recipes.COCO, method='pnoc', scored=_presets.TO_PREDICTIONS
)
