"""P-NOC on Cityscapes, from image labels to DeepLabV3+.

    python launch/run.py --config=configs/pnoc_cityscapes.py --config.dataset.root=ROOT
    python launch/run.py --config=configs/pnoc_cityscapes.py:smoke --config.dataset.root=ROOT

ROOT holds leftImg8bit and gtFine (data/readers/cityscapes.py); classes that fill every street are
background. Images are squeezed to 768 px; the backbone is ResNeSt-101. The code has recipes of
classifiers and C2AM-H, and none between these and DeepLabV3+: pseudo masks are made of the priors.
The equalisation (CLAHE) that a comment of its runner names is not switched on (`transform.tones`).
Only the latest code has this data set, so `:paper`, `:journal` and `:head` are one recipe; without
a word Alg. 1 is kept (no gradients leak) in float32. Weights, `backbone=`, `:smoke` and resuming
are those of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run.
"""

from configs import _presets, _recipes

get_config = _presets.preset(
  'pnoc_cityscapes', _recipes.CITYSCAPES, method='pnoc', scored=_presets.WITH_MASKS_OF_C2AM
)
