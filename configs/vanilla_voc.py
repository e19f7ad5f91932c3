"""An ordinary classifier on PASCAL VOC 2012, to the priors: the tables' row "RA".

    python launch/run.py --config=configs/vanilla_voc.py --config.dataset.root=ROOT
    python launch/run.py --config=configs/vanilla_voc.py:smoke --config.dataset.root=ROOT

Its maps are what the other methods improve on. Data, weights, words (`:paper`, `:journal`, `:head`,
`backbone=`, `:smoke`) and resuming are those of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run. Published with `:journal`: priors 53.7 mIoU on train.
"""

from configs import _presets, _recipes

get_config = _presets.preset(
  'vanilla_voc', _recipes.VOC, method='vanilla', scored=_presets.TO_PRIORS
)
