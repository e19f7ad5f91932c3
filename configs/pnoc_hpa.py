"""P-NOC on the Human Protein Atlas' single cells, to the priors: images of four channels, no masks.

    python launch/run.py --config=configs/pnoc_hpa.py --config.dataset.root=ROOT
    python launch/run.py --config=configs/pnoc_hpa.py:smoke --config.dataset.root=ROOT

ROOT holds train.csv and train/ (data/readers/hpa.py). Images are squeezed to 512 px. The first
convolution sees the fourth channel with its weights of the first. There are no masks, so nothing is
scored. Only the latest code has this data set, so `:paper`, `:journal` and `:head` are one recipe;
without a word Alg. 1 is kept (no gradients leak) in float32. Weights, `backbone=`, `:smoke` and
resuming are those of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run.
"""

from configs import _presets, _recipes

get_config = _presets.preset('pnoc_hpa', _recipes.HPA, method='pnoc', scored=_presets.TO_PRIORS)
