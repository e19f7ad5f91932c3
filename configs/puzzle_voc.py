"""Puzzle-CAM on PASCAL VOC 2012, to the priors: "P fair", which keeps the last weights.

    python launch/run.py --config=configs/puzzle_voc.py --config.dataset.root=ROOT
    python launch/run.py --config=configs/puzzle_voc.py:smoke --config.dataset.root=ROOT

Data, weights, words (`:paper`, `:journal`, `:head`, `backbone=`, `:smoke`) and resuming are those
of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run. Published: priors 60.9 mIoU on train (62.0 with the weights
that scored best on the training masks).
"""

from configs import _presets, _recipes

get_config = _presets.preset('puzzle_voc', _recipes.VOC, method='puzzle', scored=_presets.TO_PRIORS)
