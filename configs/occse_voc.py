"""OC-CSE on PASCAL VOC 2012, to the priors: an ordinary classifier judges erased images, no tiles.

    python launch/run.py --config=configs/occse_voc.py --config.dataset.root=ROOT
    python launch/run.py --config=configs/occse_voc.py:smoke --config.dataset.root=ROOT

Batch normalisation and stem are frozen and the output stride is 8, as in the released runner; the
original's network is `backbone=resnet38d`. Data, weights, words (`:paper`, `:journal`, `:head`,
`backbone=`, `:smoke`) and resuming are those of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run; and nothing is published of this recipe.
"""

from configs import _presets, _recipes

get_config = _presets.preset('occse_voc', _recipes.VOC, method='occse', scored=_presets.TO_PRIORS)
